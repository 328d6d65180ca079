"""The page of split learning: what PGSL does to accuracy, stream by stream, the paper's claims beside it, traffic."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

from fedsec.log.record import RunRecord
from fedsec.log.values import values_of
from fedsec.metrics.intervals import Interval, mean_interval, paired_difference
from fedsec.metrics.tradeoff import Tradeoff
from fedsec.reports import figures
from fedsec.reports.curves import curve
from fedsec.reports.leaks import leaks, setting
from fedsec.reports.markup import details, figure, inert, paragraph, plots, section, table
from fedsec.reports.split_learning.leaks import answer, drawn, headline, leak_parts, perturbs, privacy, tradeoffs
from fedsec.reports.words import Verdict, digits
from fedsec.run.roles import overrides

STREAMS = ("plain", "attacked", "recovered", "fused", "late")
CLAIMS = "14.0, 17.9 and 36.9 %"
MEASURES = ("accuracy", "balanced-accuracy", "auc")
UNAUDITED = (
    "Accuracy says nothing of privacy: no activations were attacked here (leakage.every); docs/split-attacks.md."
)


def shield(record: RunRecord, arm: str) -> str:
    """What stands for a defence in one arm."""
    noise, weight = (float(setting(record, arm, key) or 0) for key in ("cut.noise", "cut.decorrelation"))
    own = ["PGSL"] * (setting(record, arm, "pgsl.on") is True)
    own += [f"noise of {noise:g}"] * bool(noise) + [f"NoPeek of {weight:g}"] * bool(weight)
    return ", ".join(own) or "none"


def split_verdict(record: RunRecord) -> Verdict:
    done = list(dict.fromkeys(arm for arm, _ in record.finished()))
    plain = next((arm for arm in done if shield(record, arm) == "none"), None)
    guarded = [arm for arm in done if perturbs(record, arm)]
    found = tradeoffs(record)
    others = [arm for arm in done if not perturbs(record, arm)]
    full = next((arm for arm in guarded if not set(overrides(record.header, arm)) - {"pgsl.on"}), None)
    full = full or next(iter(guarded), None)
    points = (
        ("Accuracy", tuple(_accuracy(record, arm, plain) for arm in guarded)),
        ("Without PGSL", tuple(_plain(record, arm, plain) for arm in others)),
        ("One part taken away", tuple(_parts(record, arm, full) for arm in guarded if arm != full and full)),
        ("What activations give away", drawn(record)),
        ("Privacy at matched accuracy", privacy(record, found)),
        ("The paper's claims", _claims(record, full)),
        ("Against the whole network", (_whole(),)),
        ("Read with care", _cautions(record)),
    )
    return Verdict(_headline(record, found, full, plain), tuple((term, said) for term, said in points if said))


def _headline(record: RunRecord, found: Mapping[str, Tradeoff], full: str | None, plain: str | None) -> str:
    if full is None and plain is None:
        return "No arm has finished: nothing can be said yet."
    if full is None or plain is None:
        arm = full or plain
        assert arm is not None
        missing = "plain split learning" if plain is None else "PGSL"
        return (
            f"{arm} answers {_share(record, arm, answer(record, arm))} of held-out images right; no arm of {missing}."
        )
    ours, theirs = values_of(record, full, answer(record, full)), values_of(record, plain, answer(record, plain))
    return (
        f"PGSL answers {_percent(mean_interval(ours).mean)} of held-out images right, plain split learning "
        f"{_percent(mean_interval(theirs).mean)}: {_apart(ours, theirs)}."
    ) + headline(found.get(full))


def _share(record: RunRecord, arm: str, name: str) -> str:
    return _percent(mean_interval(values_of(record, arm, name)).mean)


def _percent(value: float) -> str:
    """One decimal: arms are a point or two apart."""
    return f"{100 * value:.1f} %" if math.isfinite(value) else "not measured"


def _apart(ours: Sequence[float], theirs: Sequence[float]) -> str:
    """Difference in points, and what the paired seeds say of it."""
    over = paired_difference(ours, theirs)
    if not math.isfinite(over.mean):
        return "the difference was not measured"
    text = f"{100 * over.mean:+.1f} points".replace("-", "−")
    if not math.isfinite(over.low):
        return text + ", with one pair of seeds, so that chance cannot be ruled out"
    between = f"{100 * over.low:+.1f} to {100 * over.high:+.1f}".replace("-", "−")
    if over.low <= 0 <= over.high:
        return f"{text} (95 % interval {between}), which the seeds do not tell from none"
    return f"{text} (95 % interval {between})"


def _accuracy(record: RunRecord, arm: str, plain: str | None) -> str:
    on, off = answer(record, arm), answer(record, arm, "off")
    text = f"{arm}: late fusion {_share(record, arm, on)}"
    text += f" with the perturbation at test time, {_share(record, arm, off)} without" if on != off else ""
    if plain is None:
        return text + "."
    theirs = values_of(record, plain, answer(record, plain))
    return f"{text}; against {plain}: {_apart(values_of(record, arm, on), theirs)}."


def _plain(record: RunRecord, arm: str, plain: str | None) -> str:
    text = f"{arm} ({shield(record, arm)}): {_share(record, arm, 'accuracy-plain-off')}"
    if arm == plain or plain is None:
        return text + "."
    name = "accuracy-plain-off"
    return f"{text}; against {plain}: {_apart(values_of(record, arm, name), values_of(record, plain, name))}."


def _parts(record: RunRecord, arm: str, full: str | None) -> str:
    assert full is not None
    changed = ", ".join(f"{k} = {v}" for k, v in overrides(record.header, arm).items() if k != "pgsl.on")
    ours, theirs = values_of(record, arm, answer(record, arm)), values_of(record, full, answer(record, full))
    return f"{arm} ({changed or 'as it is'}) against {full}: {_apart(ours, theirs)}."


def _claims(record: RunRecord, full: str | None) -> tuple[str, ...]:
    """The gains of late fusion over two streams; the paper's three numbers stand for two names."""
    said = [f"The paper claims gains of {CLAIMS} over reconstructed and attacked images: three numbers, two names."]
    if full is None:
        return (*said, "No arm of PGSL has finished, so nothing stands beside them.")
    variant = answer(record, full).rsplit("-", 1)[1]
    late = values_of(record, full, f"accuracy-late-{variant}")
    for stream, name in (("attacked", "attacked"), ("recovered", "reconstructed")):
        theirs = values_of(record, full, f"accuracy-{stream}-{variant}")
        gain = 100 * (mean_interval(late).mean / mean_interval(theirs).mean - 1) if any(theirs) else math.nan
        told = f"{gain:+.1f} %".replace("-", "−") if math.isfinite(gain) else "not measured"
        said.append(f"Here late fusion gains {told} over the {name} stream of {full}: {_apart(late, theirs)}.")
    return (
        *said,
        "Attacked images shown to a network trained on clean ones, the other reading, are in docs/pgsl.md "
        "(python -m studies.split_learning.accuracy).",
    )


