"""An in-process Grid: the real strategies against the real ClientApp without Ray, network or processes.

Flower hands out run and message ids from its runtime; the private lines that stand in for it are kept here alone.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterable

from flwr.app import Context, Error, Message, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid
from flwr.supercore.run import Run
from flwr.supercore.task_identity import TaskIdentity

Tamper = Callable[[int, Message], Message | None]
"""(partition, reply) -> the reply as a hostile client would send it, or None for no reply."""


class LocalGrid(Grid):
    """``nodes`` simulated nodes; node ids are shuffled away from partitions, replies come in reverse order."""

    def __init__(
        self,
        app: ClientApp,
        run_config: dict[str, bool | int | float | str],
        *,
        nodes: int,
        node_config: Callable[[int], dict[str, bool | int | float | str]] | None = None,
        tamper: Tamper | None = None,
    ) -> None:
        self.app, self.tamper = app, tamper
        TaskIdentity.run_id, TaskIdentity.task_id, TaskIdentity.node_id = 1, 1, 1
        config = node_config or (lambda i: {"partition-id": i, "num-partitions": nodes})
        self.partition = {1000 + (i * 7) % 101: i for i in range(nodes)}
        self.contexts = {
            node: Context(run_id=1, node_id=node, node_config=config(i), state=RecordDict(), run_config=run_config)
            for node, i in self.partition.items()
        }
        self.calls = 0
        self.waiting: list[Message] = []

    def set_run(self, run: Run) -> None:
        """One run only."""

    @property
    def run(self) -> Run:
        raise NotImplementedError("no strategy reads it")

    def create_message(self, *args: object, **kwargs: object) -> Message:
        raise NotImplementedError("deprecated in Flower")

    def get_node_ids(self) -> Iterable[int]:
        return list(self.contexts)

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        every = list(messages)
        self.waiting = list(self.send_and_receive(every))
        return [message.metadata.message_id for message in every]

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        """One reply a pull."""
        return [self.waiting.pop()] if self.waiting else []

    def send_and_receive(self, messages: Iterable[Message], *, timeout: float | None = None) -> Iterable[Message]:
        replies = []
        for message in messages:
            node = message.metadata.dst_node_id
            message.metadata.__dict__["_message_id"] = uuid.uuid4().hex  # what the runtime does on push
            self.calls += 1
            try:
                reply = self.app(message, self.contexts[node])
            except Exception as error:  # the runtime turns any client failure into an error reply
                reply = Message(Error(code=2, reason=str(error)), reply_to=message)
            changed = self.tamper(self.partition[node], reply) if self.tamper else reply
            if changed is not None:
                replies.append(changed)
        return replies[::-1]
