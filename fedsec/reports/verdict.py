"""The verdict in plain words, computed from the final scores and nothing else; it never says more than they do.

The lines it judges by are the project's own: an attack *got through* when the trigger rate is at least ten times that
of the clean arm, a defence *holds* when it is at most twice that; the oracle's fidelity counts as reached within 10 %,
the clean arm's within 5 %; at most 2 % false flags. A clean rate of 0 counts as one image in the sample.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

from fedsec.log.record import Cell, RunRecord
from fedsec.log.values import metrics_of, values_of
from fedsec.metrics.intervals import mean_interval, paired_difference
from fedsec.reports.words import Verdict, digits, percent
from fedsec.run.roles import Role, role

TRIGGER, TRUE_FLAGS, FALSE_FLAGS = "trigger-rate", "true-flag-rate", "false-flag-rate"


def verdict(record: RunRecord) -> Verdict:
    done = list(dict.fromkeys(arm for arm, _ in record.finished()))
    roles = {arm: role(record.header, arm) for arm in record.header.arms}

    def among(wanted: Callable[[Role], bool]) -> list[str]:
        return [arm for arm in done if wanted(roles[arm])]

    clean = next(iter(among(lambda r: not r.attacked and r.defence == "fed-avg")), None)
    attacks = among(lambda r: r.attacked and r.defence == "fed-avg")
    oracle = next(iter(among(lambda r: r.attacked and r.defence == "oracle")), None)
    defended = among(lambda r: r.attacked and r.defended)
    attack = next(iter(attacks), None)
    points = (
        ("The attack", tuple(_attack(record, arm, clean) for arm in attacks)),
        ("The defence", tuple(_defence(record, arm, attack, clean, oracle) for arm in defended)),
        ("Clean runs", tuple(_clean(record, arm, clean) for arm in among(lambda r: not r.attacked and r.defended))),
        ("Not run", _not_run(record, roles)),
        ("Read with care", _cautions(record)),
    )
    return Verdict(_headline(record, clean, attack, defended), tuple((term, said) for term, said in points if said))


def weight_round(cell: Cell, malicious: tuple[int, ...], share: float = 0.01) -> int | None:
    """The first round from which on the malicious clients together never again weigh ``share`` or more."""
    found: int | None = None
    for row in cell.rounds:
        low = sum(row.weights.get(partition, 0.0) for partition in malicious) < share
        found = (found if found is not None else row.round) if low else None
    return found


def _mean(record: RunRecord, arm: str | None, metric: str) -> float:
    return mean_interval(values_of(record, arm, metric)).mean if arm is not None else math.nan


def _rate(record: RunRecord, arm: str, metric: str) -> str:
    """The mean over seeds and, when several were measured, the lowest and highest of them."""
    values = [value for value in values_of(record, arm, metric) if math.isfinite(value)]
    mean = percent(_mean(record, arm, metric))
    if len(values) < 2:
        return mean
    low, high = percent(min(values)), percent(max(values))
    return f"{mean} (seeds: {low} to {high})" if low != high else f"{mean} (in every seed)"


def _floor(record: RunRecord, clean: str, metric: str) -> float:
    """The clean trigger rate, and at least one image in the sample: 0 of n says no more than that."""
    counts = [
        c.final()[metric].score.n for (a, _), c in record.finished().items() if a == clean and metric in c.final()
    ]
    return max(_mean(record, clean, metric), 1 / max(counts, default=1))


def _sought(record: RunRecord, clean: str, arm: str | None) -> str:
    """The score under which the clean arm looked for the trigger of ``arm``."""
    other = f"{TRIGGER}@{role(record.header, arm).trigger}" if arm is not None else ""
    return other if other in metrics_of(record, clean) else TRIGGER


def _headline(record: RunRecord, clean: str | None, attack: str | None, defended: list[str]) -> str:
    if not record.finished():
        return "No arm has finished: there is nothing to judge yet."
    hit = _mean(record, attack, TRIGGER)
    if not math.isfinite(hit):
        return "No attacked arm without a defence was measured: this run does not say what the attack does."
    text = f"With the attack, {percent(hit)} of the server's generated images carry the trigger"
    base = _mean(record, clean, _sought(record, clean, attack)) if clean is not None else math.nan
    text += f"; without it, {percent(base)}" if math.isfinite(base) else ""
    shown = [f"{percent(_mean(record, arm, TRIGGER))} with {arm}" for arm in defended]
    return text + (f"; defended, {', '.join(shown)}." if shown else ". No defended arm was measured.")


def _attack(record: RunRecord, arm: str, clean: str | None) -> str:
    hit = _mean(record, arm, TRIGGER)
    text = f"{arm}: the trigger is in {_rate(record, arm, TRIGGER)} of the images that the server's generator draws"
    if clean is None:
        return text + ". Without a clean arm nothing shows what that rate would be otherwise."
    sought = _sought(record, clean, arm)
    text += f", against {_rate(record, clean, sought)} in {clean}. "
    base = _floor(record, clean, sought)
    if not (math.isfinite(hit) and math.isfinite(base)):
        return text + "The two cannot be compared. " + _fidelity(record, arm, clean)
    if hit >= 10 * base:
        text += "The attack got through: at least ten times the clean rate. "
    elif hit > 2 * base:
        text += "The attack got through in part: more than twice, but less than ten times the clean rate. "
    else:
        text += "The attack did not get through: at most twice the clean rate. "
    return text + _fidelity(record, arm, clean)


def _defence(record: RunRecord, arm: str, attack: str | None, clean: str | None, oracle: str | None) -> str:
    hit, bare = _mean(record, arm, TRIGGER), _mean(record, attack, TRIGGER)
    text = f"{arm}: the trigger is in {_rate(record, arm, TRIGGER)} of the generated images"
    base = _floor(record, clean, _sought(record, clean, arm)) if clean is not None else math.nan
    if not (math.isfinite(hit) and math.isfinite(base)):
        text += "; without a measured clean arm this cannot be judged. "
    elif hit <= 2 * base:
        text += ", at most twice the clean rate: the trigger is kept out. "
    elif hit <= bare / 2:
        text += ", at most half of the undefended rate, but more than twice the clean one: weakened, not kept out. "
    else:
        text += ": the defence does not keep the trigger out. "
    text += _weights(record, arm)
    text += f"Flagged: {_rate(record, arm, TRUE_FLAGS)} of the attacker's client-rounds and "
    text += f"{_rate(record, arm, FALSE_FLAGS)} of the honest ones. "
    return text + (_fidelity(record, arm, oracle, 0.10) if oracle is not None else "")


def _clean(record: RunRecord, arm: str, clean: str | None) -> str:
    rate = _mean(record, arm, FALSE_FLAGS)
    text = f"{arm}: with nobody attacking, {_rate(record, arm, FALSE_FLAGS)} of the honest client-rounds were flagged"
    if math.isfinite(rate):
        text += ", within the line of 2 %" if rate <= 0.02 else ", above the line of 2 %"
    return text + ". " + (_fidelity(record, arm, clean, 0.05) if clean is not None else "")


def _weights(record: RunRecord, arm: str) -> str:
    guilty = role(record.header, arm).malicious
    cells = {seed: cell for (its_arm, seed), cell in record.finished().items() if its_arm == arm}
    rounds = {seed: weight_round(cell, guilty) for seed, cell in cells.items()}
    never = [str(seed) for seed, number in rounds.items() if number is None]
    reached = [number for number in rounds.values() if number is not None]
    if not guilty or not rounds:
        return ""
    if not reached:
        return "The attacker's weight never stays below 1 %. "
    span = f"{min(reached)}" if min(reached) == max(reached) else f"{min(reached)} to {max(reached)}"
    last = max((row.round for cell in cells.values() for row in cell.rounds), default=0)
    rest = f", but never for seed {', '.join(never)}" if never else ""
    return f"The attacker's weight stays below 1 % from round {span} of {last} on{rest}. "


def _fidelity(record: RunRecord, arm: str, other: str, line: float | None = None) -> str:
    """The Fréchet distance of two arms, with what the paired seeds say about the difference."""
    metric = record.header.measured_by
    ours, theirs = _mean(record, arm, metric), _mean(record, other, metric)
    if not (math.isfinite(ours) and math.isfinite(theirs)):
        return f"{metric} is not measured in both {arm} and {other}."
    change = (ours - theirs) / theirs if theirs else math.nan
    text = f"{metric} (lower is better) is {digits(ours)} against {digits(theirs)} in {other}, {100 * change:+.0f} %"
    if line is not None:
        text += f", {'within' if change <= line else 'outside'} the line of {100 * line:.0f} %"
    paired = paired_difference(values_of(record, arm, metric), values_of(record, other, metric))
    if not math.isfinite(paired.low):
        return text + "; with one pair of seeds, chance cannot be ruled out."
    if paired.low <= 0 <= paired.high:
        return text + "; the seeds do not tell the two apart."
    return text + f"; the difference holds over the seeds (95 % interval {paired.low:+.3g} to {paired.high:+.3g})."


def _not_run(record: RunRecord, roles: Mapping[str, Role]) -> tuple[str, ...]:
    kinds = {
        "a clean arm (no attack, plain averaging)": any(not r.attacked and not r.defended for r in roles.values()),
        "an attacked arm without a defence": any(r.attacked and r.defence == "fed-avg" for r in roles.values()),
        "an attacked arm with a defence": any(r.attacked and r.defended for r in roles.values()),
        "a defence on a clean run (its false flags)": any(not r.attacked and r.defended for r in roles.values()),
        "the oracle (attacker removed: the ceiling)": any(r.defence == "oracle" for r in roles.values()),
    }
    missing = [name for name, there in kinds.items() if not there]
    wanted = record.header.cells
    current, finished = record.current(), record.finished()
    open_cells = [
        f"{arm}, seed {seed}" for arm, seed in wanted if (arm, seed) in current and (arm, seed) not in finished
    ]
    absent = [f"{arm}, seed {seed}" for arm, seed in wanted if (arm, seed) not in current]
    return tuple(
        text
        for text, names in (
            (f"Not part of this run: {'; '.join(missing)}.", missing),
            (f"Started, not finished: {'; '.join(open_cells)}.", open_cells),
            (f"Not started with these settings: {'; '.join(absent)}.", absent),
        )
        if names
    )


def _cautions(record: RunRecord) -> tuple[str, ...]:
    said = []
    if record.end is None:
        said.append("The run has not come to its end: this is what the log holds so far.")
    elif record.end.status != "finished":
        said.append(f"The run failed: {record.end.reason or 'no reason recorded'}.")
    if len(record.header.seeds) == 1:
        said.append("One seed: there is no interval, and a difference may be chance.")
    if record.header.measured_by != "fid":
        said.append(
            f"Fidelity is {record.header.measured_by}, the Fréchet distance on features of classifiers trained on the "
            "real training images. It ranks the arms of this run; it is not FID and compares with no published number. "
            "On other classifiers the ratio of two arms moved by up to 12 % on dermoscopy (docs/metrics.md); "
            "'python -m studies.measures.yardstick RUN' measures it here."
        )
    if record.torn:
        lines = ", ".join(map(str, record.torn))
        said.append(f"The log has a line cut short by a crash (line {lines}); it is left out.")
    return (*said, *record.header.notes)
