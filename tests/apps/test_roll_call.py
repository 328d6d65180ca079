"""Waiting for nodes goes by progress: who is slow is waited for, who is silent is named."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable

import pytest
from flwr.app import Message

from clients.client_app import app
from fedsec.config import RunConfig
from fedsec.errors import RunError
from fedsec.flower import roll_call
from tests.local_grid import LocalGrid


class Slow(LocalGrid):
    """``pauses``: seconds before each next answer can be pulled."""

    pauses: tuple[float, ...] = ()
    after: float = 0.0

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        if time.monotonic() < self.after:
            return []
        first, *rest = self.pauses or (0.0,)
        self.pauses, self.after = tuple(rest), time.monotonic() + first
        return super().pull_messages(message_ids) if self.after else []


def grid(*pauses: float, nodes: int = 4) -> Slow:
    made = Slow(app, RunConfig().to_flat(), nodes=nodes)
    made.pauses, made.after = pauses[1:], time.monotonic() + pauses[0]
    return made


def test_nodes_that_come_one_by_one_for_longer_than_the_wait_are_all_there() -> None:
    present = roll_call.roll_call(grid(0.5, 0.3, 0.3, 0.3), least=4, wait=0.4)
    assert len(present.nodes) == 4


def test_what_is_slow_is_said(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.setattr(roll_call, "SAID", 0.2)
    with caplog.at_level(logging.WARNING, logger="flwr"):
        roll_call.roll_call(grid(0.6), least=4, wait=1.0)
    assert "0 of 4 nodes have answered" in caplog.text


def test_who_is_silent_is_counted_after_the_wait_since_the_last_answer() -> None:
    silent = LocalGrid(app, RunConfig().to_flat(), nodes=4, tamper=lambda place, reply: None if place == 2 else reply)
    began = time.monotonic()
    with pytest.raises(RunError, match="1 of 4 nodes did not answer the roll call: no answer"):
        roll_call.roll_call(silent, least=4, wait=0.3)
    assert 0.3 < time.monotonic() - began < 5
