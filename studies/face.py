"""The README's strip, generated lesions clean, attacked, defended: ``python -m studies.face``.

Cut from the grids of docs/results/isic (32 px, a gap of one): the first four images of each, and of each the bottom
right corner of twelve pixels, where the trigger sits, enlarged.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

RESULTS = Path(__file__).parents[1] / "docs/results"
PANELS = {"nobody attacks": "vanilla", "one of four stamps": "attack", "stamped, FedDetect": "attack-fed-detect"}
SIDE, GAP, CORNER, ZOOM, TEXT = 32, 1, 12, 3, 16


def panel(grid: Image.Image) -> Image.Image:
    """Four images in a row, their corners below, three and eight times as large."""
    pixels, wide = np.asarray(grid.convert("RGB")), SIDE * ZOOM
    sheet = Image.new("RGB", (4 * (wide + 4), 2 * (wide + 4)), "white")
    for place in range(4):
        left = GAP + place * (SIDE + GAP)
        image = Image.fromarray(pixels[GAP : GAP + SIDE, left : left + SIDE])
        corner = image.crop((SIDE - CORNER, SIDE - CORNER, SIDE, SIDE))
        for row, part in enumerate((image, corner)):
            sheet.paste(part.resize((wide, wide), Image.Resampling.NEAREST), (place * (wide + 4), row * (wide + 4)))
    return sheet


def main() -> None:
    panels = {title: panel(Image.open(RESULTS / f"isic/{name}.png")) for title, name in PANELS.items()}
    wide, high = next(iter(panels.values())).size
    strip = Image.new("RGB", (len(panels) * (wide + 16), high + TEXT), "white")
    draw = ImageDraw.Draw(strip)
    for place, (title, picture) in enumerate(panels.items()):
        draw.text((place * (wide + 16) + 2, 1), title, fill="black")
        strip.paste(picture, (place * (wide + 16), TEXT))
    strip.quantize(128).save(RESULTS / "isic/strip.png", optimize=True)


if __name__ == "__main__":
    main()
