"""A step that is recorded and replayed: the same numbers as the plain one, and all of it recordable."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from clients.gan import GanClient
from fedsec.config import RunConfig
from fedsec.images import to_images
from fedsec.models.chance import Chance, Tape
from fedsec.models.gan.learner import GanLearner, RecordedGanLearner, new_learner
from fedsec.models.gan.losses import LOSSES
from fedsec.models.gan.recorded import Recording, recording
from fedsec.models.gan.steps import new_pair, placed, spec, step
from fedsec.models.graphs import recorded
from fedsec.probes.presets import PRESETS
from fedsec.types import Arrays, Rows
from tests.recordable import checked

RNG = np.random.default_rng(0)
ROWS = Rows(RNG.integers(0, 256, (20, 32, 32, 3), dtype=np.uint8), RNG.integers(0, 2, 20))
DEVICES = [
    "cpu",
    pytest.param("cuda", marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU on this machine")),
]


def config(**settings: Any) -> RunConfig:
    return RunConfig.from_flat(
        {"train.steps": 3, "train.batch": 8, "gan.width": 8, "gan.latent": 8}
        | {key.replace("__", "."): value for key, value in settings.items()}
    )


def learner(chosen: RunConfig, made: type[GanLearner], device: str) -> GanLearner:
    return made(chosen, channels=3, classes=2, seed=1, device=device)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize(
    ("loss", "augment"), [("non-saturating", "none"), ("hinge", "flip"), ("wgan-gp", "colour+translate")]
)
def test_rounds_by_replay_are_the_rounds_without(loss: str, augment: str, device: str) -> None:
    """Two clients in turn, two rounds each, on one recording: to the bit on a CPU; on CUDA what rounding makes of it,
    which Adam enlarges where a gradient is next to nothing."""
    chosen = config(gan__loss=loss, gan__augment=augment)
    exact, kept = device == "cpu", dict[tuple[type[GanLearner], int], Any]()
    for number in (1, 2):
        for client in (0, 1):
            told, ends, start = [], [], dict[str, Any]()
            for made in (GanLearner, RecordedGanLearner):
                one = learner(chosen, made, device)
                one.load(one.shared(), kept.get((made, client), {}))
                start = {**one.shared(), **one.kept()}
                told.append(one.train(ROWS, seed=10 * number + client))
                kept[made, client] = one.kept()
                ends.append({**one.shared(), **one.kept()})
            assert list(told[0].values()) == pytest.approx(list(told[1].values()), rel=0 if exact else 0.01)
            assert ends[0].keys() == ends[1].keys()
            apart, moved = (np.linalg.norm(vector(ends[1]) - vector(one)) for one in (ends[0], start))
            assert apart <= (0 if exact else 0.1) * moved


def vector(arrays: Arrays) -> Any:
    """The weights that are trained, in one."""
    trained = [a.ravel() for name, a in arrays.items() if name.split(".")[0] in ("generator", "discriminator")]
    return np.concatenate(trained).astype(np.float64)


def test_a_new_learner_starts_from_its_seed_whatever_the_last_one_left() -> None:
    first = learner(config(), RecordedGanLearner, "cpu")
    before = first.shared()
    first.train(ROWS, seed=3)
    moved = first.shared()
    second = learner(config(), RecordedGanLearner, "cpu")
    assert any(not np.array_equal(before[name], moved[name]) for name in before)
    for name, value in second.shared().items():
        np.testing.assert_array_equal(value, before[name])
    assert all(not value.any() for name, value in second.kept().items() if name.endswith("exp_avg"))


def test_a_learner_whose_networks_were_taken_over_says_so() -> None:
    first = learner(config(), RecordedGanLearner, "cpu")
    learner(config(), RecordedGanLearner, "cpu")
    for use in (lambda: first.train(ROWS, seed=1), first.kept, first.shared, lambda: first.load({}, {})):
        with pytest.raises(RuntimeError, match="taken the recorded networks over"):
            use()


def test_threads_do_not_share_a_recording() -> None:
    shape = spec(config(), channels=3, classes=2)
    with ThreadPoolExecutor(1) as pool:
        other = pool.submit(recording, config(), shape, "cpu").result()
    assert recording(config(), shape, "cpu") is not other


def test_equal_recipes_share_a_recording_and_others_do_not() -> None:
    shape = spec(config(), channels=3, classes=2)
    assert recording(config(), shape, "cpu") is recording(config(defence__name="median"), shape, "cpu")
    assert recording(config(), shape, "cpu") is not recording(config(train__lr=1e-3), shape, "cpu")


def test_only_a_learner_alone_in_its_thread_on_cuda_gets_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        "fedsec.models.gan.learner.RecordedGanLearner", lambda config, **kind: ("recorded", kind["device"])
    )
    kind: dict[str, Any] = {"channels": 3, "classes": 2, "seed": 1}
    made: Any = new_learner(config(), **kind, device="cuda", alone=True)
    assert made == ("recorded", "cuda")
    assert type(new_learner(config(), **kind, device="cpu", alone=True)) is GanLearner
    assert type(new_learner(config(), **kind, device="cpu")) is GanLearner


def test_a_client_is_alone_in_its_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[bool] = []

    def made(*args: Any, alone: bool = False, **kind: Any) -> Any:
        asked.append(alone)
        return new_learner(*args, **kind)

    monkeypatch.setattr("clients.gan.new_learner", made)
    start = list(learner(config(), GanLearner, "cpu").shared().values())
    GanClient(config(), ROWS, partition=0, classes=2, seed=1, kept={}).fit(start, {"round": 1})
    assert asked == [True]


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU on this machine")
def test_threads_may_record_at_the_same_time() -> None:
    def doubled(value: float) -> float:
        held = torch.full((64, 64), value, device="cuda")
        replay = recorded(lambda: held @ held, device="cuda")
        return float(replay()[0, 0])

    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(doubled, map(float, range(64)))) == [64.0 * v * v for v in range(64)]


@pytest.mark.parametrize("augment", ["none", "flip", "colour+translate"])
@pytest.mark.parametrize("loss", sorted(LOSSES))
def test_a_step_has_nothing_that_a_graph_cannot_hold(loss: str, augment: str, monkeypatch: pytest.MonkeyPatch) -> None:
    # torch looks at the labels on a CPU alone: on CUDA the scatter itself does.
    monkeypatch.setattr(torch.nn.functional, "one_hot", lambda y, classes: (y[:, None] == torch.arange(classes)).long())
    chosen = config(gan__loss=loss, gan__augment=augment)
    pair = new_pair(chosen, spec(chosen, channels=3, classes=2), seed=1, device="cpu")
    # Adam that counts on the device exists on CUDA alone.
    plain = [torch.optim.SGD(network.parameters(), 0.1) for network in (pair.generator, pair.discriminator)]
    pair = replace(pair, generator_optimiser=plain[0], discriminator_optimiser=plain[1])  # type: ignore[arg-type]
    images, labels = placed(ROWS, "cpu")
    tape = Tape(0)

    def once() -> None:
        tape.rewind()
        step(pair, chosen, images[:8], labels[:8], tape)

    checked(once, device="cpu")()
    with pytest.raises(AssertionError, match="_local_scalar_dense"):
        checked(lambda: images.sum().item(), device="cpu")()
    with pytest.raises(AssertionError, match="rand"):
        checked(lambda: step(pair, chosen, images[:8], labels[:8], Chance(0)), device="cpu")()


def test_the_first_step_fills_the_tape_and_a_refill_draws_what_chance_would() -> None:
    tape, chance = Tape(4), Chance(4)
    for _ in range(3):
        tape.rewind()
        if tape.kept:
            tape.refill()
        ours = [tape.normal(2, 3), tape.uniform(4), tape.below(5, 2, 2)]
        theirs = [chance.normal(2, 3), chance.uniform(4), chance.below(5, 2, 2)]
        for mine, fresh in zip(ours, theirs, strict=True):
            assert torch.equal(mine, fresh)
    assert len(tape.kept) == 3


def test_off_cuda_nothing_is_called_and_nothing_recorded() -> None:
    def never() -> None:
        raise AssertionError

    assert recorded(never, device="cpu") is never


def test_a_recording_is_of_whole_batches() -> None:
    """Three images, batches of eight: batches() fills them from the next pass."""
    few = Rows(ROWS.pixels[:3], ROWS.labels[:3])
    chosen = config()
    made = Recording(chosen, spec(chosen, channels=3, classes=2), "cpu")
    made.restart(seed=1)
    losses = made.train_round(few, chosen, seed=2)
    assert len(losses.generator) == len(losses.discriminator) == 3
    assert np.isfinite(losses.generator).all()
    assert to_images(few.pixels).shape == (3, 3, 32, 32)


def test_presets_whose_restarts_agree_on_something_are_few() -> None:
    """What they agree on is new in each iteration, so these are not recorded."""
    assert [name for name, preset in PRESETS.items() if "group" in preset.terms] == ["see-through-gradients"]
