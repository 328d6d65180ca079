"""The figures of the report, as inline SVG: no free text inside (names stand around them), the same bytes always.

Colours are Okabe and Ito's. A malicious client is always vermilion and dashed; nothing else is. Text and axes are drawn
in a placeholder ink that becomes a style variable, so that a figure follows the page into the dark. Legends are markup
(``legend``): names from outside never reach matplotlib.
"""

from __future__ import annotations

import hashlib
import html
import io
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator, NullLocator

from fedsec.types import Vector

BLUE, ORANGE, GREEN, PURPLE, SKY, YELLOW = "#0072b2", "#e69f00", "#009e73", "#cc79a7", "#56b4e9", "#f0e442"
MALICIOUS = "#d55e00"
INK = "#010203"
"""Placeholder of the page's text colour."""
HONEST = (BLUE, GREEN, ORANGE, SKY, PURPLE)
MANY = 8
"""Above this number of clients the honest ones are drawn alike."""
WIDTH = 4.6
"""Inches: text of 9 points stays legible on a phone, where a figure is about this wide."""
FLOOR = 1e-6
"""A weight below this is drawn here, as a triangle."""
_STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",
    "svg.hashsalt": "fedsec",
    "text.parse_math": False,
    "font.size": 9.0,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.linewidth": 0.7,
    "lines.linewidth": 1.5,
    "lines.markersize": 4.0,
    "axes.grid": True,
    "grid.alpha": 0.15,
    "grid.linewidth": 0.6,
    "grid.color": INK,
    "text.color": INK,
    "axes.edgecolor": INK,
    "axes.labelcolor": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "figure.facecolor": "none",
    "axes.facecolor": "none",
    "savefig.facecolor": "none",
}


@dataclass(frozen=True)
class Look:
    """How one series is drawn."""

    colour: str
    dashes: str = "-"
    marker: str = ""
    width: float = 1.5
    alpha: float = 1.0


@dataclass(frozen=True)
class Curve:
    """One series: x, y and, where several seeds were run, the ends of their interval (NaN where there is none)."""

    look: Look
    x: Vector
    y: Vector
    low: Vector | None = None
    high: Vector | None = None


def client_look(partition: int, clients: int, malicious: Sequence[int], ever: Sequence[int] = ()) -> Look:
    """Malicious: vermilion, dashed, thick. Honest: a colour each, or all alike when there are many.

    ``malicious`` attack in the arm that is drawn, ``ever`` in any arm of the run: a client that is honest in every arm
    then keeps its colour in all of them.
    """
    if partition in malicious:
        return Look(MALICIOUS, "--", width=2.0)
    if clients > MANY:
        return Look(BLUE, width=0.8, alpha=0.4)
    place = sorted(range(clients), key=lambda p: (p in ever, p)).index(partition)
    return Look(HONEST[place % len(HONEST)], "-" if place < len(HONEST) else ":")


