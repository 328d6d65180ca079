"""No-op clients: each sends back the model it got. A round is send to all, receive from all, decode, average."""

from __future__ import annotations

import json
import time
from pathlib import Path

import numpy as np
from flwr.app import Array, ArrayRecord, Context, Message, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid, ServerApp

server = ServerApp()
client = ClientApp()
STARTERS = 10
"""Nodes of the round that starts the workers and is not timed."""
WAIT = 1800.0
"""Seconds a round may take."""


@client.train()
def train(message: Message, context: Context) -> Message:
    """The model, unchanged."""
    return Message(content=RecordDict({"model": message.content.array_records["model"]}), reply_to=message)


@server.main()
def main(grid: Grid, context: Context) -> None:
    """Time each round and write the seconds, as a list, to the file ``out``. Raises when a client did not answer."""
    config = context.run_config
    clients, rounds = int(config["clients"]), int(config["rounds"])
    while len(nodes := list(grid.get_node_ids())) < clients:
        time.sleep(0.1)
    model = np.zeros(int(config["megabytes"]) * 250_000, np.float32)
    play(grid, nodes[:STARTERS], model, 0)
    seconds = []
    for number in range(1, rounds + 1):
        started = time.monotonic()
        model = play(grid, nodes, model, number)
        seconds.append(time.monotonic() - started)
    Path(str(config["out"])).write_text(json.dumps(seconds))


def play(grid: Grid, nodes: list[int], model: np.ndarray, number: int) -> np.ndarray:
    """One round: the average of what ``nodes`` send back."""
    record = ArrayRecord({"model": Array(model)})
    messages = [
        Message(content=RecordDict({"model": record}), dst_node_id=node, message_type="train", group_id=str(number))
        for node in nodes
    ]
    total, answered = np.zeros(model.shape, np.float64), 0
    for reply in grid.send_and_receive(messages, timeout=WAIT):
        if reply.has_error():
            raise RuntimeError(f"a no-op client failed: {reply.error.reason}")
        total += reply.content.array_records["model"]["model"].numpy()
        answered += 1
    if answered < len(nodes):
        raise RuntimeError(f"{answered} of {len(nodes)} no-op clients answered")
    return (total / answered).astype(np.float32)
