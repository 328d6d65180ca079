"""What the audits of a run say, site by site and arm by arm: the numbers behind the leakage page and its risk sheets.

The lines that words are chosen by are the project's own. Images are *drawn* when a site's reconstructions are on
average half again as similar to them as the public prior is (RDLV 0.5, where the paper puts its one-image site), or
half of them are picked out of the crowd (IIP 0.5, chance below 0.005); *in part* from 0.1 of either on. Below that the
attacks tried here drew no more than the prior shows, which is said only where one that knows of protections (KNOWING)
was made; otherwise *nothing is known*. An attack that could not be made has no numbers and counts for nothing. RDLV
alone is no measure to rest on: it stretches a reconstruction to the whole range, which costs an image that does not
fill it. That no attack tried here succeeds is no proof.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from fedsec.log.record import LeakRow, RunRecord
from fedsec.metrics.intervals import Interval, by_seed
from fedsec.metrics.measures import HEADINGS, ssim_of
from fedsec.reports.words import digits
from fedsec.run.roles import overrides
from fedsec.types import Scalar

PRIOR, OWN = "prior", "the site's own probe"
DRAWN, PARTLY = 0.5, 0.1
UNKNOWN, LEAST = "nothing is known", "no more than the public prior shows"
KNOWING = ("adaptive", "adaptive-joint")
"""Attacks of an audit that were made to know a protection and that we know of none to beat: PGSL's map. None knows of
NoPeek, nor of noise on activations. Of a classifier's update there is none: ``span`` sees one round, and several pooled
or who has the image files read what it does not (docs/results/noise.md)."""
FEWEST = 40
"""Iterations of span below which it was not tried (``fedsec.probes.span``; a test holds the two together)."""
EMBEDDINGS = ("pixels", "features")
"""What a crowd is searched by: equal pixels at any contrast, or what the attacked network makes of them."""


@dataclass(frozen=True)
class Leak:
    """One attack on one site's updates in one arm, over audited rounds and seeds. ``seeds``: of each row; () where all
    are of one."""

    arm: str
    partition: int
    attack: str
    rows: tuple[LeakRow, ...]
    seeds: tuple[int, ...] = ()

    def of(self, name: str) -> Interval:
        """The mean of a score over rounds and seeds with its 95 % interval over seeds, whose rounds share a model."""
        return by_seed(grouped([row.values.get(name, math.nan) for row in self.rows], self.seeds))

    @property
    def ssim(self) -> str:
        """The key of the SSIM in its rows: ``measures.SSIM``, or the old one where a log has that alone."""
        return ssim_of({name for row in self.rows for name in row.values})

    @property
    def rdlv(self) -> float:
        return self.of("rdlv").mean

    @property
    def highest(self) -> float:
        """The largest RDLV of any one image; NaN when none could be measured."""
        found = [value for row in self.rows if math.isfinite(value := row.values.get("rdlv-max", math.nan))]
        return max(found, default=math.nan)

    @property
    def picture(self) -> str:
        """File of the reconstruction with the largest RDLV; '' where there is none."""
        drawn = [row for row in self.rows if row.file]
        return max(drawn, key=lambda row: _or_less(row.values.get("rdlv-max", math.nan))).file if drawn else ""

    @property
    def identified(self) -> float:
        """Share of the images picked out of the crowd by the embedding that picks out more; NaN without a crowd."""
        return max(self.by_embedding.values(), default=math.nan)

    @property
    def by_embedding(self) -> dict[str, float]:
        """The share that each embedding picks out: 'pixels', 'features'; none where it was not measured."""
        means = {name: self.of(f"iip-{name}").mean for name in EMBEDDINGS}
        return {name: mean for name, mean in means.items() if math.isfinite(mean)}

    @property
    def strength(self) -> float:
        """The larger of mean RDLV and share identified; NaN when neither was measured."""
        return max([value for value in (self.rdlv, self.identified) if math.isfinite(value)], default=math.nan)

    @property
    def level(self) -> str:
        """'drawn', 'in part', LEAST, or UNKNOWN where it gave no number: of this attack, ``verdict`` is of a site."""
        found = self.strength
        if not math.isfinite(found):
            return UNKNOWN
        return "drawn" if found >= DRAWN else "in part" if found >= PARTLY else LEAST


def likeness(leak: Leak, prior: Leak | None) -> str:
    """Its SSIM by name, beside the prior's by the same measure: 'SSIM (...) 0.92 against 0.50 of the public prior'."""
    text = f"{HEADINGS[leak.ssim]}: {digits(leak.of(leak.ssim).mean)}"
    return text + (f" against {digits(prior.of(leak.ssim).mean)} of the public prior" if prior else "")


