"""The Flower ClientApp: message in, client.fit, message out. In a simulation and on a hospital's SuperNode alike."""

from __future__ import annotations

import secrets
from dataclasses import replace
from functools import lru_cache

import numpy as np
from flwr.app import Context, Message
from flwr.clientapp import ClientApp

from fedsec.config import Data, RunConfig, Split
from fedsec.errors import ConfigError, ReplyError
from fedsec.flower import messages, roll_call
from fedsec.types import Rows, SiteReport

app = ClientApp()


@app.query()
def who(message: Message, context: Context) -> Message:
    """Answer the roll call; a real site checks here that it can take part, before any training."""
    if _simulated(context):
        from clients import index  # noqa: F401  # torch takes seconds to import: now, while the server imports its own

        return roll_call.answer_roll_call(message, context)
    rows, classes = _site_rows(_site_config(context).data)
    counts = tuple(int(n) for n in np.bincount(rows.labels, minlength=len(classes)))
    report = SiteReport(str(context.node_config["site"]), classes, counts, rows.pixels.shape[3])
    return roll_call.answer_roll_call(message, context, report)


@app.train()
def train(message: Message, context: Context) -> Message:
    """One round of one cell. What the site keeps is keyed by arm and seed, and forgotten after the last round."""
    import torch

    from clients import index
    from clients.split_learning import SplitClient
    from fedsec.models.state import device_of

    torch.set_num_threads(1)
    arrays, task = messages.read_task(message)
    if _simulated(context):
        config = _parsed(frozenset(context.run_config.items())).arm(task.arm)
        split = replace(config.split, clients=task.clients)
        rows, classes = _partition_rows(config.data, split, task.partition)
    else:
        config, split = _site_config(context).arm(task.arm), None
        rows, names = _site_rows(config.data)
        classes = len(names)
    cell = f"{task.arm}-{task.seed}"
    client = index.build(
        config,
        rows,
        partition=task.partition,
        classes=classes,
        seed=task.seed,
        kept=messages.kept_arrays(context, cell),
        device=device_of(config.speed),
        secret=None if _simulated(context) else secrets.randbits(63),
        public=lambda: _attacker_rows(config.data, split),
        held=lambda: _held_rows(config.data, split, task.partition),
    )
    try:
        told: dict[str, bool | bytes | float | int | str] = {"round": task.round, "names": ",".join(arrays)}
        shared, examples, metrics = client.fit(list(arrays.values()), told)
    except ReplyError as refusal:  # the site's own limit: what it kept of this round stays as it was
        return messages.withheld(message, str(refusal))
    messages.keep_arrays(context, cell, {} if task.last else client.kept)
    numbers = {key: float(value) for key, value in metrics.items()}
    names = client.sent if isinstance(client, SplitClient) else tuple(arrays)
    return messages.reply(message, dict(zip(names, shared, strict=True)), examples, numbers)


def _simulated(context: Context) -> bool:
    return "partition-id" in context.node_config


@lru_cache(maxsize=4)
def _parsed(items: frozenset[tuple[str, bool | int | float | str]]) -> RunConfig:
    return RunConfig.from_flat(dict(items))


def _site_config(context: Context) -> RunConfig:
    """A real site's configuration: the run's, with the site's own data. A run that names an attack, or an audit that
    asks for what never leaves a site, is refused."""
    flat = dict(context.run_config)
    node = context.node_config
    config = RunConfig.from_flat(flat)
    attacks = [arm for arm in config.arms if config.arm(arm).attack.active]
    if attacks:
        raise ConfigError(
            f"this site refuses the run: its arms {', '.join(attacks)} simulate an attack; on real machines run arms "
            "without attack.name, attack.update and attack.report"
        )
    splits = config.train.task == "split-learning"
    audited = [arm for arm in config.arms if splits and config.arm(arm).leakage.every]
    if audited:
        raise ConfigError(
            f"this site refuses the run: its arms {', '.join(audited)} ask for the site's half of the network, for "
            "audits; set leakage.every = 0, audits are for simulations alone"
        )
    if "data" not in node or "site" not in node:
        raise ConfigError("a site's node config needs data = 'folder of images' and site = 'its name'")
    return RunConfig.from_flat({**flat, "data.source": str(node["data"])})


@lru_cache(maxsize=8)
def _partition_rows(data: Data, split: Split, partition: int) -> tuple[Rows, int]:
    from fedsec.datasets import load
    from fedsec.datasets import partition as divide

    dataset = load(data)
    return dataset.rows(divide(dataset, split, seed=data.seed)[partition]), len(dataset.class_names)


@lru_cache(maxsize=2)
def _attacker_rows(data: Data, split: Split | None) -> Rows:
    """What a site takes for an attacker's own images: nobody's in a simulation, its held-out ones on a real machine."""
    from fedsec.datasets import load
    from fedsec.datasets import partition as divide
    from fedsec.datasets.public import attacker_rows

    dataset = load(data)
    return attacker_rows(dataset, divide(dataset, split, seed=data.seed) if split else [dataset.train])


@lru_cache(maxsize=8)
def _held_rows(data: Data, split: Split | None, partition: int) -> Rows:
    """Held-out images that this client is scored on: its share of them in a simulation, its own on a real machine."""
    from fedsec.datasets import load
    from fedsec.datasets.public import held_share

    return held_share(load(data), partition, split.clients) if split else held_share(load(data), 0, 1)


@lru_cache(maxsize=1)
def _site_rows(data: Data) -> tuple[Rows, tuple[str, ...]]:
    from fedsec.datasets import load

    dataset = load(data)
    return dataset.rows(dataset.train), dataset.class_names
