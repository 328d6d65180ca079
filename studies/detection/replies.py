"""Where whole runs miss attackers: ``python -m studies.detection.replies RUN [RUN ...] [--again] [--png FILE]``.

A row and a curve for each kind of attacked run that fed-inspect defended (runs that differ by their seeds alone are one
kind). Of replies after a client's own tenth: area under the ROC curve of the suspicion; how many of the attackers' are
above a threshold that 1 % of the honest ones beside them reach; how many replies where nobody attacks reach the one
that 95 % of the attackers' do. Of all: from which reply of its own on 95 % of the attackers' are flagged. ``--again``:
by today's rule, from the recorded peaks.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import matplotlib as mpl
import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from sklearn.metrics import roc_auc_score, roc_curve

from fedsec.log.record import RunRecord
from fedsec.log.runlog import read
from fedsec.reports.markdown.flags import WARMUP, again, alike, defended, print_table, replies
from fedsec.reports.words import percent
from fedsec.run.roles import role
from fedsec.types import Vector
from studies.detection.roc import LEAST_TRUE, MOST_FALSE, frame, named
from studies.detection.scenarios import FALSE

HEAD = (
    "runs", "attackers", "95 % flagged from a client's reply", "AUC", "true at 1 % false",
    "false in clean runs at 95 % true",
)  # fmt: skip


@dataclass(frozen=True)
class Replies:
    """Every reply of the attacked arm of one kind: the how manieth of its client, the run, what was found; ``clean``:
    the suspicions of the replies after a client's tenth of the arm that nobody attacks; ``alpha``: of the Dirichlet
    split, infinite where hospitals are equal."""

    clients: int
    attackers: int
    own: npt.NDArray[np.int_]
    seed: npt.NDArray[np.int_]
    malicious: npt.NDArray[np.bool_]
    flagged: npt.NDArray[np.bool_]
    suspicion: Vector
    clean: Vector
    alpha: float

    def roc(self) -> tuple[Vector, Vector, float]:
        """(false, true) flag rates over thresholds and the area below, of replies after a client's tenth."""
        late = self.own > WARMUP
        truth, score = self.malicious[late], self.suspicion[late]
        false, true, _ = roc_curve(truth, score)
        return false, true, float(roc_auc_score(truth, score))

    def share(self, seed: int | None = None) -> Vector:
        """(n,): how many of the attackers' first, second, ... replies are flagged, in one run or in all."""
        which = self.malicious if seed is None else self.malicious & (self.seed == seed)
        last = int(self.own[which].max())
        return np.array([self.flagged[which & (self.own == n)].mean() for n in range(1, last + 1)])

    def at_the_target(self) -> float:
        """How many of ``clean`` reach the highest threshold that LEAST_TRUE of the attackers' do; NaN of none."""
        late = self.suspicion[self.malicious & (self.own > WARMUP)]
        threshold = np.quantile(late, 1 - LEAST_TRUE, method="lower")
        return float((self.clean >= threshold).mean()) if self.clean.size else math.nan

    def late_enough(self) -> int | None:
        """The first of its client's replies from which on LEAST_TRUE of all are flagged, whatever comes later."""
        sure = [
            n
            for n in range(1, int(self.own.max()) + 1)
            if (rest := self.flagged[self.malicious & (self.own >= n)]).size and rest.mean() >= LEAST_TRUE
        ]
        return min(sure, default=None)


def replies_of(runs: Sequence[RunRecord]) -> Replies | None:
    """Those of runs of one kind; None where no arm is attacked and defended."""
    header, attacked, clean = runs[0].header, [], []
    for arm, cells in defended(runs).items():
        malicious = role(header, arm).malicious
        for seed, cell in enumerate(cells):
            every = [
                (own, seed, p in malicious, p in row.flags, row.suspicion[p]) for own, p, row in replies(cell.rounds)
            ]
            attacked += every if malicious else []
            clean += [] if malicious else [reply[-1] for reply in every if reply[0] > WARMUP]
    if not attacked:
        return None
    own, seeds, guilty, flagged, suspicion = (np.array(column) for column in zip(*attacked, strict=True))
    attackers = max(len(role(header, arm).malicious) for arm in defended(runs))
    alpha = math.inf if header.config["split.scheme"] == "iid" else float(header.config["split.alpha"])
    return Replies(header.clients, attackers, own, seeds, guilty, flagged, suspicion, np.array(clean), alpha)