def leaks(record: RunRecord) -> list[Leak]:
    """Every (arm, site, attack) that was audited, in the order of arms and sites; the prior among the attacks."""
    found: dict[tuple[str, int, str], list[tuple[LeakRow, int]]] = {}
    for (arm, seed), cell in record.current().items():
        for row in cell.leaks:
            found.setdefault((arm, row.partition, row.attack), []).append((row, seed))
    places = {arm: i for i, arm in enumerate(record.header.arms)}
    keys = sorted(found, key=lambda key: (places[key[0]], key[1], key[2] == PRIOR, key[2]))
    return [Leak(*key, tuple(row for row, _ in found[key]), tuple(seed for _, seed in found[key])) for key in keys]


def grouped(values: Sequence[float], seeds: Sequence[int]) -> list[list[float]]:
    """The values of each seed; all in one group where no seeds are named."""
    if not seeds:
        return [list(values)]
    return [[v for v, own in zip(values, seeds, strict=True) if own == seed] for seed in dict.fromkeys(seeds)]


def strongest(found: Sequence[Leak], arm: str, partition: int) -> Leak | None:
    """The attack that shows most of one site in one arm, by ``Leak.strength``, then RDLV; the prior is none."""
    own = [leak for leak in found if (leak.arm, leak.partition) == (arm, partition) and leak.attack not in (PRIOR, OWN)]
    return max(own, key=lambda leak: (_or_less(leak.strength), _or_less(leak.rdlv)), default=None)


def verdict(found: Sequence[Leak], arm: str, partition: int) -> str:
    """What may be said of one site in one arm: the level of its strongest attack, but LEAST only where an attack of
    KNOWING gave a number; UNKNOWN otherwise."""
    leak = strongest(found, arm, partition)
    level = UNKNOWN if leak is None else leak.level
    own = [leak for leak in found if (leak.arm, leak.partition) == (arm, partition)]
    knew = any(leak.attack in KNOWING and math.isfinite(leak.strength) and _tried(leak) for leak in own)
    return level if knew or level != LEAST else UNKNOWN


def _tried(leak: Leak) -> bool:
    """Whether every row took iterations enough, where it says how many."""
    return all(row.values.get("iterations", FEWEST) >= FEWEST for row in leak.rows)


def unmade(found: Sequence[Leak], arm: str, partition: int) -> list[str]:
    """Why attacks on one site in one arm could not be made, attack by attack."""
    own = [leak for leak in found if (leak.arm, leak.partition) == (arm, partition)]
    return list(dict.fromkeys(f"{leak.attack}: {row.reason}" for leak in own for row in leak.rows if row.reason))


def sites(found: Sequence[Leak]) -> list[int]:
    """Partitions whose updates were attacked."""
    return sorted({leak.partition for leak in found if leak.attack not in (PRIOR, OWN)})


def setting(record: RunRecord, arm: str, key: str) -> Scalar:
    """A key's value in one arm."""
    return overrides(record.header, arm).get(key, record.header.config.get(key, ""))


def images_of(record: RunRecord, partition: int) -> int:
    return sum(record.header.label_counts[partition])


def batch_of(record: RunRecord, arm: str, partition: int) -> int:
    """Images a step of one client."""
    listed = [int(part) for part in str(setting(record, arm, "classifier.batches")).split(",") if part.strip()]
    batch = listed[partition] if listed else int(setting(record, arm, "train.batch"))
    return min(batch, images_of(record, partition))


def _or_less(value: float) -> float:
    return value if math.isfinite(value) else -math.inf
