"""What a run folder says, as frozen values: one header, one cell an (arm, seed), in the order of the log."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from fedsec.privacy.ledger import Try
from fedsec.types import Flat, Score

CellKey = tuple[str, int]
"""(arm, seed)."""
Event = dict[str, Any]
"""One line of the log, numbers decoded."""


LOSSES = ("g-loss", "loss")
"""The metric that is a client's loss over all steps: a generator's, a classifier's or a split network's."""
NOTHING_KNOWN = Try()
"""Of a try in a log of before 2026-12."""


@dataclass(frozen=True)
class DataFacts:
    """The data source in numbers. ``source`` is a base name, never a path."""

    source: str
    train: int
    test: int
    classes: tuple[str, ...]
    sites: tuple[str, ...]
    quarantined: int
    digest: str


@dataclass(frozen=True)
class Header:
    """What was run. ``label_counts[client][class]``, ``site_counts[client][site]``; ``digests`` may be empty."""

    time: str
    config: Flat
    versions: dict[str, str]
    data: DataFacts
    label_counts: tuple[tuple[int, ...], ...]
    site_counts: tuple[tuple[int, ...], ...]
    malicious: tuple[int, ...]
    arms: tuple[str, ...]
    seeds: tuple[int, ...]
    measured_by: str
    notes: tuple[str, ...]
    digests: dict[CellKey, str]

    @property
    def clients(self) -> int:
        return len(self.label_counts)

    @property
    def cells(self) -> list[CellKey]:
        """What the run is made of: all arms of the first seed before the second. An arm may have seeds of its own."""
        every = [(arm, seed) for seed in self.seeds for arm in self.arms]
        return [cell for cell in every if cell in self.digests] if self.digests else every


@dataclass(frozen=True)
class Dropped:
    """A reply that did not enter the aggregate. ``reason`` may quote the client: never trust it as markup."""

    partition: int
    site: str
    reason: str


@dataclass(frozen=True)
class RoundRow:
    """One federated round. Maps go from partition to value; values may be NaN or infinite, where a client said so.

    ``heard``: whose replies were used. ``metrics``: name -> what each of them reported by that name; nothing stands for
    what was not reported.
    """

    round: int
    heard: tuple[int, ...]
    metrics: dict[str, dict[int, float]]
    weights: dict[int, float]
    flags: tuple[int, ...]
    suspicion: dict[int, float]
    evidence: dict[int, float]
    dropped: tuple[Dropped, ...]
    seconds: float

    @property
    def losses(self) -> dict[int, float]:
        """By partition, the loss over all steps: the generator's, or the classifier's; NaN for who reported none."""
        told = next((self.metrics[name] for name in LOSSES if name in self.metrics), {})
        return {partition: told.get(partition, math.nan) for partition in self.heard}

    @property
    def last(self) -> dict[int, float]:
        """The generator loss of the last batch."""
        return self.metrics.get("g-loss-last", {})

    @property
    def first(self) -> dict[int, float]:
        """The generator loss of the first steps."""
        return self.metrics.get("g-loss-first", {})

    @property
    def d_losses(self) -> dict[int, float]:
        """The discriminator loss over all steps."""
        return self.metrics.get("d-loss", {})

    @property
    def asked(self) -> set[int]:
        """Partitions that the round asked: each answered, or is dropped for it."""
        return {*self.heard, *(drop.partition for drop in self.dropped if drop.partition >= 0)}


@dataclass(frozen=True)
class LoggedScore:
    """A score of one round; ``final`` scores make the table, the others the curves."""

    round: int
    score: Score
    final: bool


@dataclass(frozen=True)
class LeakRow:
    """What one attack drew out of one update or one message of ``images`` images. ``file``: its picture, '' where there
    is none. ``reason``: why the attack could not be made; it then has no values. ``each``: a score image by image."""

    round: int
    partition: int
    attack: str
    images: int
    values: dict[str, float]
    file: str
    reason: str = ""
    each: dict[str, list[float]] = field(default_factory=dict)


@dataclass(frozen=True)
class Cell:
    """One arm with one seed since its last start. ``finished``: the start's digest came back in a cell-end.
    ``rule``: the digest of its detection rule; '' where it has none, or was made before there were digests."""

    arm: str
    seed: int
    digest: str
    rounds: tuple[RoundRow, ...] = ()
    scores: tuple[LoggedScore, ...] = ()
    samples: tuple[tuple[int, str], ...] = ()
    leaks: tuple[LeakRow, ...] = ()
    finished: bool = False
    seconds: float = float("nan")
    spends: Try = NOTHING_KNOWN
    earlier: tuple[Try, ...] = ()
    rule: str = ""

    @property
    def tries(self) -> tuple[Try, ...]:
        """What left in every try, the last one last. Of one that did not finish a round more than is logged may have
        left; of one in a log that does not say what its noise was, it is not known to have had any."""
        asked = Counter(partition for row in self.rounds for partition in row.asked)
        rounds = max(asked.values(), default=0) + (not self.finished)
        return (*self.earlier, replace(self.spends, rounds=rounds))

    def final(self) -> dict[str, LoggedScore]:
        """Final scores by name; the last one written wins."""
        return {row.score.name: row for row in self.scores if row.final}


@dataclass(frozen=True)
class RunEnd:
    status: str
    reason: str
    wall_seconds: float


@dataclass(frozen=True)
class RunRecord:
    """A whole run folder. ``end`` belongs to the last start; ``torn`` are line numbers cut short by a crash."""

    header: Header
    cells: dict[CellKey, Cell]
    end: RunEnd | None
    torn: tuple[int, ...]
    starts: int

    def current(self) -> dict[CellKey, Cell]:
        """Cells of the header's arms and seeds that are finished or under way, in the header's order.

        A cell whose digest is not the one the header expects was made with other settings: it is left out.
        """
        keys, expected = self.header.cells, self.header.digests
        return {
            key: self.cells[key]
            for key in keys
            if key in self.cells and expected.get(key, self.cells[key].digest) == self.cells[key].digest
        }

    def finished(self) -> dict[CellKey, Cell]:
        return {key: cell for key, cell in self.current().items() if cell.finished}


def header_of(event: Event) -> Header:
    data, split = event["data"], event["split"]
    return Header(
        time=str(event["time"]),
        config=dict(event["config"]),
        versions={str(name): str(version) for name, version in event["versions"].items()},
        data=DataFacts(
            source=str(data["source"]),
            train=int(data["train"]),
            test=int(data["test"]),
            classes=tuple(map(str, data["classes"])),
            sites=tuple(map(str, data["sites"])),
            quarantined=int(data["quarantined"]),
            digest=str(data["digest"]),
        ),
        label_counts=_table(split["labels"]),
        site_counts=_table(split["sites"]),
        malicious=tuple(map(int, event["malicious"])),
        arms=tuple(map(str, event["arms"])),
        seeds=tuple(map(int, event["seeds"])),
        measured_by=str(event["measured_by"]),
        notes=tuple(map(str, event["notes"])),
        digests={
            (arm, int(seed)): str(digest)
            for arm, by_seed in event.get("digests", {}).items()
            for seed, digest in by_seed.items()
        },
    )


def advance(cells: dict[CellKey, Cell], event: Event) -> None:
    """Enter one cell event into ``cells``. KeyError: the cell never started, or a field is missing."""
    key = (str(event["arm"]), int(event["seed"]))
    kind = event["event"]
    if kind == "cell-start":
        known = cells[key].tries if key in cells else ()
        earlier = tuple(map(Try.of_event, event["earlier"])) if "earlier" in event else known
        spends = Try.of_event(event["spends"]) if "spends" in event else NOTHING_KNOWN
        cells[key] = Cell(
            *key, digest=str(event["digest"]), spends=spends, earlier=earlier, rule=str(event.get("rule", ""))
        )
        return
    cell = cells[key]
    if kind == "round":
        cells[key] = replace(cell, rounds=(*_before(cell, int(event["round"])), round_of(event)))
    elif kind == "samples":
        cells[key] = replace(cell, samples=(*cell.samples, (int(event["round"]), str(event["file"]))))
    elif kind == "leak":
        cells[key] = replace(cell, leaks=(*cell.leaks, leak_of(event)))
    elif kind == "score":
        cells[key] = replace(cell, scores=(*cell.scores, score_of(event)))
    else:
        done = str(event["digest"]) == cell.digest
        cells[key] = replace(cell, finished=done, seconds=float(event["seconds"]))


def _before(cell: Cell, number: int) -> tuple[RoundRow, ...]:
    """The rounds that a new row ``number`` leaves standing."""
    if not cell.rounds or cell.rounds[-1].round < number:
        return cell.rounds
    return tuple(row for row in cell.rounds if row.round < number)


def round_of(event: Event) -> RoundRow:
    return RoundRow(
        round=int(event["round"]),
        heard=heard_in(event),
        metrics=_metrics(event),
        weights=_by_partition(event["weights"]),
        flags=tuple(map(int, event["flags"])),
        suspicion=_by_partition(event["suspicion"]),
        evidence=_by_partition(event.get("evidence", {})),  # logs before 2026-11-25 have none
        dropped=tuple(Dropped(int(d["partition"]), str(d["site"]), str(d["reason"])) for d in event["dropped"]),
        seconds=float(event["seconds"]),
    )


def heard_in(event: Mapping[str, Any]) -> tuple[int, ...]:
    """Whose replies a round used."""
    told = event["heard"] if "heard" in event else event["losses"]
    return tuple(sorted(map(int, told)))


def _metrics(event: Event) -> dict[str, dict[int, float]]:
    """Of a log from before 2026-12 too: it has a key for each of four losses, and NaN for what was not reported."""
    if "metrics" in event:
        return {str(name): _by_partition(values) for name, values in event["metrics"].items()}
    former = {"losses": "g-loss", "last": "g-loss-last", "first": "g-loss-first", "d_losses": "d-loss"}
    found = {name: _by_partition(event.get(key, {})) for key, name in former.items()}
    return {name: values for name, values in found.items() if any(math.isfinite(v) for v in values.values())}


def leak_of(event: Event) -> LeakRow:
    return LeakRow(
        round=int(event["round"]),
        partition=int(event["partition"]),
        attack=str(event["attack"]),
        images=int(event["images"]),
        values={str(name): float(value) for name, value in event["values"].items()},
        file=str(event["file"]),
        reason=str(event.get("reason", "")),
        each={str(name): [float(x) for x in values] for name, values in event.get("each", {}).items()},
    )


def score_of(event: Event) -> LoggedScore:
    value = float("nan") if event["value"] is None else float(event["value"])
    reason = str(event["reason"]) or ("" if value == value else "no reason recorded")
    score = Score(str(event["name"]), value, int(event["n"]), event["better"], reason)
    return LoggedScore(int(event["round"]), score, bool(event["final"]))


def _by_partition(values: dict[str, float]) -> dict[int, float]:
    return {int(partition): float(value) for partition, value in sorted(values.items(), key=lambda kv: int(kv[0]))}


def _table(rows: list[list[int]]) -> tuple[tuple[int, ...], ...]:
    return tuple(tuple(map(int, row)) for row in rows)