def _whole() -> str:
    return (
        "The same network in one piece has no clients and is not part of a federated run. "
        "'python -m studies.split_learning.accuracy DATA' trains it on the same kind of images "
        "beside the arms (docs/pgsl.md): compare there, not with this page."
    )


def _cautions(record: RunRecord) -> tuple[str, ...]:
    said = ["That no attack tried here draws more is no proof that none does."] if leaks(record) else [UNAUDITED]
    counted = [arm for arm in record.header.arms if setting(record, arm, "cut.labels") == "client"]
    if counted:
        said.append(f"In {', '.join(counted)} accuracies are what the clients count: the server has no labels.")
    said.append(
        "Speed is wall clock at the server, of both sides and of what else ran: arms beside each other share it."
    )
    if len(record.header.seeds) == 1:
        said.append("One seed: intervals, where there are any, are over images, and a difference may be chance.")
    if record.end is None:
        said.append("The run has not come to its end: this is what the log holds so far.")
    elif record.end.status != "finished":
        said.append(f"The run failed: {record.end.reason or 'no reason recorded'}.")
    if record.header.data.source == "phantom":
        said.append("Phantom images, drawn by a program: numbers on real radiographs differ.")
    return (*said, *record.header.notes)


def split_sections(record: RunRecord, folder: Path) -> str:
    return "".join((leak_parts(record, folder), _streams(record), _traffic(record), split_curves(record)))


