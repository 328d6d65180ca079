"""Local training: deterministic, resumable from arrays, and untouched by global randomness."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from clients.gan import GanClient
from fedsec.config import RunConfig
from fedsec.models.gan.dcgan import GanSpec
from fedsec.models.gan.sampling import balanced_labels, generate
from fedsec.models.gan.steps import new_pair, spec, train_round
from fedsec.models.order import batches
from fedsec.models.state import network_arrays
from fedsec.seeds import address_seed, stream
from fedsec.types import Arrays, Rows
from fedsec.weights import shared_arrays

CONFIG = RunConfig.from_flat({"train.steps": 2, "train.batch": 8, "gan.width": 8})
RNG = np.random.default_rng(0)
ROWS = Rows(RNG.integers(0, 256, (20, 32, 32, 3), dtype=np.uint8), RNG.integers(0, 2, 20))


def client(config: RunConfig, kept: Arrays) -> GanClient:
    return GanClient(config, ROWS, partition=1, classes=2, seed=5, kept=kept)


def start(config: RunConfig) -> list[np.ndarray]:
    pair = new_pair(config, spec(config, channels=3, classes=2), seed=5, device="cpu")
    return list(shared_arrays(config.gan, network_arrays(pair.generator), network_arrays(pair.discriminator)).values())


@pytest.mark.parametrize("share", ["generator", "both"])
@pytest.mark.parametrize("loss", ["non-saturating", "hinge", "wgan-gp"])
def test_two_rounds_through_arrays_equal_two_rounds_again(loss: str, share: str) -> None:
    config = RunConfig.from_flat({**CONFIG.to_flat(), "gan.loss": loss, "gan.share": share})

    def two_rounds() -> tuple[list[np.ndarray], Arrays, dict[str, object]]:
        first = client(config, {})
        arrays, examples, _ = first.fit(start(config), {"round": 1})
        assert examples == 20
        second = client(config, first.kept)
        arrays, _, metrics = second.fit(arrays, {"round": 2})
        return arrays, second.kept, dict(metrics)

    torch.manual_seed(1)
    arrays, kept, metrics = two_rounds()
    torch.manual_seed(2)
    again, kept_again, metrics_again = two_rounds()
    assert metrics == metrics_again
    for a, b in zip(arrays, again, strict=True):
        np.testing.assert_array_equal(a, b)
    assert kept.keys() == kept_again.keys()
    for name in kept:
        np.testing.assert_array_equal(kept[name], kept_again[name])


def test_kept_state_goes_on_where_one_long_training_would() -> None:
    """Optimiser moments and the discriminator survive the trip through arrays to the bit."""
    shape = spec(CONFIG, channels=3, classes=2)
    whole = new_pair(CONFIG, shape, seed=5, device="cpu")
    arrays = start(CONFIG)
    kept: Arrays = {}
    for number in (1, 2, 3):
        one = client(CONFIG, kept)
        arrays, _, _ = one.fit(arrays, {"round": number})
        kept = one.kept
        train_round(whole, one.rows(), CONFIG, seed=address_seed(5, "client", 1, "round", number), device="cpu")
    generator = network_arrays(whole.generator)
    for a, b in zip(arrays, shared_arrays(CONFIG.gan, generator, {}).values(), strict=True):
        np.testing.assert_array_equal(a, b)
    for name, value in network_arrays(whole.discriminator).items():
        np.testing.assert_array_equal(kept[f"discriminator.{name}"], value)


def test_global_generators_are_not_touched() -> None:
    torch.manual_seed(3)
    np.random.seed(3)
    expected = (torch.rand(1).item(), np.random.rand())
    torch.manual_seed(3)
    np.random.seed(3)
    client(CONFIG, {}).fit(start(CONFIG), {"round": 1})
    assert (torch.rand(1).item(), np.random.rand()) == expected


def test_mirror_doubles_the_rows_and_keeps_labels() -> None:
    rows = client(CONFIG, {}).rows()
    assert len(rows) == 40
    np.testing.assert_array_equal(rows.pixels[20:], ROWS.pixels[:, :, ::-1])
    np.testing.assert_array_equal(rows.labels[20:], ROWS.labels)


@pytest.mark.parametrize(("rows", "batch", "steps"), [(20, 8, 5), (3, 8, 2), (64, 32, 2)])
def test_batches_pass_over_all_rows_before_any_comes_again(rows: int, batch: int, steps: int) -> None:
    cut = batches(rows, batch, steps, stream(0, "b"))
    assert [len(part) for part in cut] == [batch] * steps
    flat = np.concatenate(cut)
    whole = len(flat) // rows
    for start_of_pass in range(whole):
        assert set(flat[start_of_pass * rows : (start_of_pass + 1) * rows]) == set(range(rows))


def test_samples_depend_on_the_seed_alone_and_need_no_running_statistics() -> None:
    shape = GanSpec(32, 3, 2, width=8)
    pair = new_pair(CONFIG, shape, seed=5, device="cpu")
    shared = {k: v for k, v in network_arrays(pair.generator).items() if "running" not in k and "num_b" not in k}
    labels = balanced_labels(np.array([0, 0, 0, 1]), 40)
    assert np.bincount(labels).tolist() == [30, 10]
    images = generate(shared, shape, labels, seed=1, statistics="local")
    np.testing.assert_array_equal(images, generate(shared, shape, labels, seed=1, statistics="local"))
    assert not np.array_equal(images, generate(shared, shape, labels, seed=2, statistics="local"))
    assert images.shape == (40, 3, 32, 32)


def test_addresses_name_streams() -> None:
    assert address_seed(1, "client", 3) == address_seed(1, "client", 3)
    distinct = {address_seed(1, "client", 3), address_seed(1, "client", "3"), address_seed(2, "client", 3)}
    assert len(distinct | {address_seed(1, "client", 3, "round", 1), address_seed(1, "client3")}) == 5
