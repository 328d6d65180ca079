"""What a real ResNet-18's running statistics give away, held against the moments its BatchNorms saw."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torchvision.models import resnet18

from fedsec.errors import ProbeError
from fedsec.images import to_images
from fedsec.probes.batchnorm import Moments, kept, moment_likelihood, noise_gain, recovered, recovery_error, steps_taken
from fedsec.seeds import stream
from fedsec.types import Arrays, Images
from tests.metrics.samples import lesions

SIZE = 64
STEPS = (1, 2, 4, 8, 32)

Seen = dict[str, Moments]


class Watch:
    """Takes the true moments of every BatchNorm's input, and how many values a channel they rest on."""

    def __init__(self, network: nn.Module) -> None:
        self.moments: Seen = {}
        self.counts: dict[str, int] = {}
        for name, layer in network.named_modules():
            if isinstance(layer, nn.BatchNorm2d):
                layer.register_forward_pre_hook(self._hook(name))

    def _hook(self, name: str) -> Callable[[nn.Module, tuple[Tensor, ...]], None]:
        def look(_: nn.Module, inputs: tuple[Tensor, ...]) -> None:
            x = inputs[0].detach().double()
            self.moments[name] = Moments(x.mean((0, 2, 3)).numpy(), x.var((0, 2, 3), unbiased=False).numpy())
            self.counts[name] = x.numel() // x.shape[1]

        return look


@dataclass
class Round:
    """One client's local round: snapshots of the state dict after 0, 1, ... steps and the truth of each step."""

    network: nn.Module
    states: list[Arrays]
    truth: list[Seen]
    counts: dict[str, int]


def arrays(network: nn.Module) -> Arrays:
    return {name: value.detach().numpy().copy() for name, value in network.state_dict().items()}


def network_of(momentum: float | None = 0.1) -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network: nn.Module = resnet18(weights=None, num_classes=2)
        network.conv1 = nn.Conv2d(1, 64, 7, 2, 3, bias=False)
    for layer in network.modules():
        if isinstance(layer, nn.BatchNorm2d):
            layer.momentum = momentum
    return network.train()


def train(network: nn.Module, images: Images, batch: int) -> Round:
    """Plain SGD, one step a batch of consecutive images."""
    start = copy.deepcopy(network)
    watch = Watch(network)
    optimiser = torch.optim.SGD(network.parameters(), lr=0.01)
    done = Round(start, [arrays(network)], [], watch.counts)
    for first in range(0, len(images), batch):
        x = torch.from_numpy(images[first : first + batch])
        labels = torch.arange(first, first + len(x)) % 2
        optimiser.zero_grad()
        loss: Tensor = nn.functional.cross_entropy(network(x), labels)
        loss.backward()  # type: ignore[no-untyped-call]
        optimiser.step()
        done.states.append(arrays(network))
        done.truth.append(dict(watch.moments))
    return done


def random_images(n: int, *address: str) -> Images:
    return stream(0, "batchnorm", *address).uniform(-1, 1, (n, 1, SIZE, SIZE)).astype(np.float32)


def weighted(steps: list[Seen], momentum: float | None) -> Seen:
    """The truth that a round's statistics hold: by the recursion, newest step heaviest, or the plain mean."""
    n = len(steps)
    weights = np.full(n, 1 / n) if momentum is None else (1 - momentum) ** np.arange(n - 1, -1, -1)
    weights = weights / weights.sum()
    return {
        name: Moments(
            np.sum([w * step[name].mean for w, step in zip(weights, steps, strict=True)], axis=0),
            np.sum([w * step[name].var for w, step in zip(weights, steps, strict=True)], axis=0),
        )
        for name in steps[0]
    }


def worst(found: Mapping[str, Moments], truth: Seen) -> float:
    errors = recovery_error(found, truth)
    assert set(errors) == set(truth)
    return max(max(error.mean, error.var) for error in errors.values())


@pytest.fixture(scope="module")
def single() -> Round:
    """32 steps of one image each."""
    return train(network_of(), random_images(32, "single"), 1)


@pytest.mark.parametrize("steps", STEPS)
def test_steps_are_counted_exactly(single: Round, steps: int) -> None:
    assert steps_taken(single.states[0], single.states[steps]) == steps
    assert steps_taken(single.states[8 - steps % 8], single.states[8]) == steps % 8