def arm_look(place: int) -> Look:
    """The arm at ``place`` in the run's order; colour, dashes and marker all differ, so that no one needs colour."""
    colours = (BLUE, ORANGE, GREEN, PURPLE, SKY, INK)
    return Look(colours[place % 6], ("-", "--", "-.", ":")[place // 6 % 4], "osD^vPX"[place % 7])


def class_look(place: int) -> Look:
    return Look((SKY, ORANGE, GREEN, PURPLE, YELLOW, BLUE, "#999999", "#6b4f3a")[place % 8])


def clients_over_rounds(
    curves: Mapping[int, Curve], flags: Sequence[tuple[int, int]], *, label: str, title: str, log: bool = False
) -> str:
    """One line a client over rounds; a ring marks each flagged (client, round). ``log`` is for weights.

    Values far outside the bulk are drawn at the edge as a triangle, values that are not finite as a cross.
    """
    low, high = (FLOOR, 1.6) if log else _fence([curve.y for curve in curves.values()])

    def draw(axes: Axes) -> None:
        if log:
            axes.set_yscale("log")
            axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
            axes.yaxis.set_minor_locator(NullLocator())
        for partition, curve in curves.items():
            shown = np.where(np.isnan(curve.y), high, np.clip(curve.y, low, high))
            axes.plot(curve.x, np.clip(curve.y, low, high), **_line(curve.look))
            _edges(axes, curve, low, high)
            ringed = [i for i, r in enumerate(curve.x) if (partition, int(r)) in flags]
            axes.plot(curve.x[ringed], shown[ringed], "o", mfc="none", mec=INK, ms=6, mew=0.8, clip_on=False, zorder=5)
        axes.set_ylim(low / 1.6 if log else low, high)
        _rounds(axes, label)

    return _svg(draw, title)


def curves_over(curves: Sequence[Curve], *, across: str, label: str, title: str, log: bool = False) -> str:
    """One line with markers an arm, with its interval over seeds where there is one."""

    def draw(axes: Axes) -> None:
        for curve in curves:
            axes.plot(curve.x, curve.y, **_line(curve.look))
            if curve.low is not None and curve.high is not None:
                drawn = np.isfinite(curve.low) & np.isfinite(curve.high)
                axes.vlines(curve.x[drawn], curve.low[drawn], curve.high[drawn], curve.look.colour, lw=1, alpha=0.6)
        if log:
            axes.set_xscale("log")
            ticks = sorted({float(x) for curve in curves for x in curve.x})
            axes.set_xticks(ticks, [f"{tick:g}" for tick in ticks], minor=False)
            axes.minorticks_off()
        _rounds(axes, label)
        axes.set_xlabel(across)

    return _svg(draw, title)


def stacked_counts(counts: Sequence[Sequence[int]], malicious: Sequence[int], *, title: str) -> str:
    """One bar a client, stacked by class or site; a malicious client's bar has a vermilion outline and tick."""
    table = np.array(counts, dtype=np.float64)
    clients = np.arange(len(table))

    def draw(axes: Axes) -> None:
        left = np.zeros(len(table))
        for place in range(table.shape[1]):
            axes.barh(clients, table[:, place], left=left, color=class_look(place).colour, height=0.7, lw=0)
            left += table[:, place]
        guilty = [p for p in malicious if p < len(table)]
        axes.barh(guilty, left[guilty], color="none", edgecolor=MALICIOUS, height=0.78, lw=2.0, ls="--")
        axes.invert_yaxis()
        axes.yaxis.set_major_locator(MaxNLocator(integer=True, nbins=12))
        axes.grid(visible=False, axis="y")
        axes.set_xlabel("training images")
        axes.set_ylabel("client")

    return _svg(draw, title, height=max(1.6, min(5.0, 0.8 + 0.28 * len(table))))


def legend(entries: Sequence[tuple[Look, str]], *, filled: bool = False) -> str:
    """The key of a figure as a list; ``filled`` draws squares instead of lines. Names must be inert markup."""
    items = "".join(f"<li>{_swatch(look, filled)}{name}</li>" for look, name in entries)
    return f'<ul class="legend">{items}</ul>'


_MARKS = {
    "o": "M11 5a3 3 0 1 0 6 0a3 3 0 1 0-6 0",
    "s": "M11 2h6v6h-6z",
    "D": "M14 1l4 4-4 4-4-4z",
    "^": "M14 1l4 7h-8z",
    "v": "M14 9l4-7h-8z",
    "P": "M12.6 1h2.8v2.6h2.6v2.8h-2.6v2.6h-2.8v-2.6h-2.6v-2.8h2.6z",
    "X": "M11 1l3 2.6 3-2.6 1.5 1.5-2.6 2.5 2.6 2.5-1.5 1.5-3-2.6-3 2.6-1.5-1.5 2.6-2.5-2.6-2.5z",
}
"""Markers as paths in a box of 28 x 10, for the legend."""


def _swatch(look: Look, filled: bool) -> str:
    colour = "currentColor" if look.colour == INK else look.colour
    if filled:
        inside = f'<path d="M6 0h16v10h-16z" fill="{colour}"/>'
    else:
        dash = {"--": "5 3", ":": "1.5 2.5", "-.": "6 2.5 1.5 2.5"}.get(look.dashes, "none")
        inside = f'<path d="M0 5H28" stroke="{colour}" stroke-width="{look.width + 0.5}" stroke-dasharray="{dash}"/>'
        inside += f'<path d="{_MARKS[look.marker]}" fill="{colour}"/>' if look.marker else ""
    return f'<svg viewBox="0 0 28 10" aria-hidden="true">{inside}</svg>'


def _line(look: Look) -> dict[str, Any]:
    return {"color": look.colour, "ls": look.dashes, "marker": look.marker, "lw": look.width, "alpha": look.alpha}


def _fence(series: Sequence[Vector]) -> tuple[float, float]:
    """Limits around the values within 6 quartile distances of the quartiles: one absurd loss hides no curve."""
    finite = np.concatenate([[0.0], *(y[np.isfinite(y)] for y in series)])[1:]
    if len(finite) == 0:
        return 0.0, 1.0
    q1, q3 = np.quantile(finite, [0.25, 0.75])
    reach = 6 * max(q3 - q1, 1e-3 * max(abs(q1), abs(q3), 1e-9))
    inside = finite[(finite >= q1 - reach) & (finite <= q3 + reach)]
    low, high = float(inside.min()), float(inside.max())
    margin = 0.06 * max(high - low, 1e-3 * max(abs(low), abs(high), 1e-9))
    return low - margin, high + margin


def _edges(axes: Axes, curve: Curve, low: float, high: float) -> None:
    """Marks where a value lies outside the limits (or is infinite), and where it is not a number."""
    with np.errstate(invalid="ignore"):
        above, below = curve.y > high, curve.y < low
    lost = np.isnan(curve.y)
    for where, height, marker in ((above, high, "^"), (below, low, "v"), (lost, high, "x")):
        colour = curve.look.colour
        axes.plot(curve.x[where], np.full(int(where.sum()), height), marker, color=colour, ms=5, clip_on=False)


def _rounds(axes: Axes, label: str) -> None:
    if axes.get_xscale() == "linear":
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=7))
    axes.set_xlabel("round")
    axes.set_ylabel(label)