def rows(kinds: Mapping[str, Replies]) -> Iterator[str]:
    for name, its in kinds.items():
        false, true, area = its.roc()
        reached = float(true[np.searchsorted(false, MOST_FALSE, side="right") - 1])
        first, most = its.late_enough(), its.at_the_target()
        columns = [
            name,
            f"{its.attackers} of {its.clients}",
            "–" if first is None else str(first),
            f"{area:.4f}",
            percent(reached),
            percent(most) if math.isfinite(most) else "",
        ]
        yield f"| {' | '.join(columns)} |"


def draw(kinds: Mapping[str, Replies], path: Path) -> None:
    """A column a number of clients. Above: ROC, dots where the rule's threshold stands. Below: attackers' replies
    flagged by how many their client had sent, thin for each run."""
    sizes = sorted({(its.clients, its.attackers) for its in kinds.values()})
    alphas = sorted({its.alpha for its in kinds.values()}, reverse=True)
    figure = Figure(figsize=(3.2 * len(sizes), 5.4))
    for column, (clients, attackers) in enumerate(sizes):
        curves, shares = (figure.add_subplot(2, len(sizes), place + column + 1) for place in (0, len(sizes)))
        for its in kinds.values():
            if its.clients == clients:
                color = f"C{alphas.index(its.alpha)}"
                _curve(curves, its, color)
                for seed in np.unique(its.seed):
                    _steps(shares, its.share(int(seed)), color=color, linewidth=0.6, alpha=0.6)
                _steps(shares, its.share(), color=color, linewidth=1.8)
        curves.set_title(f"{attackers} of {clients}", size=9, loc="left")
        frame(curves)
        curves.set_xlabel("honest replies flagged", size=8)
        shares.set(ylim=(-0.02, 1.02), xlim=(1, None))
        shares.set_xlabel("the client's own reply", size=8)
        shares.axvline(WARMUP + 0.5, color="lightgray", linewidth=0.8, zorder=0)
        shares.axhline(LEAST_TRUE, color="lightgray", linewidth=0.8, zorder=0)
        shares.tick_params(labelsize=7)
        for axes in (curves, shares):
            axes.set_ylabel("" if column else "attackers' replies flagged", size=8)
    names = [named("iid" if math.isinf(alpha) else str(alpha)) for alpha in alphas]
    handles = [mpl.lines.Line2D([], [], color=f"C{n}", label=name) for n, name in enumerate(names)]
    figure.legend(handles=handles, loc="lower center", ncols=len(handles), fontsize=8, frameon=False)
    figure.tight_layout(rect=(0, 0.05, 1, 1))
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)


def _curve(axes: Axes, its: Replies, color: str) -> None:
    false, true, _ = its.roc()
    axes.step(np.maximum(false, FALSE[0]), true, where="post", color=color, linewidth=1.4)
    late = its.own > WARMUP
    at = [float(its.flagged[late & side].mean()) for side in (~its.malicious, its.malicious)]
    axes.plot(max(at[0], FALSE[0]), at[1], "o", color=color, markersize=4, clip_on=False)


def _steps(axes: Axes, shares: Vector, **look: object) -> None:
    axes.plot(np.arange(1, len(shares) + 1), shares, **look)  # type: ignore[arg-type]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="+", type=Path, help="run folders")
    parser.add_argument("--again", action="store_true", help="flags by today's fed-inspect from the recorded peaks")
    parser.add_argument("--png", type=Path, help="where the curves are drawn")
    options = parser.parse_args()
    records = {path.name: read(path) for path in options.runs}
    if options.again:
        records = {name: again(record) for name, record in records.items()}
    kinds = {name: its for name, runs in alike(records).items() if (its := replies_of(runs)) is not None}
    print_table(HEAD, rows(kinds))
    if options.png:
        draw(kinds, options.png)


if __name__ == "__main__":
    main()