def test_one_step_is_recovered_exactly(single: Round) -> None:
    found = recovered(single.states[0], single.states[1], steps=1, counts=single.counts)
    assert len(found) == 20
    assert all(moments.mean.dtype == moments.var.dtype == np.float64 for moments in found.values())
    assert worst(found, single.truth[0]) < 1e-5


@pytest.mark.parametrize("steps", STEPS)
def test_many_steps_are_recovered_as_their_weighted_mean(single: Round, steps: int) -> None:
    found = recovered(single.states[0], single.states[steps], steps=steps, counts=single.counts)
    assert worst(found, weighted(single.truth[:steps], 0.1)) < 1e-5


def test_a_round_that_starts_from_used_statistics(single: Round) -> None:
    found = recovered(single.states[8], single.states[12], steps=4, counts=single.counts)
    assert worst(found, weighted(single.truth[8:12], 0.1)) < 1e-4


@pytest.mark.parametrize("batch", [2, 4])
def test_batches_of_several_images(batch: int) -> None:
    done = train(network_of(0.3), random_images(2 * batch, "batches"), batch)
    for steps in (1, 2):
        found = recovered(done.states[0], done.states[steps], steps=steps, momentum=0.3, counts=done.counts)
        assert worst(found, weighted(done.truth[:steps], 0.3)) < 1e-5


def test_the_cumulative_mean_of_momentum_none() -> None:
    done = train(network_of(None), random_images(7, "cumulative"), 1)
    for first, last in ((0, 1), (0, 4), (3, 4), (3, 7)):
        before, after = done.states[first], done.states[last]
        steps = steps_taken(before, after)
        assert steps == last - first
        found = recovered(before, after, steps=steps, momentum=None, counts=done.counts)
        assert worst(found, weighted(done.truth[first:last], None)) < 1e-4


def test_what_the_corrections_are_worth(single: Round) -> None:
    """The rule for one step errs grossly at N = 4, and a variance left unbiased is n / (n-1) too large."""
    one_step = recovered(single.states[0], single.states[4], steps=1, counts=single.counts)
    assert worst(one_step, weighted(single.truth[:4], 0.1)) > 1
    raw = recovered(single.states[0], single.states[1], steps=1)
    for name, error in recovery_error(raw, single.truth[0]).items():
        assert error.mean < 1e-5
        assert error.var == pytest.approx(1 / (single.counts[name] - 1), rel=1e-2)


def test_momentum_one_keeps_the_last_batch_alone() -> None:
    before: Arrays = {"bn.running_mean": np.ones(2), "bn.running_var": np.ones(2)}
    after: Arrays = {"bn.running_mean": np.array([3.0, 4.0]), "bn.running_var": np.array([5.0, 6.0])}
    found = recovered(before, after, steps=9, momentum=1.0, counts={"bn": 4})["bn"]
    np.testing.assert_array_equal(found.mean, [3, 4])
    np.testing.assert_allclose(found.var, [3.75, 4.5])


def test_noise_grows_by_its_gain(single: Round) -> None:
    assert noise_gain(0.1, 1) == pytest.approx(10)
    assert noise_gain(0.1, 32) == pytest.approx(1 / (1 - 0.9**32))
    assert noise_gain(None, 5) == 1
    assert noise_gain(None, 2, seen=6) == pytest.approx(4)
    rng, noisy = stream(0, "noise"), dict(single.states[4])
    for name in noisy:
        if name.endswith("running_mean"):
            noisy[name] = noisy[name].astype(np.float64) + rng.normal(0, 0.5, noisy[name].shape)
    plain, disturbed = (recovered(single.states[0], after, steps=4) for after in (single.states[4], noisy))
    error = np.concatenate([disturbed[name].mean - plain[name].mean for name in plain])
    assert error.std() == pytest.approx(0.5 * noise_gain(0.1, 4), rel=0.05)


def skin(n: int, address: str) -> Images:
    return to_images(lesions(n, address, channels=1, size=SIZE).pixels)


def moments_of(network: nn.Module, images: Images) -> list[Seen]:
    """Each image alone in train mode through a copy of the network that the server sent."""
    copied = copy.deepcopy(network)
    watch, found = Watch(copied), []
    for image in images:
        with torch.no_grad():
            copied(torch.from_numpy(image[None]))
        found.append(dict(watch.moments))
    return found