def _svg(draw: Callable[[Axes], None], title: str, height: float = 2.7) -> str:
    """Draw on fresh axes and give inline SVG that takes the page's ink and fonts, scales, and clashes with no other."""
    with mpl.rc_context(_STYLE):
        picture = Figure(figsize=(WIDTH, height))
        FigureCanvasSVG(picture)
        draw(picture.add_axes((0.58 / WIDTH, 0.44 / height, 1 - 0.68 / WIDTH, 1 - 0.54 / height)))
        out = io.StringIO()
        picture.savefig(out, format="svg", metadata={"Date": None})
    text = out.getvalue()
    text = re.sub(r"<metadata>.*?</metadata>", "", text[text.index("<svg") :], flags=re.DOTALL)
    text = re.sub(r' xmlns(?::\w+)?="[^"]*"', "", text).replace("xlink:href", "href")
    text = re.sub(r"<svg\b[^>]*?(viewBox=\"[^\"]*\")[^>]*>", r"<svg \1>", text, count=1)
    text = text.replace(INK, "var(--ink)")
    text = re.sub(r"(font: [\d.]+px) [^;\"]*", r"\1 var(--sans)", text)
    name = html.escape(title, quote=True)
    tag = "f" + hashlib.blake2b(title.encode(), digest_size=6).hexdigest()
    text = re.sub(r'\bid="', f'id="{tag}.', text)
    text = re.sub(r'(href="#|url\(#)', rf"\g<1>{tag}.", text)
    return text.replace("<svg ", f'<svg role="img" aria-label="{name}" ', 1).strip()
