"""``matrix.html``: heat-maps of attacks x defences, worst cases, ranks and prices, from the run log alone."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from fedsec.config.matrix import CLEAN, ORACLE, PLAIN, Matrix
from fedsec.errors import RunError
from fedsec.log.files import write_whole
from fedsec.metrics.intervals import Interval
from fedsec.reports.markup import inert, page, paragraph, section, table
from fedsec.reports.words import digits, percent
from fedsec.run.matrix import standings
from fedsec.run.roles import role
from fedsec.run.standings import Standings

MATRIX = "matrix.html"
SHARE = (0.0, 1.0)
JUDGES = ("fed-detect", "fed-inspect")
"""Defences whose cells depend on the version of a detection rule."""


def hundredths(value: float) -> str:
    return f"{round(value, 2) + 0.0:.2f}"


@dataclass(frozen=True)
class Map:
    """One heat-map. ``good`` to ``bad``: where the colour begins and where it is full; ``log``: on a ratio scale.
    ``ends``: the least and the greatest value there is. ``seeded``: seeds differ by chance, so their spread is told."""

    title: str
    note: str
    of: Callable[[Standings], Callable[[str, str], Interval]]
    text: Callable[[float], str]
    good: float
    bad: float
    log: bool = False
    ends: tuple[float, float] = (-math.inf, math.inf)
    seeded: bool = True

    def spread(self, value: Interval) -> str:
        """What the seeds leave open: the 95 % interval, within what is possible; of two seeds both values, since an
        interval from two says nothing; of one, nothing."""
        finite = [v for v in value.values if math.isfinite(v)]
        if len(finite) < 2 or not self.seeded:
            return ""
        if len(finite) == 2:
            return f"{self.text(finite[0])}, {self.text(finite[1])}"
        least, most = self.ends
        return f"{self.text(max(least, value.low))} to {self.text(min(most, value.high))}"

    def heat(self, value: float) -> float:
        """0 to 1, how bad a value is."""
        low, high, at = (
            (math.log(max(v, 1e-9)) for v in (self.good, self.bad, value)) if self.log else (self.good, self.bad, value)
        )
        return min(1.0, max(0.0, (at - low) / (high - low)))


MAPS = (
    Map(
        "Fréchet distance over the oracle's",
        "1: as good as without the attackers. The oracle knows them and leaves them out.",
        lambda s: s.ratio,
        digits,
        1.0,
        3.0,
        True,
    ),
    Map(
        "Trigger rate",
        "Share of generated images that carry the trigger.",
        lambda s: s.trigger,
        percent,
        0.02,
        0.8,
        ends=SHARE,
    ),
    Map(
        "Trigger strength",
        "How far images lean towards the trigger, whether they pass for stamped ones or not: 0 as clean images.",
        lambda s: s.strength,
        hundredths,
        0.0,
        0.3,
    ),
    Map(
        "Label fidelity lost",
        "GAN-test AUC below the oracle's: images that no longer show the class they were asked for.",
        lambda s: s.label_loss,
        hundredths,
        0.0,
        0.4,
    ),
    Map(
        "Utility lost",
        "AUC on real test images, of a classifier trained with generated images, below the oracle's.",
        lambda s: s.utility_loss,
        hundredths,
        0.0,
        0.1,
    ),
    Map(
        "Attackers not flagged",
        "Share of the attackers' client-rounds without a flag; without attack, of honest ones with one. "
        "Reducers flag nobody.",
        lambda s: _unflagged(s),
        percent,
        0.0,
        1.0,
        ends=SHARE,
    ),
    Map("Attackers' weight in the last round", "", lambda s: s.attacker_weight, percent, 0.0, 0.25, ends=SHARE),
    Map(
        "Seconds a cell",
        "Mean wall time, beside whatever else ran, on whatever machine ran it.",
        lambda s: s.seconds,
        digits,
        60,
        400,
        seeded=False,
    ),
)


def _unflagged(standings: Standings) -> Callable[[str, str], Interval]:
    def measure(attack: str, defence: str) -> Interval:
        found = standings.flags(attack, defence)
        if attack == CLEAN:
            return found
        return Interval(1 - found.mean, 1 - found.high, 1 - found.low, tuple(1 - v for v in found.values))

    return measure


def write_matrix(folder: Path, boards: dict[str, Standings]) -> Path:
    """Draw ``matrix.html`` into ``folder``, one part a split of ``boards``."""
    body = "".join(_split(name, standings) for name, standings in boards.items())
    first = next(iter(boards.values())).record.header
    title = f"{first.config.get('run.name', 'matrix')}: attacks x defences"
    path = folder / MATRIX
    write_whole(path, page(title, f"<header><h1>{inert(title)}</h1></header>\n" + body))
    return path


def _split(name: str, standings: Standings) -> str:
    header, waiting = standings.record.header, standings.unfinished()
    facts = (
        f"{header.data.source}: {header.data.train} training images, {header.clients} clients, attackers "
        f"{', '.join(map(str, header.malicious)) or 'none'}, {header.config.get('train.rounds')} rounds, seeds "
        f"{', '.join(map(str, header.seeds))}. Fidelity is {header.measured_by}."
    )
    missing = paragraph(inert(f"Not finished: {', '.join(waiting)}.", 4000), "warn") if waiting else ""
    maps = [heat_map(shown, standings) for shown in MAPS]
    facts = paragraph(inert(facts, 1000), "soft")
    return section(
        f"Split: {name}", facts, missing, rules(standings), threats(standings), worst_cases(standings), *maps
    )


def rules(standings: Standings) -> str:
    """That cells of several versions of a detection rule stand beside each other, where they do."""
    header, cells = standings.record.header, standings.record.finished()
    judged = [cell.rule for (arm, _), cell in cells.items() if role(header, arm).defence in JUDGES]
    counted = {rule or "before rules had a digest": judged.count(rule) for rule in sorted(set(judged))}
    told = ", ".join(f"{rule} ({count} cells)" for rule, count in counted.items())
    return paragraph(inert(f"Detection by more than one rule: {told}.", 1000), "warn") if len(counted) > 1 else ""


def threats(standings: Standings) -> str:
    """What the attackers of each attack do, and what they have to know for it."""
    header = standings.record.header
    found = {attack: role(header, standings.pairs[attack, PLAIN]).threat for attack in standings.attacks}
    rows = [
        (inert(attack), "<br>".join(inert(line, 400) for line in lines)) for attack, lines in found.items() if lines
    ]
    return table("Attacks, and what they have to know.", ("attack", "the malicious clients"), rows)


def heat_map(shown: Map, standings: Standings) -> str:
    """Attacks down, defences across; mean over seeds, and below it what the seeds leave open."""
    measure = shown.of(standings)
    rows = [
        (inert(attack), *(_cell(shown, measure(attack, defence)) for defence in standings.defences))
        for attack in standings.attacks
    ]
    caption = f"{shown.title}. {shown.note}"
    return table(caption, ("attack", *map(inert, standings.defences)), rows, numeric=True)


def _cell(shown: Map, value: Interval) -> str:
    if not math.isfinite(value.mean):
        return "–"
    spread = f"<small>{inert(told).replace('-', '−')}</small>" if (told := shown.spread(value)) else ""
    hue = f"rgba(232, 116, 59, {shown.heat(value.mean):.2f})"
    return (
        f'<span class="heat" style="background: {hue}">{inert(shown.text(value.mean)).replace("-", "−")}</span>{spread}'
    )


def worst_cases(standings: Standings) -> str:
    """What each defence's worst attack does, where it ranks over attacks, and what it costs when nobody attacks."""
    rows = [_row(standings, defence) for defence in standings.defences if defence != ORACLE]
    ranks = [standings.ranks(measure) for measure in (standings.ratio, standings.trigger)]
    placed = [
        (*row, *(_rank(of[defence]) for of in ranks))
        for row, defence in zip(rows, (d for d in standings.defences if d != ORACLE), strict=True)
    ]
    head = (
        "defence",
        "worst Fréchet ratio",
        "worst trigger rate",
        "worst label loss",
        "price: Fréchet ratio",
        "price: false flags",
        "rank by Fréchet",
        "rank by trigger",
    )
    caption = (
        "Each defence at its worst over attacks, its price when nobody attacks (Fréchet distance over plain "
        "averaging's), and its mean rank over attacks (1 = best) with a 95 % bootstrap interval over attacks, "
        "among the defences that all attacks have met."
    )
    return table(caption, head, placed, numeric=True)


