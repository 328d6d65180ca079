"""The replica against what torch's own SGD does to a real network."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from fedsec.models.networks import NetworkSpec, new_network
from fedsec.probes.replica import Replica, local_update
from fedsec.probes.view import Recipe
from tests.probes.rounds import RESNET, SMALL, Round, arrays, images_of, trained


def relative(one: Tensor, other: Tensor) -> float:
    return float(torch.linalg.vector_norm(one - other) / torch.linalg.vector_norm(other))


def holds(done: Round, tolerance: float) -> None:
    found, moments = local_update(done.replica, done.batches)
    assert list(found) == list(done.update)
    for name, change in done.update.items():
        assert found[name].shape == change.shape
        rounding = 1e-7 * torch.linalg.vector_norm(done.replica.weights[name])  # of the real net, which adds to weights
        assert torch.linalg.vector_norm(found[name] - change) < tolerance * torch.linalg.vector_norm(change) + rounding
    assert [len(step) for step in moments] == [
        len(step) if done.view.recipe.norm == "batch" else 0 for step in done.seen
    ]
    for step, truth in zip(moments, done.seen, strict=True):
        for (mean, var), (true_mean, true_var) in zip(step, truth, strict=False):
            assert relative(mean, true_mean) < 1e-4
            assert relative(var, true_var) < 1e-4


@pytest.mark.parametrize("steps", [1, 3])
@pytest.mark.parametrize("momentum", [0.0, 0.9])
@pytest.mark.parametrize("norm", ["batch", "frozen", "group", "layer", "none"])
def test_a_local_round_is_what_sgd_does(norm: str, momentum: float, steps: int) -> None:
    holds(trained(SMALL, norm=norm, momentum=momentum, steps=steps, batch=2, lr=0.1), 1e-3)


def test_a_local_round_of_resnet() -> None:
    holds(trained(RESNET, batch=1, lr=0.1), 1e-3)


def test_probabilities_do_as_well_as_labels() -> None:
    done = trained(SMALL, batch=2)
    sure = torch.nn.functional.one_hot(done.labels, 2).float()
    hard, soft = (local_update(done.replica, [(done.images, targets)])[0] for targets in (done.labels, sure))
    assert all(relative(soft[name], hard[name]) < 1e-5 for name in hard)


def test_every_step_has_a_gradient() -> None:
    done = trained(SMALL, batch=1, steps=3, momentum=0.9)
    images = done.images.clone().requires_grad_(True)
    logits = torch.zeros(3, 2, requires_grad=True)
    update, _ = local_update(
        done.replica, list(zip(torch.split(images, 1), torch.split(logits.softmax(1), 1), strict=True))
    )
    total = torch.stack([change.square().sum() for change in update.values()]).sum()
    for gradient in torch.autograd.grad(total, [images, logits]):
        assert torch.isfinite(gradient).all()
        assert (gradient.flatten(1).abs().amax(dim=1) > 0).all()


@pytest.mark.parametrize("norm", ["batch", "frozen", "group", "none"])
def test_the_network_is_as_before_after_every_pass(norm: str) -> None:
    done = trained(SMALL, norm=norm, steps=2)
    replica = done.replica
    before = {name: value.clone() for name, value in replica.network.state_dict().items()}
    drawn = torch.random.get_rng_state()
    first, seen = local_update(replica, done.batches)
    for _ in range(3):
        replica.logits(replica.weights, done.images)
        replica.entering("features.8", done.images)
        replica.counts(2)
        replica.convolutions()
        again, seen_again = local_update(replica, done.batches)
        assert all(torch.equal(first[name], again[name]) for name in first)
        for one, other in zip(seen, seen_again, strict=True):
            assert all(torch.equal(a, b) for pair in zip(one, other, strict=True) for a, b in zip(*pair, strict=True))
    after = replica.network.state_dict()
    counters = [name for name in before if name.endswith("num_batches_tracked")]
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert all(torch.equal(torch.from_numpy(done.view.before[n]), before[n]) for n in before if n not in counters)
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in replica.network.modules())
    assert torch.equal(torch.random.get_rng_state(), drawn)


def test_building_one_draws_nothing_and_copies() -> None:
    network = new_network(NetworkSpec("convnet"), seed=0)
    state, drawn = arrays(network), torch.random.get_rng_state()
    replica = Replica(SMALL, state)
    assert torch.equal(torch.random.get_rng_state(), drawn)
    state["fc.weight"][:] = 0
    assert torch.equal(replica.weights["fc.weight"], network.state_dict()["fc.weight"])


def test_a_state_without_counters_will_do_and_one_without_weights_will_not() -> None:
    state = arrays(new_network(NetworkSpec("convnet"), seed=0))
    bare = {name: value for name, value in state.items() if not name.endswith("num_batches_tracked")}
    assert len(bare) < len(state)
    Replica(SMALL, bare)
    with pytest.raises(AssertionError, match=r"missing from the view: \['fc.bias'\]"):
        Replica(SMALL, {name: value for name, value in bare.items() if name != "fc.bias"})
    with pytest.raises(AssertionError, match="that the network lacks"):
        Replica(SMALL, {**bare, "head.weight": bare["fc.weight"]})


@pytest.mark.parametrize(("chosen", "layer", "passed"), [(SMALL, "features.8", 2), (RESNET, "layer2.0.conv2", 6)])
def test_what_enters_a_layer_is_what_a_hook_sees(chosen: Recipe, layer: str, passed: int) -> None:
    network = new_network(NetworkSpec(chosen.network), seed=0)
    replica, images = Replica(chosen, arrays(network)), images_of(chosen, 2, "entering")
    seen: list[Tensor] = []
    network.get_submodule(layer).register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    with torch.no_grad():
        network(images)
    _, every = replica.logits(replica.weights, images)
    entered, moments = replica.entering(layer, images)
    assert relative(entered, seen[0]) < 1e-5
    assert len(moments) == passed
    for one, other in zip(moments, every, strict=False):
        assert all(torch.equal(a, b) for a, b in zip(one, other, strict=True))


def test_geometry_and_counts() -> None:
    replica = trained(SMALL).replica
    found = replica.convolutions()
    assert list(found) == ["features.0", "features.4", "features.8"]
    assert found["features.8"].shape == (64, 8, 8)
    assert found["features.8"].positions == 64
    assert found["features.8"].kernel == (3, 3)
    assert found["features.8"].stride == found["features.8"].padding == (1, 1)
    assert replica.counts(5) == {"features.1": 5 * 1024, "features.5": 5 * 256, "features.9": 5 * 64}
