"""FedDetect (Jin & Li 2023): who reports an outlying generator loss, and what each client's update may weigh.

Four steps: collect the local generator losses; give them to an isolation forest; keep a track record of flags per
client; decay the aggregation weight of those flagged again and again. ``judge`` is a pure function of the round's
losses and what the server remembers. RULES holds three readings of the paper:

- ``released``: the authors' code to the letter (docs/feddetect.md). In clean runs it flags 18-36 % of the honest.
- ``paper``: the same flags, but the weight is decay ** count / n, not compounded on the already decayed weight.
- ``calibrated``: ours. It keeps the four steps and cures the faults: see ``calibrated``.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace

import numpy as np
from sklearn.ensemble import IsolationForest

from fedsec.config import Defence
from fedsec.defences.evidence import READINGS, History, Losses, relative, remembered, smoothed, violation
from fedsec.defences.isolation import isolate
from fedsec.errors import ConfigError, RunError

CERTAIN = 1000.0
"""Suspicion of a violation; above any that the forest gives."""
RECOVERY = 0.2
"""What a round without a flag takes off the count: who is flagged in fewer than one round of six gets back to 0."""
GRACE = 2
"""Flags on record that cost nothing yet."""
LONGEST = 13.0
"""Largest count; at decay 0.9 a share of 1e-3, and 55 clear rounds until nothing is lost."""
GONE, BACK = 0.01, 0.5
"""A client is away from when it has less than the first part of its fair share until it has the second part again.
With one bound for both, at half the share, an attacker stayed near it for 25 rounds: less judged, it came back."""


@dataclass(frozen=True)
class Rule:
    """A reading of FedDetect and its constants. Of the calibrated rule alone: ``false_flags``, its rate a client-round,
    and ``reading``, which number of READINGS it is given."""

    name: str = "calibrated"
    decay: float = 0.9
    warmup: int = 10
    false_flags: float = 0.01
    reading: str = "drop"

    def __post_init__(self) -> None:
        for key, value, table in (("rule", self.name, list(RULES)), ("reported", self.reading, list(READINGS))):
            if value not in table:
                raise ConfigError(f"defence.{key} = {value!r}: must be one of {', '.join(map(repr, table))}")


def rule_of(defence: Defence) -> Rule:
    """The rule a run configuration asks for."""
    if defence.name == "fed-inspect":
        return Rule("calibrated", defence.decay, defence.warmup, defence.false_flags, "peak")
    return Rule(defence.rule, defence.decay, defence.warmup, defence.false_flags, defence.reads)


@dataclass(frozen=True)
class Standing:
    """What the server remembers between rounds. Tuples run over clients by partition.

    ``weights`` sum to 1; ``counts`` is the track record of flags; ``history`` each client's last relative losses;
    ``away`` who has all but lost its weight (both empty at first, and kept by the calibrated rule only); ``round`` the
    number of rounds judged so far.
    Guarantee: ``Standing.from_json(s.to_json()) == s``.
    """

    weights: tuple[float, ...]
    counts: tuple[float, ...]
    history: History = ()
    away: tuple[bool, ...] = ()
    round: int = 0

    @classmethod
    def start(cls, clients: int) -> Standing:
        """Equal weights, clean records, nothing remembered."""
        return cls((1 / clients,) * clients, (0.0,) * clients)

    def to_json(self) -> str:
        return json.dumps(asdict(self), allow_nan=False)

    @classmethod
    def from_json(cls, text: str) -> Standing:
        """Read a standing back. Raises RunError when the text is not one."""
        try:
            raw = json.loads(text)
            read = cls(
                tuple(map(float, raw["weights"])),
                tuple(map(float, raw["counts"])),
                tuple(tuple(map(float, row)) for row in raw["history"]),
                tuple(map(bool, raw["away"])),
                int(raw["round"]),
            )
        except (ValueError, KeyError, TypeError) as error:
            raise RunError(f"not FedDetect's standing ({error!r}): start the cell again") from error
        n = len(read.weights)
        numbers = [*read.weights, *read.counts, *(v for row in read.history for v in row)]
        lengths = {n, len(read.counts), len(read.history) or n, len(read.away) or n}
        sane = all(map(math.isfinite, numbers)) and min((*read.weights, *read.counts), default=-1) >= 0
        if len(lengths) > 1 or not sane or read.round < 0 or abs(math.fsum(read.weights) - 1) > 1e-6:
            raise RunError(f"FedDetect's standing of {n} clients contradicts itself: start the cell again")
        return read


@dataclass(frozen=True)
class Verdict:
    """One round's judgement, by partition.

    ``weights`` is what this round's replies weigh in the mean: 0 for those who sent none, sum 1 (when nobody replied:
    the standing's). ``suspicion`` is finite, higher = more suspicious, 0 for those not judged; comparable over the
    rounds of one rule. ``reasons``: '' unless something is held against the client; numbers only, safe to log.
    """

    flagged: tuple[bool, ...]
    suspicion: tuple[float, ...]
    weights: tuple[float, ...]
    reasons: tuple[str, ...]


def judge(losses: Losses, standing: Standing, rule: Rule) -> tuple[Verdict, Standing]:
    """Judge one round: (this round's verdict, what to remember).

    ``losses[i]`` is partition i's reported generator loss, None without a reply: that client is neither flagged nor
    judged and keeps its record. Guarantee, for every rule and any floats: no exception, weights in [0, 1] with sum 1,
    finite suspicion, the same answer for the same input, ``standing`` untouched; permuted clients get permuted answers
    (under ``released`` and ``paper`` for finite losses).
    """
    assert len(losses) == len(standing.weights), (len(losses), len(standing.weights))
    return RULES[rule.name](losses, standing, rule)


def released(losses: Losses, standing: Standing, rule: Rule) -> tuple[Verdict, Standing]:
    """The authors' code (GitHub Nanboy-Ronan/Backdoor-FedGAN), with their constants as the defaults of ``rule``.

    Active from round index warmup + 1; flags of half the clients or more void the round; a flag multiplies the *already
    decayed* weight by decay ** count, and weights never recover. Faults kept on purpose: two-sided, no history; an
    infinity or a loss beyond float32 is not flagged, a NaN only by chance, and either blames honest clients
    (scikit-learn sends NaN down the larger branch; infinities make the cuts meaningless). Departure: clients without a
    reply stay out of the forest and of n, which full participation in the release never meets.
    """
    flagged, scores, reasons = _forest(losses, active=standing.round > rule.warmup)
    counts = _added(standing.counts, flagged)
    decayed = [w * rule.decay**c if f else w for w, c, f in zip(standing.weights, counts, flagged, strict=True)]
    return _settled(losses, replace(standing, weights=_normal(decayed), counts=counts), flagged, scores, reasons)


def paper(losses: Losses, standing: Standing, rule: Rule) -> tuple[Verdict, Standing]:
    """The single-power reading: flags as ``released``, weight = decay ** count / n, renormalised."""
    flagged, scores, reasons = _forest(losses, active=standing.round > rule.warmup)
    counts = _added(standing.counts, flagged)
    weights = _normal([rule.decay**c for c in counts])
    return _settled(losses, replace(standing, weights=weights, counts=counts), flagged, scores, reasons)


def calibrated(losses: Losses, standing: Standing, rule: Rule) -> tuple[Verdict, Standing]:
    """Ours: the four steps with checked losses, one-sided history-aware flags at a held rate, and a record that heals.

    1. Losses, as ``READINGS[rule.reading]`` reads them. A non-finite one, or one beyond ABSURD, is a violation: flagged
       and counted in any round, weight 0 this round, kept out of everything below. The others become relative to the
       clients' median.
    2. Forest, from a client's fifth round on: averages over its last ``reading.rounds`` go to
       ``calibration.isolate``, whose threshold holds ``false_flags`` a client-round; only high values, fewer than n//2
       clients, none when they are equal. A client that is away is given the allowance its absence calls for. Where
       only some clients were asked, see ``_isolated`` and ``reading.asked``. Who stands ``reading.far`` above the
       median is flagged beside them (``_far_out``).
    3. Record: +1 for a flag, -RECOVERY for a judged round without one, at most LONGEST.
    4. Weight, after ``warmup`` rounds: decay ** (m (m+1) / 2) with m = count - GRACE, renormalised: the release's
       compounding as a function of the count, so it comes back with it. Two flags cost nothing; ten in a row leave
       2 % of the share (0.8 % of 4).

    Limits: loss is self-reported, an attacker that reports an ordinary one is not seen; an honest client whose loss
    stands out like an attacker's for ten rounds is flagged like one, until its absence is allowed for; with fewer than
    4 clients only violations count.
    """
    reading = READINGS[rule.reading]
    violations = [violation(loss) for loss in losses]
    now = relative(losses, reading)
    history = remembered(standing.history, now)
    away = _away(standing)
    known = {
        i: value / reading.absence if away[i] and value > 0 else value
        for i, value in enumerate(smoothed(history, now, reading))
        if value is not None
    }
    judged = {i: known[i] for i in known if now[i] is not None}
    margins = _isolated(judged, known, rule.false_flags, reading.spread(standing.round + 1))
    margins |= _far_out(judged, margins, reading.far)
    active = standing.round >= rule.warmup
    flagged, suspicion = [bool(v) for v in violations], [CERTAIN if v else 0.0 for v in violations]
    reasons = list(violations)
    for i, (out, margin) in margins.items():
        suspicion[i], flagged[i] = margin, out
        if out:
            reasons[i] = (
                f"{rule.reading} of the loss stands apart: {judged[i]:+.2f} from the median, margin {margin:.2f} >= 1"
            )
    counts = tuple(
        min(LONGEST, c + 1) if f else max(0.0, c - RECOVERY) if i in judged else c
        for i, (c, f) in enumerate(zip(standing.counts, flagged, strict=True))
    )
    counted = [max(0.0, c - GRACE) if active else 0.0 for c in counts]
    weights = _normal([rule.decay ** (c * (c + 1) / 2) for c in counted])
    after = replace(standing, weights=weights, counts=counts, history=history, away=away)
    return _settled(losses, after, flagged, suspicion, reasons)


RULES: dict[str, Callable[[Losses, Standing, Rule], tuple[Verdict, Standing]]] = {
    "released": released,
    "paper": paper,
    "calibrated": calibrated,
}


def _away(standing: Standing) -> tuple[bool, ...]:
    """Who is away this round: see GONE and BACK."""
    before = standing.away or (False,) * len(standing.weights)
    bounds = [(BACK if was else GONE) / len(standing.weights) for was in before]
    return tuple(weight < bound for weight, bound in zip(standing.weights, bounds, strict=True))


def _isolated(
    judged: Mapping[int, float], known: Mapping[int, float], false_flags: float, spread: float
) -> dict[int, tuple[bool, float]]:
    """(flagged, margin) of each client of ``judged``: those of ``known`` who replied this round.

    Clients drawn for a round may hold a majority of attackers (five or six of ten in 13 of a recorded run's 100
    rounds, with nine of thirty malicious), among whom nobody stands apart. So where some did not reply, a second
    forest holds what is remembered of them too, and of those who left for good; either flags, each at half the rate.
    """
    forests = [judged] if len(judged) == len(known) else [judged, known]
    found: dict[int, tuple[bool, float]] = {}
    for forest in forests:
        values = np.array(list(forest.values()), dtype=np.float64)
        isolation = isolate(values, false_flags / len(forests), spread)
        for i, out, margin in zip(forest, isolation.flagged, isolation.margin, strict=True):
            before = found.get(i, (False, 0.0))
            found[i] = out or before[0], max(margin, before[1])
    return {i: found[i] for i in judged}


def _forest(losses: Losses, *, active: bool) -> tuple[list[bool], list[float], list[str]]:
    """The release's detector: flags that pass its gate, scores, reasons. NaN and infinities go in as they are."""
    flagged, scores, reasons = [False] * len(losses), [0.0] * len(losses), [""] * len(losses)
    told = [(i, loss) for i, loss in enumerate(losses) if loss is not None]
    if len(told) < 2:  # one point is no forest; no round of the release is that small
        return flagged, scores, reasons
    with np.errstate(over="ignore"):  # beyond float32 is infinite there, as in scikit-learn's own cast
        points = np.array([(0.0, abs(loss)) for _, loss in told]).astype(np.float32)
    forest = IsolationForest(max_samples=len(told), contamination="auto", random_state=999, n_estimators=100)
    score = -forest.fit(points).score_samples(points)
    outlying = score > 0.5
    usable = active and outlying.sum() < len(told) // 2
    for (i, _), s, out in zip(told, score, outlying, strict=True):
        scores[i] = float(s)
        flagged[i] = bool(usable and out)
        if flagged[i]:
            reasons[i] = f"isolation score {s:.3f} > 0.5"
    return flagged, scores, reasons


def _added(counts: Sequence[float], flagged: Sequence[bool]) -> tuple[float, ...]:
    return tuple(c + f for c, f in zip(counts, flagged, strict=True))


def _normal(weights: Sequence[float]) -> tuple[float, ...]:
    """Divided by their sum, which does not depend on the order of clients; equal where the sum is 0."""
    total = math.fsum(weights)
    return tuple(w / total for w in weights) if total > 0 else (1 / len(weights),) * len(weights)


def _settled(
    losses: Losses, after: Standing, flagged: Sequence[bool], suspicion: Sequence[float], reasons: Sequence[str]
) -> tuple[Verdict, Standing]:
    """The verdict: weights over the replies, without violators unless all are; the round counted."""
    replied = [loss is not None for loss in losses]
    clean = [r and s < CERTAIN for r, s in zip(replied, suspicion, strict=True)]
    heard = next(who for who in (clean, replied, [True] * len(replied)) if any(who))
    shares = [w if h else 0.0 for w, h in zip(after.weights, heard, strict=True)]
    weights = _normal(shares if math.fsum(shares) > 0 else [float(h) for h in heard])
    verdict = Verdict(tuple(flagged), tuple(suspicion), weights, tuple(reasons))
    return verdict, replace(after, round=after.round + 1)


def _far_out(
    judged: Mapping[int, float], found: Mapping[int, tuple[bool, float]], far: float
) -> dict[int, tuple[bool, float]]:
    """(flagged, margin) of those whom no forest flagged and who stand ``far`` above the median; nobody where flags
    would then reach half of the clients."""
    beyond = {i: (True, value / far) for i, value in judged.items() if value >= far and not found[i][0]}
    flagged = len(beyond) + sum(out for out, _ in found.values())
    return beyond if flagged < len(judged) // 2 else {}
