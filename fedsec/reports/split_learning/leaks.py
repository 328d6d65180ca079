"""What activations gave away in split learning, and whether a defence buys more with its accuracy than noise does."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from fedsec.log.record import RunRecord
from fedsec.log.values import metrics_of
from fedsec.metrics.measures import HEADINGS, OLD_SSIM, SSIM, ssim_of
from fedsec.metrics.tradeoff import Point, Tradeoff, against_noise
from fedsec.reports.leakage import attacks, pictures
from fedsec.reports.leaks import PRIOR, Leak, leaks, setting
from fedsec.reports.markup import paragraph, section
from fedsec.reports.words import digits, percent
from fedsec.run.roles import overrides

CAUTION = (
    "No attacker that reads the halves knows of the noise, so what noise leaks is a lower bound: that a defence leaks "
    "more than noise may be the attackers' doing."
)
SCORES = ("iip-pixels", SSIM, OLD_SSIM, "rdlv", "psnr")


def perturbs(record: RunRecord, arm: str) -> bool:
    return setting(record, arm, "pgsl.on") is True


def answer(record: RunRecord, arm: str, variant: str = "on") -> str:
    """The score of what an arm answers with: late fusion, perturbed at test time where the arm perturbs; or plain."""
    if not perturbs(record, arm):
        return "accuracy-plain-off"
    name = f"accuracy-late-{variant}"
    return name if name in metrics_of(record, arm) else "accuracy-late-off"


def noise_of(record: RunRecord, arm: str) -> float | None:
    """The level of an arm that is plain split learning with noise or nothing else of its own, a point of the noise
    curve; else None."""
    own = set(overrides(record.header, arm)) - {"cut.noise", "run.seeds"}
    if own or perturbs(record, arm) or setting(record, arm, "cut.decorrelation"):
        return None
    return float(setting(record, arm, "cut.noise") or 0)


def measure_of(record: RunRecord) -> str:
    """The SSIM that all of a log's audits are held against each other by; the old one where it has that alone."""
    return ssim_of({name for cell in record.current().values() for row in cell.leaks for name in row.each})


def point(record: RunRecord, arm: str, seeds: Sequence[int]) -> Point | None:
    """Accuracy and leakage image by image of the last audit of each of ``seeds``, all audited sites' images together;
    None where one of them was not scored by the log's measure, or not audited by every attack on every site."""
    name, cells, measure = answer(record, arm), record.finished(), measure_of(record)
    scores = [cells[arm, seed].final().get(name) for seed in seeds if (arm, seed) in cells]
    found = [row.score for row in scores if row is not None and math.isfinite(row.score.value)]
    if len(found) < len(seeds) or not found:
        return None
    drawn: list[dict[str, list[float]]] = []
    for seed in seeds:
        rows = [row for row in cells[arm, seed].leaks if row.each and row.attack != PRIOR]
        last = [row for row in rows if row.round == max(row.round for row in rows)]
        each: dict[str, list[float]] = {}
        for row in sorted(last, key=lambda row: row.partition):
            each.setdefault(row.attack, []).extend(row.each.get(measure, []))
        drawn.append(each)
    if not drawn[0] or len({(tuple(each), *map(len, each.values())) for each in drawn}) > 1:
        return None
    by_attack = {attack: np.array([each[attack] for each in drawn]) for attack in drawn[0]}
    if len({values.shape for values in by_attack.values()}) > 1 or not next(iter(by_attack.values())).size:
        return None
    return Point(arm, np.array([score.value for score in found]), found[0].n, by_attack)