def _row(standings: Standings, defence: str) -> Sequence[str]:
    texts = []
    for measure, text in ((standings.ratio, digits), (standings.trigger, percent), (standings.label_loss, digits)):
        attack, value = standings.worst(defence, measure)
        texts.append(f"{inert(text(value))}<small>{inert(attack)}</small>" if attack else "–")
    price, false = standings.ratio(CLEAN, defence).mean, standings.flags(CLEAN, defence).mean
    plain = defence == PLAIN
    texts.append("–" if plain or not math.isfinite(price) else inert(digits(price)))
    texts.append("–" if plain or not math.isfinite(false) else inert(percent(false)))
    return (inert(defence), *texts)


def _rank(value: Interval) -> str:
    if not math.isfinite(value.mean):
        return "–"
    spread = f"<small>{value.low:.1f} to {value.high:.1f}</small>" if math.isfinite(value.low) else ""
    return f"{value.mean:.1f}{spread}"


def draw(matrix: Matrix, cells: Path) -> Path:
    """``matrix.html`` beside the cells, from every split that has a finished one. Raises RunError when none has."""
    boards = {split: standings(matrix, split, cells) for split in matrix.splits}
    boards = {split: board for split, board in boards.items() if board.record.finished()}
    if not boards:
        raise RunError(f"{cells}: no cell of this matrix is finished; run it without --report-only")
    return write_matrix(cells, boards)
