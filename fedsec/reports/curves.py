"""The parts of the page that are curves: losses and weights a client, scores over rounds, utility over real images."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from fedsec.log.record import Cell, CellKey, RoundRow, RunRecord
from fedsec.log.values import metrics_of, values_of
from fedsec.metrics.intervals import mean_interval
from fedsec.reports import figures
from fedsec.reports.figures import Curve, Look
from fedsec.reports.markup import details, figure, inert, paragraph, plots, section
from fedsec.run.roles import role

UTILITY = re.compile(r"utility-auc-(\d+)$")
REAL = re.compile(r"real-auc-(\d+)$")
REFERENCE = Look(figures.INK, "--", "s")

Point = tuple[float, float, float, float]
"""x, mean, low, high."""


def client_sections(record: RunRecord) -> tuple[str, str]:
    """Loss curves with flags, and weights: the first seed in sight, other seeds and the discriminator folded away."""
    cells = {key: cell for key, cell in record.current().items() if cell.rounds}
    if not cells:
        return section("Losses of the clients", paragraph("No round was aggregated.")), ""
    key = figures.legend(_client_key(record, list(dict.fromkeys(arm for arm, _ in cells))))
    mean = _per_client(record, cells, "generator loss", lambda row: row.losses)
    other = _per_client(record, cells, "discriminator loss", lambda row: row.d_losses)
    read = _per_client(record, cells, "what the defence reads", lambda row: row.evidence)
    weights = _per_client(record, cells, "weight", lambda row: row.weights, log=True)
    first = next(seed for seed in record.header.seeds if any(its == seed for _, its in cells))
    signs = (
        "Mean over a client's batches of each round, at its own scale in each figure. A ring: flagged in that round. "
        "A triangle: beyond the picture. A cross: not a number."
    )
    losses = section(
        "Losses of the clients",
        paragraph(signs, "soft"),
        key,
        plots([drawn for (_, seed), drawn in mean.items() if seed == first]),
        details("Other seeds", plots([drawn for (_, seed), drawn in mean.items() if seed != first])),
        details("What the defence read of them", plots(list(read.values()))),
        details("Discriminator losses", plots([drawn for drawn in other.values() if drawn])),
    )
    told = f"Share of each client in the server's average. A triangle at the bottom: below {figures.FLOOR:g}, or zero."
    heavy = section(
        "Weights of the clients",
        paragraph(told, "soft"),
        key,
        plots([drawn for (_, seed), drawn in weights.items() if seed == first]),
        details("Other seeds", plots([drawn for (_, seed), drawn in weights.items() if seed != first])),
    )
    return losses, heavy


def _client_key(record: RunRecord, arms: Sequence[str]) -> list[tuple[Look, str]]:
    """One entry a look that occurs in these arms; a client may attack in one arm and be honest in another."""
    header = record.header
    entries: dict[str, Look] = {}
    for arm in arms:
        guilty = role(header, arm).malicious
        for partition in range(header.clients):
            look = figures.client_look(partition, header.clients, guilty, header.malicious)
            bad = partition in guilty
            name = f"client {partition}" if bad or header.clients <= figures.MANY else "honest clients"
            entries[name + (" (malicious)" if bad else "")] = look
    return [(look, name) for name, look in sorted(entries.items(), key=lambda item: (len(item[0]), item[0]))]


def _per_client(
    record: RunRecord,
    cells: Mapping[CellKey, Cell],
    label: str,
    read: Callable[[RoundRow], Mapping[int, float]],
    *,
    log: bool = False,
) -> dict[CellKey, str]:
    drawn = {}
    for (arm, seed), cell in cells.items():
        guilty = role(record.header, arm).malicious
        partitions = sorted({partition for row in cell.rounds for partition in read(row)})
        if not partitions:
            continue
        curves = {}
        for partition in partitions:
            rows = [row for row in cell.rounds if partition in read(row)]
            look = figures.client_look(partition, record.header.clients, guilty, record.header.malicious)
            at = np.array([row.round for row in rows], dtype=np.float64)
            curves[partition] = Curve(look, at, np.array([read(row)[partition] for row in rows], dtype=np.float64))
        flags = [(partition, row.round) for row in cell.rounds for partition in row.flags]
        title = f"{label}, arm {arm}, seed {seed}"
        picture = figures.clients_over_rounds(curves, flags, label=label, title=title, log=log)
        flagged = f", {len(flags)} flags" if role(record.header, arm).defended else ""
        note = f"seed {seed}{flagged}" + ("" if cell.finished else ", not finished")
        drawn[arm, seed] = figure(picture, arm, note)
    return drawn


def score_curves(record: RunRecord) -> str:
    """Quick scores over rounds, mean over seeds, one figure a score."""
    cells = record.current()
    found = {row.score.name: row.score.better for cell in cells.values() for row in cell.scores if not row.final}
    drawings = []
    for name, better in sorted(found.items()):
        curves = []
        for place, arm in enumerate(record.header.arms):
            values: dict[int, list[float]] = {}
            for (its_arm, _), cell in cells.items():
                for row in cell.scores if its_arm == arm else ():
                    if not row.final and row.score.name == name:
                        values.setdefault(row.round, []).append(row.score.value)
            curves += curve(figures.arm_look(place), {float(number): found for number, found in values.items()})
        if curves:
            title = f"{name} over rounds"
            drawn = figures.curves_over(curves, across="round", label="score", title=title)
            drawings.append(figure(drawn, name, "" if better == "neither" else f"{better} is better"))
    if not drawings:
        return ""
    lead = "Quick scores on few images, to see the course of training; the table above holds the final ones."
    return section("Scores over rounds", paragraph(lead + _bars(record), "soft"), _arm_key(record), plots(drawings))


def utility_curves(record: RunRecord) -> str:
    """AUC of a classifier over n real images a class, with synthetic images added, against real images alone."""
    curves = []
    for place, arm in enumerate(record.header.arms):
        curves += curve(figures.arm_look(place), _over_n(record, [arm], UTILITY))
    real = curve(REFERENCE, _over_n(record, record.header.arms, REAL))
    if not curves:
        return ""
    many = len({x for curve in curves for x in curve.x}) > 1
    title = "AUC on held-out real images over n"
    drawn = figures.curves_over(curves + real, across="real images a class", label="AUC", title=title, log=many)
    caption = "Trained on n real images a class plus synthetic ones from each arm; higher is better."
    key = _arm_key(record, [(REFERENCE, "real images alone")] if real else [])
    return section("Utility of the synthetic images", key, plots([figure(drawn, title, caption + _bars(record))]))


def _over_n(record: RunRecord, arms: Sequence[str], pattern: re.Pattern[str]) -> dict[float, list[float]]:
    """n -> one value a seed: the mean over ``arms``, which share their reference classifiers."""
    by_n: dict[float, list[float]] = {}
    for name in sorted({name for arm in arms for name in metrics_of(record, arm)}):
        if match := pattern.match(name):
            columns = zip(*(values_of(record, arm, name) for arm in arms), strict=True)
            by_n[float(match[1])] = [mean_interval(column).mean for column in columns]
    return by_n


def curve(look: Look, values: Mapping[float, Sequence[float]]) -> list[Curve]:
    """A curve of means with their intervals; none where no mean is finite."""
    points: list[Point] = []
    for x, found in sorted(values.items()):
        over = mean_interval(found)
        points.append((x, over.mean, over.low, over.high))
    if not points or not np.isfinite([point[1] for point in points]).any():
        return []
    x_, y, low, high = np.array(points, dtype=np.float64).T
    return [Curve(look, x_, y, low, high)]


def _arm_key(record: RunRecord, more: Sequence[tuple[Look, str]] = ()) -> str:
    arms = [(figures.arm_look(place), inert(arm)) for place, arm in enumerate(record.header.arms)]
    return figures.legend([*arms, *more])


def _bars(record: RunRecord) -> str:
    return " Bars: 95 % interval over seeds." if len(record.header.seeds) > 1 else " One seed: no interval."