def tradeoffs(record: RunRecord) -> dict[str, Tradeoff]:
    """Of every audited arm off the noise curve: its leakage against that of noise at the arm's accuracy."""
    done = {arm for arm, _ in record.finished()}
    seeds = [s for s in record.header.seeds if all((arm, s) in record.finished() for arm in done)]
    points = {arm: its for arm in record.header.arms if arm in done and (its := point(record, arm, seeds))}
    levels = {arm: level for arm in points if (level := noise_of(record, arm)) is not None}
    curve = [points[arm] for arm in sorted(levels, key=lambda arm: levels[arm])]
    found = {}
    for arm, its in points.items():
        same = [other for other in curve if _shape(other) == _shape(its)]
        if arm not in levels and len(same) > 1:
            found[arm] = against_noise(its, same, measure=HEADINGS[measure_of(record)])
    return found


def _shape(one: Point) -> tuple[int, ...]:
    return next(iter(one.leaks.values())).shape


def privacy(record: RunRecord, found: Mapping[str, Tradeoff]) -> tuple[str, ...]:
    """A sentence an arm of ``found`` (``tradeoffs``): held against noise at the same accuracy."""
    if found:
        return (*(its.words for its in found.values()), CAUTION)
    if not leaks(record):
        return ()
    return ("Two arms of plain split learning that differ in cut.noise are needed to hold a defence against noise.",)


def drawn(record: RunRecord) -> tuple[str, ...]:
    """A sentence an arm: the strongest attack on each of its audited sites."""
    found = leaks(record)
    said = []
    for arm in record.header.arms:
        own = [leak for leak in found if leak.arm == arm and leak.attack != PRIOR]
        names = dict.fromkeys(leak.attack for leak in own)
        if not own:
            continue
        means = {name: np.mean([leak.of(leak.ssim).mean for leak in own if leak.attack == name]) for name in names}
        best = max(means, key=lambda name: means[name])
        said.append(f"{arm}: {_told(best, [leak for leak in own if leak.attack == best], found)}.")
    return tuple(said)


def _told(attack: str, rows: Sequence[Leak], found: Sequence[Leak]) -> str:
    """Identification first; the prior of the same arm by the same measure."""
    text, named, key = f"most by {attack}", float(np.mean([leak.identified for leak in rows])), rows[0].ssim
    if math.isfinite(named):
        chance = percent(rows[0].of("iip-chance").mean)
        text += f"; {percent(named)} of the images are picked out of a crowd, where chance is {chance}"
    priors = [leak.of(key).mean for leak in found if (leak.arm, leak.attack) == (rows[0].arm, PRIOR)]
    near, without = (digits(float(np.mean(x))) for x in ([leak.of(key).mean for leak in rows], priors))
    return f"{text}; {HEADINGS[key]} {near} with the true images; the public prior has {without}"


def headline(found: Tradeoff | None) -> str:
    """The answer at matched accuracy; '' for an arm that could not be held against noise."""
    if found is None:
        return ""
    less, more = found.high < 0, found.low > 0
    if found.place == "within":
        told = "Does it hide images better than noise of the same accuracy? "
        told += "Yes" if less else "No, it leaks more" if more else "Not told apart"
    else:
        far, end = ("more", "most") if found.place == "above" else ("less", "least")
        much = "less than" if less else "more than" if more else "no less and no more than"
        told = f"It is {far} accurate than every level of noise, and leaks {much} the {end} accurate one, which is no "
        told += "match"
    ends = f"{found.difference:+.2f}"
    ends += f", {found.low:+.2f} to {found.high:+.2f}" if math.isfinite(found.low) else " of one seed, no interval"
    return f" {told} ({found.measure} of the strongest attack, difference {ends.replace('-', '−')})."


def leak_parts(record: RunRecord, folder: Path) -> str:
    found = leaks(record)
    if not found:
        return ""
    lead = (
        "Attackers have the activations of the site's first training images, sent as at test time, and the client's "
        "half, as who averages halves has. white-box knows PGSL's folding, not its map; adaptive and adaptive-joint "
        "how the map is made too, and are white-box where there is none; decoder is another client, with a map of its "
        "own."
    )
    return (
        section("What activations give away", paragraph(lead, "soft"))
        + pictures(record, folder, found)
        + attacks(found, SCORES)
    )
