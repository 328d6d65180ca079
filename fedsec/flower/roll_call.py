"""Who is there: the question that the server asks every node before a run, and what it makes of the answers."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from flwr.app import ConfigRecord, Context, Message, RecordDict
from flwr.serverapp import Grid

from fedsec.errors import RunError
from fedsec.flower.messages import Enrolled, plain_text
from fedsec.types import SiteReport

LOG = logging.getLogger("flwr")
FIRST = 8
"""Times as long as for the next answer one waits for the first: Ray starts, and every process imports torch."""
SAID = 30.0
"""Seconds between lines about who has not answered."""


def answer_roll_call(message: Message, context: Context, report: SiteReport | None = None) -> Message:
    """Say who this node is: its partition in a simulation, what a real site reports of itself."""
    who = ConfigRecord({"partition-id": int(context.node_config.get("partition-id", -1))})
    if report is not None:
        who["site"], who["channels"] = report.name, report.channels
        who["classes"], who["labels"] = list(report.classes), list(report.labels)
    return Message(content=RecordDict({"who": who}), reply_to=message)


@dataclass(frozen=True)
class Present:
    """Who answered the roll call: (partition id, or -1 on a real machine; site; node id) each, in that order.

    ``reports``: what each real site says of itself, in the same order; none in a simulation.
    """

    nodes: tuple[tuple[int, str, int], ...]
    reports: tuple[SiteReport, ...] = ()

    @property
    def simulated(self) -> bool:
        return all(partition >= 0 for partition, _, _ in self.nodes)

    def lanes(self, clients: int) -> list[list[Enrolled]]:
        """Fix node id -> partition for the whole run.

        In a simulation with k x clients nodes there are k lanes, each with every partition once, so that k cells can
        share the machine without two of them writing one node's state. Real sites make one lane, in the order of
        their names. Raises RunError when nodes are missing or too many sites are there.
        """
        nodes = self.nodes
        if len(nodes) < clients or (not self.simulated and len(nodes) != clients):
            raise RunError(
                f"{len(nodes)} nodes are there, the run needs {clients}: make the two agree, or set split.clients = 0 "
                "to take as many clients as there are nodes (flwr run: --federation-config 'num-supernodes=N')"
            )
        named = [
            Enrolled(node, i % clients, site or f"partition {i % clients}") for i, (_, site, node) in enumerate(nodes)
        ]
        return [named[start : start + clients] for start in range(0, len(nodes) - clients + 1, clients)]


def roll_call(grid: Grid, *, least: int, wait: float) -> Present:
    """Ask every node once who it is. Raises RunError when fewer than ``least`` nodes are there after ``wait`` seconds,
    when ``wait`` passes without one more answer (FIRST times as long before the first), or when real sites lack names
    of their own. What is slow is logged, not ended: on a loaded machine a simulation starts for minutes."""
    deadline = time.monotonic() + wait
    while len(nodes := list(grid.get_node_ids())) < least:
        if time.monotonic() > deadline:
            raise RunError(
                f"{len(nodes)} nodes are there after {wait:.0f} s, the run needs {least}: start the others, or set "
                f"split.clients = {max(1, len(nodes))} (flwr run: --federation-config 'num-supernodes={least}')"
            )
        time.sleep(0.2)
    call = [Message(content=RecordDict({}), dst_node_id=n, message_type="query", group_id="0") for n in nodes]
    answers = list(_answers(grid, call, wait))
    silent = len(nodes) - len([a for a in answers if not a.has_error()])
    if silent:
        reasons = {plain_text(a.error.reason or "") for a in answers if a.has_error()} or {"no answer"}
        raise RunError(f"{silent} of {len(nodes)} nodes did not answer the roll call: {'; '.join(sorted(reasons))}")
    return _present([(a.metadata.src_node_id, a.content.config_records["who"]) for a in answers])


def _answers(grid: Grid, call: Sequence[Message], wait: float) -> Iterator[Message]:
    """Replies as they come, until nobody has answered for too long."""
    waiting = set(grid.push_messages(call))
    asked = len(waiting)
    progress = said = time.monotonic()
    while waiting:
        for answer in grid.pull_messages(waiting):
            waiting.discard(answer.metadata.reply_to_message_id)
            progress = time.monotonic()
            yield answer
        silent = time.monotonic() - progress
        if silent > (wait if len(waiting) < asked else FIRST * wait):
            return
        if waiting and time.monotonic() - said > SAID:
            said = time.monotonic()
            LOG.warning("roll call: %d of %d nodes have answered, none for %.0f s", asked - len(waiting), asked, silent)
        time.sleep(0.1 if waiting else 0)


def _present(answers: Sequence[tuple[int, ConfigRecord]]) -> Present:
    """Who is there, in an order that does not depend on who answered first."""
    if all("partition-id" in who and int(who["partition-id"]) >= 0 for _, who in answers):  # type: ignore[arg-type]
        return Present(tuple(sorted((int(who["partition-id"]), "", node) for node, who in answers)))  # type: ignore[arg-type]
    reports = sorted(((_report(who), node) for node, who in answers), key=lambda pair: (pair[0].name, pair[1]))
    names = [report.name for report, _ in reports]
    if "" in names or len(set(names)) < len(names):
        raise RunError(f"each site needs a name of its own in its node config (site = ...); got {names}")
    return Present(tuple((-1, r.name, node) for r, node in reports), tuple(r for r, _ in reports))


def _report(who: ConfigRecord) -> SiteReport:
    """A site's words as plain text and numbers. What is of another kind is left out; the plan then names the site."""
    classes, labels, channels = who.get("classes", []), who.get("labels", []), who.get("channels", 0)
    named = tuple(plain_text(str(name)) for name in classes) if isinstance(classes, list) else ()
    counts = tuple(n for n in labels if isinstance(n, int) and n >= 0) if isinstance(labels, list) else ()
    return SiteReport(plain_text(str(who.get("site", ""))), named, counts, channels if isinstance(channels, int) else 0)