def _streams(record: RunRecord) -> str:
    """Streams across, arms down, a row for each way to send held-out images."""
    tables = [_table(record, measure) for measure in MEASURES]
    if not any(tables):
        return section("Streams", paragraph("No arm has finished: there is no final score."))
    lead = (
        "Each stream's own answers on held-out images; late is the three together. On: the clients perturb held-out "
        "images as they do in training; off: they send them as they are."
    )
    others = details("Balanced accuracy and AUC", *tables[1:])
    return section("Streams", paragraph(lead, "soft"), tables[0], others)


def _table(record: RunRecord, measure: str) -> str:
    rows = []
    for arm in record.header.arms:
        for variant in ("on", "off"):
            cells = [mean_interval(values_of(record, arm, f"{measure}-{name}-{variant}")) for name in STREAMS]
            if any(math.isfinite(over.mean) for over in cells):
                rows.append((inert(arm), variant, *map(_value, cells)))
    if not rows:
        return ""
    caption = f"{measure} of held-out images, mean over seeds, below it the 95 % interval"
    return table(caption, ("arm", "perturbation", *STREAMS), rows, numeric=True)


def _value(over: Interval) -> str:
    if not math.isfinite(over.mean):
        return "–"
    text = f"{over.mean:.3f}"
    return text + (f"<small>{over.low:.3f} to {over.high:.3f}</small>" if math.isfinite(over.low) else "")


def _traffic(record: RunRecord) -> str:
    rows = []
    for arm in record.header.arms:
        cells = [cell for (its, _), cell in record.finished().items() if its == arm]
        if cells:
            up, down, rate = (
                mean_interval(values_of(record, arm, n)).mean for n in ("bytes-up", "bytes-down", "samples-a-second")
            )
            dropped = sum(len(row.dropped) for cell in cells for row in cell.rounds)
            told = "–" if not math.isfinite(rate) else digits(rate)
            trips = max(len(cell.rounds) for cell in cells)
            rows.append((inert(arm), *(f"{x:,.0f}" if math.isfinite(x) else "–" for x in (up, down)), told))
            rows[-1] = (*rows[-1], str(trips), str(dropped))
    if not rows:
        return ""
    head = ("arm", "bytes up", "bytes down", "samples a second", "round trips", "dropped replies")
    caption = "A training image: bytes of tensors between client and server, without their envelopes; mean over seeds"
    return section("Traffic and speed", table(caption, head, rows, numeric=True))


def split_curves(record: RunRecord) -> str:
    """Accuracy of what each arm answers with, and the loss that trains the clients, over messages."""
    pictures = []
    for variant in ("on", "off"):
        curves, title = list[figures.Curve](), f"accuracy, perturbation {variant} at test time"
        for place, arm in enumerate(record.header.arms):
            curves += curve(figures.arm_look(place), _over_messages(record, arm, answer(record, arm, variant)))
        if curves:
            drawn = figures.curves_over(curves, across="message", label="accuracy", title=title)
            pictures.append(
                figure(drawn, title, "of late fusion, or of the plain stream; arms that never perturb are in both")
            )
    losses = []
    for place, arm in enumerate(record.header.arms):
        losses += curve(figures.arm_look(place), _losses(record, arm))
    if losses:
        title = "training loss"
        drawn = figures.curves_over(losses, across="message", label="cross entropy", title=title)
        pictures.append(figure(drawn, title, "mean over clients, of the stream whose gradient returns to them"))
    if not pictures:
        return ""
    key = figures.legend([(figures.arm_look(i), inert(arm)) for i, arm in enumerate(record.header.arms)])
    return section("Over messages", key, plots(pictures))


def _over_messages(record: RunRecord, arm: str, name: str) -> dict[float, list[float]]:
    found: dict[float, list[float]] = {}
    for (its, _), cell in record.current().items():
        for row in cell.scores if its == arm else ():
            if not row.final and row.score.name == name:
                found.setdefault(float(row.round), []).append(row.score.value)
    return found


def _losses(record: RunRecord, arm: str) -> dict[float, list[float]]:
    """Message -> the clients' mean loss in each seed. Only rounds that train have losses."""
    found: dict[float, list[float]] = {}
    for (its, _), cell in record.current().items():
        trained = [row for row in cell.rounds if row.losses] if its == arm else []
        for number, row in enumerate(trained, start=1):
            found.setdefault(float(number), []).append(sum(row.losses.values()) / len(row.losses))
    return found
