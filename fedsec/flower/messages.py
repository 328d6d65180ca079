"""Flower messages <-> plain values. Replies come out in partition order; identity is the sender, never its words."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from flwr.app import Array, ArrayRecord, ConfigRecord, Context, Message, MetricRecord, RecordDict

from fedsec.errors import ReplyError
from fedsec.log.record import Dropped
from fedsec.npy import read_tensor
from fedsec.types import Arrays, Fit
from fedsec.weights import Layout

MOST_EXAMPLES = 10_000_000
LONGEST_TEXT = 300


@dataclass(frozen=True)
class Enrolled:
    """One node of the federation: its Flower id, the partition it stands for, and its site's name."""

    node: int
    partition: int
    site: str


@dataclass(frozen=True)
class Task:
    """What one train message asks of one client."""

    arm: str
    seed: int
    round: int
    partition: int
    clients: int
    last: bool


def task_message(arrays: Arrays, task: Task, node: int) -> Message:
    content = RecordDict(
        {
            "arrays": to_record(arrays),
            "task": ConfigRecord(
                {
                    "arm": task.arm,
                    "seed": task.seed,
                    "round": task.round,
                    "partition": task.partition,
                    "clients": task.clients,
                    "last": task.last,
                }
            ),
        }
    )
    return Message(content=content, dst_node_id=node, message_type="train", group_id=str(task.round))


def read_task(message: Message) -> tuple[Arrays, Task]:
    fields = message.content.config_records["task"]
    task = Task(
        str(fields["arm"]),
        int(fields["seed"]),  # type: ignore[arg-type]
        int(fields["round"]),  # type: ignore[arg-type]
        int(fields["partition"]),  # type: ignore[arg-type]
        int(fields["clients"]),  # type: ignore[arg-type]
        bool(fields["last"]),
    )
    return from_record(message.content.array_records["arrays"]), task


def reply(message: Message, arrays: Arrays, examples: int, metrics: Mapping[str, float]) -> Message:
    numbers: dict[str, int | float | list[int] | list[float]] = {"num-examples": int(examples)}
    numbers |= {key: float(value) for key, value in metrics.items()}
    content = RecordDict({"arrays": to_record(arrays), "metrics": MetricRecord(numbers)})
    return Message(content=content, reply_to=message)


def withheld(message: Message, reason: str) -> Message:
    """A reply in place of an update that the site does not let go."""
    return Message(content=RecordDict({"withheld": ConfigRecord({"reason": reason})}), reply_to=message)


def to_record(arrays: Arrays) -> ArrayRecord:
    return ArrayRecord({name: Array(np.asarray(value, order="C")) for name, value in arrays.items()})


def from_record(record: ArrayRecord) -> Arrays:
    return {name: array.numpy() for name, array in record.items()}


def kept_arrays(context: Context, cell: str) -> Arrays:
    """What this node keeps for one cell (arm and seed) between rounds; empty at first."""
    return from_record(context.state.array_records[cell]) if cell in context.state.array_records else {}


def keep_arrays(context: Context, cell: str, arrays: Arrays) -> None:
    """Replace what is kept for ``cell``; nothing at all once its last round is over.

    A node serves one cell after the other, so what is left of others (a client that was not asked in a cell's last
    round) is forgotten.
    """
    for other in [*context.state.array_records]:
        del context.state[other]
    if arrays:
        context.state[cell] = to_record(arrays)


def read_replies(
    replies: Iterable[Message], asked: Sequence[Enrolled], layout: Layout, images: Sequence[int] | None = None
) -> tuple[list[Fit], list[Dropped]]:
    """Sort replies by partition and check each: one bad client is dropped with a reason, never the round.

    Checked before any tensor is allocated: sender, duplicates, declared dtypes, shapes and sizes. Then finiteness,
    magnitude and the example count. ``images``: training images of each partition as enrolled; a reply that says
    another number is dropped (a client always trains on all it has, so it lies or its data changed). None where a
    reply is of some of a client's images only. Metrics stay as reported: a non-finite loss is the strategy's to judge.
    """
    by_node = {enrolled.node: enrolled for enrolled in asked}
    fits: dict[int, Fit] = {}
    dropped: list[Dropped] = []
    answered: set[int] = set()
    for message in replies:
        sender = by_node.get(message.metadata.src_node_id)
        if sender is None:
            dropped.append(Dropped(-1, "", "reply from a node that was not asked"))
            continue
        try:
            if sender.partition in answered:
                raise ReplyError("second reply in one round")
            answered.add(sender.partition)
            fits[sender.partition] = _fit(message, sender.partition, layout, images)
        except ReplyError as error:
            dropped.append(Dropped(sender.partition, sender.site, plain_text(str(error))))
    for enrolled in asked:
        if enrolled.partition not in answered:
            dropped.append(Dropped(enrolled.partition, enrolled.site, "no reply before the deadline"))
    return [fits[key] for key in sorted(fits)], sorted(dropped, key=lambda drop: (drop.partition, drop.reason))


def _fit(message: Message, partition: int, layout: Layout, images: Sequence[int] | None) -> Fit:
    if message.has_error():
        raise ReplyError(f"the client failed: {message.error.reason}")
    content = message.content
    if "withheld" in content.config_records:
        raise ReplyError(f"the site keeps it: {content.config_records['withheld'].get('reason', 'no reason given')!s}")
    if set(content.array_records) != {"arrays"} or set(content.metric_records) != {"metrics"}:
        raise ReplyError(f"records are {sorted(content)}, expected arrays and metrics")
    arrays = _decode(content.array_records["arrays"], layout)
    layout.check(arrays)
    metrics = content.metric_records["metrics"]
    examples = metrics.get("num-examples")
    if isinstance(examples, bool) or not isinstance(examples, int) or not 1 <= examples <= MOST_EXAMPLES:
        raise ReplyError(f"num-examples is {examples!r}, expected a whole number from 1 to {MOST_EXAMPLES}")
    if images is not None and examples != images[partition]:
        raise ReplyError(f"num-examples is {examples}, the site enrolled with {images[partition]} images")
    numbers = {k: float(v) for k, v in metrics.items() if k != "num-examples" and isinstance(v, int | float)}
    return Fit(partition, arrays, examples, numbers)


def _decode(record: ArrayRecord, layout: Layout) -> Arrays:
    """Decode only what the layout expects, each tensor by the dtype and shape it must have."""
    expected = dict(zip(layout.names, zip(layout.shapes, layout.dtypes, strict=True), strict=True))
    if set(record) != set(expected):
        missing, extra = set(expected) - set(record), set(record) - set(expected)
        raise ReplyError(f"tensors differ: {len(missing)} missing, {len(extra)} extra")
    arrays: Arrays = {}
    for name, array in record.items():
        try:
            arrays[name] = read_tensor(array.data, *expected[name])
        except ReplyError as error:
            raise ReplyError(f"{name} {error}") from error
    return arrays


def plain_text(text: str) -> str:
    """One short printable line: what a client wrote must not forge log lines or terminal codes."""
    cleaned = "".join(c if c.isprintable() else " " for c in text)
    return cleaned if len(cleaned) <= LONGEST_TEXT else cleaned[: LONGEST_TEXT - 1] + "…"
