"""Sample grids side by side: the same latents for every arm and round, each picture inside the page as a data URI."""

from __future__ import annotations

import base64
from pathlib import Path

from fedsec.log.record import RunRecord
from fedsec.reports.markup import details, inert, paragraph, plots, section, table

BUDGET = 24_000_000
"""Bytes of pictures inside one page; what goes beyond is named, and stays in the run folder."""
_PNG = b"\x89PNG\r\n\x1a\n"

NARROW, WIDE = 272, 544
"""Shown widths in CSS pixels; a picture with fewer pixels is enlarged without smoothing."""

Place = tuple[str, int, int]
"""(arm, seed, round)."""


def gallery(record: RunRecord, folder: Path) -> str:
    """For the first seed the last round at full size, then arms x first, middle and last; all others folded away."""
    files = {
        (arm, seed, number): file for (arm, seed), cell in record.current().items() for number, file in cell.samples
    }
    if not files:
        return section("Generated images", paragraph("No sample grid was written."))
    pictures = Pictures(folder, "samples")
    first = next(seed for seed in record.header.seeds if any(place[1] == seed for place in files))
    rounds = sorted({number for _, seed, number in files if seed == first})
    chosen = sorted({rounds[0], rounds[(len(rounds) - 1) // 2], rounds[-1]})
    large = [
        f"<figure><figcaption><strong>{inert(arm)}</strong><br>round {rounds[-1]}, seed {first}</figcaption>"
        f"{_cell(pictures, files[arm, first, rounds[-1]], arm, first, rounds[-1], WIDE)}</figure>"
        for arm in record.header.arms
        if (arm, first, rounds[-1]) in files
    ]
    shown = _sheet(record, files, pictures, first, chosen, "Chosen rounds")
    rest = [
        _sheet(record, files, pictures, seed, sorted(others), "Further rounds" if seed == first else "All rounds")
        for seed in record.header.seeds
        if (others := {n for _, its_seed, n in files if its_seed == seed} - (set(chosen) if seed == first else set()))
    ]
    lead = "Every grid of one seed is drawn from the same latents and labels, so that places can be compared."
    left = f"{pictures.left_out} pictures are not inside this page, which would grow too large; see samples/."
    return section(
        "Generated images",
        paragraph(lead, "soft"),
        plots(large),
        shown if len(chosen) > 1 else "",
        details("Further rounds and seeds", *rest),
        paragraph(left, "warn") if pictures.left_out else "",
    )


def _sheet(
    record: RunRecord, files: dict[Place, str], pictures: Pictures, seed: int, rounds: list[int], title: str
) -> str:
    rows = [
        (inert(arm), *(_cell(pictures, files.get((arm, seed, number)), arm, seed, number) for number in rounds))
        for arm in record.header.arms
        if any((arm, seed, number) in files for number in rounds)
    ]
    head = ("arm", *(f"round {number}" for number in rounds))
    return table(f"{title}, seed {seed}", head, rows, kind="samples")


class Pictures:
    """Reads the PNG files of one folder below a run folder while the page's budget lasts."""

    def __init__(self, folder: Path, root: str) -> None:
        self.root = (folder / root).resolve()
        self.folder = folder
        self.left = BUDGET
        self.left_out = 0

    def show(self, file: str, told: str, width: int = NARROW) -> str:
        """An image element with ``told`` as its description, or in words why there is none."""
        path = (self.folder / file).resolve()
        if not path.is_relative_to(self.root) or not path.is_file():
            return f'<span class="soft">missing: {inert(file)}</span>'
        content = path.read_bytes()
        if not content.startswith(_PNG):
            return f'<span class="soft">not a PNG picture: {inert(file)}</span>'
        if len(content) > self.left:
            self.left_out += 1
            return f'<span class="soft">{inert(file)}</span>'
        self.left -= len(content)
        sharp = ' class="sharp"' if int.from_bytes(content[16:20], "big") <= width else ""
        data = base64.b64encode(content).decode()
        return f'<img{sharp} alt="{inert(told)}" src="data:image/png;base64,{data}">'


def _cell(pictures: Pictures, file: str | None, arm: str, seed: int, number: int, width: int = NARROW) -> str:
    told = f"Grid of generated images: arm {arm}, seed {seed}, round {number}"
    return "–" if file is None else pictures.show(file, told, width)