def test_the_image_trained_on_is_the_likeliest_of_51() -> None:
    member, strangers = skin(1, "member"), skin(50, "strangers")
    done = train(network_of(), member, 1)
    target = recovered(done.states[0], done.states[1], steps=1, counts=done.counts)
    scores = [moment_likelihood(each, target) for each in moments_of(done.network, np.concatenate([member, strangers]))]
    assert scores[0] > -1e-3
    assert max(scores[1:]) < 100 * scores[0]


def test_likelihood_is_a_symmetric_divergence() -> None:
    rng = stream(0, "likelihood")
    one, two = (
        {name: Moments(rng.normal(size=c), rng.uniform(0.5, 2, c)) for name, c in (("a", 3), ("b", 7))}
        for _ in range(2)
    )

    def directed(p: Moments, q: Moments) -> float:
        return float((np.log(q.var / p.var) / 2 + (p.var + (p.mean - q.mean) ** 2) / (2 * q.var) - 0.5).mean())

    expected = -sum(directed(one[name], two[name]) + directed(two[name], one[name]) for name in one)
    assert moment_likelihood(one, two) == pytest.approx(expected, rel=1e-3)
    assert moment_likelihood(one, two) == moment_likelihood(two, one) < moment_likelihood(one, one) == 0
    shuffled = {name: Moments(m.mean[::-1], m.var[::-1]) for name, m in reversed(one.items())}
    backward = {name: Moments(m.mean[::-1], m.var[::-1]) for name, m in two.items()}
    assert moment_likelihood(shuffled, backward) == pytest.approx(moment_likelihood(one, two))
    noised = {**two, "a": Moments(two["a"].mean, -two["a"].var)}
    assert np.isfinite(moment_likelihood(one, noised))


def test_says_what_did_not_travel(single: Round) -> None:
    before, after = single.states[0], single.states[4]
    silent = {name: value for name, value in after.items() if not name.endswith("num_batches_tracked")}
    with pytest.raises(ProbeError, match="the client keeps its counters"):
        steps_taken(before, silent)
    assert recovered(before, silent, steps=4).keys() == recovered(before, after, steps=4).keys()
    private = {name: value for name, value in after.items() if "running" not in name}
    with pytest.raises(ProbeError, match="the client keeps its statistics"):
        recovered(before, private, steps=4)
    uncounted = {name: value for name, value in before.items() if not name.endswith("num_batches_tracked")}
    with pytest.raises(ProbeError, match="a cumulative mean needs the count"):
        recovered(uncounted, after, steps=4, momentum=None)


def test_says_what_is_odd_about_counters(single: Round) -> None:
    before, after = single.states[0], single.states[4]
    with pytest.raises(ProbeError, match=r"layers disagree on the steps: bn1 took 1, layer1.0.bn1 took 4"):
        steps_taken(before, {**after, "bn1.num_batches_tracked": np.array(1)})
    with pytest.raises(ProbeError, match=r"moved by 4.25 \(bn1\): noised"):
        steps_taken(before, {**after, "bn1.num_batches_tracked": np.array(4.25)})
    with pytest.raises(ProbeError, match="moved by nan"):
        steps_taken(before, {**after, "bn1.num_batches_tracked": np.array(np.nan)})
    with pytest.raises(ProbeError, match="moved by -4"):
        steps_taken(after, before)


@pytest.mark.parametrize(
    ("momentum", "steps", "law"), [(0.1, 0, "0 steps"), (0.0, 1, "momentum = 0"), (1.5, 1, "momentum = 1.5")]
)
def test_refuses_what_has_no_meaning(momentum: float, steps: int, law: str) -> None:
    with pytest.raises(ProbeError, match=law):
        kept(momentum, steps)


def test_refuses_what_does_not_fit() -> None:
    state: Arrays = {"running_mean": np.zeros(2), "running_var": np.ones(2)}
    alone = recovered(state, state, steps=1)
    assert list(alone) == [""]
    with pytest.raises(ProbeError, match="at least 2 values a channel"):
        recovered(state, state, steps=1, counts={"": 1})
    wider = {"": Moments(np.zeros(3), np.ones(3))}
    with pytest.raises(ProbeError, match="the candidate has no layer '' of 2 channels"):
        moment_likelihood(wider, alone)
    with pytest.raises(ProbeError, match="the truth has no layer ''"):
        recovery_error(alone, {})
