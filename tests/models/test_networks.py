"""Laws of every network with every normalisation."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from torch import Tensor, nn

from fedsec.models.networks import GROUPS, NETWORKS, NORMS, NetworkSpec, build_network, new_network

EVERY = [(network, norm) for network in NETWORKS for norm in NORMS]


@pytest.fixture(autouse=True)
def global_generator_untouched() -> Iterator[None]:
    before = torch.random.get_rng_state()
    yield
    assert torch.equal(torch.random.get_rng_state(), before)


def spec_of(network: str, norm: str, channels: int = 1, classes: int = 2) -> NetworkSpec:
    return NetworkSpec(network, norm, channels, classes)  # type: ignore[arg-type]


def images(channels: int = 1) -> Tensor:
    return torch.randn(2, channels, 64, 64, generator=torch.Generator().manual_seed(0))


def statistics(network: nn.Module) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in network.named_buffers()}


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize(("network", "norm"), EVERY)
def test_every_network_takes_every_norm(network: str, norm: str, channels: int) -> None:
    net = new_network(spec_of(network, norm, channels, classes=5), seed=0)
    assert net.training
    with torch.no_grad():
        out = net(images(channels))
    assert out.shape == (2, 5)
    assert torch.isfinite(out).all()
    assert out.std() > 0


@pytest.mark.parametrize(("network", "norm"), EVERY)
def test_a_seed_is_the_weights(network: str, norm: str) -> None:
    one, same, other = (new_network(spec_of(network, norm), seed=seed).state_dict() for seed in (3, 3, 4))
    assert list(one) == list(same)
    assert all(torch.equal(one[name], same[name]) for name in one)
    assert not torch.equal(one["fc.weight"], other["fc.weight"])
    assert all(value.device.type == "cpu" and torch.isfinite(value).all() for value in one.values())


def test_the_norm_changes_no_other_weight() -> None:
    nets = [new_network(spec_of("convnet", norm), seed=0).state_dict() for norm in NORMS]
    for name in ("features.0.weight", "features.8.weight", "fc.weight"):
        assert all(torch.equal(net[name], nets[0][name]) for net in nets)


@pytest.mark.parametrize("network", NETWORKS)
def test_frozen_statistics_stay_and_batch_ones_move(network: str) -> None:
    for norm, moves in (("frozen", False), ("batch", True)):
        net = new_network(spec_of(network, norm), seed=0).train()
        before = statistics(net)
        assert before
        with torch.no_grad():
            net(images())
        after = statistics(net)
        assert all(torch.equal(before[name], after[name]) != moves for name in before)


@pytest.mark.parametrize("network", NETWORKS)
def test_frozen_is_batch_in_eval_mode(network: str) -> None:
    frozen, batch = (new_network(spec_of(network, norm), seed=0) for norm in ("frozen", "batch"))
    assert list(frozen.state_dict()) == list(batch.state_dict())
    with torch.no_grad():
        assert torch.equal(frozen(images()), batch.eval()(images()))


@pytest.mark.parametrize("norm", ["group", "layer", "none"])
def test_the_others_keep_no_statistics_and_do_not_mix_images(norm: str) -> None:
    net = new_network(spec_of("convnet", norm), seed=0)
    assert not statistics(net)
    with torch.no_grad():
        torch.testing.assert_close(net(images())[:1], net(images()[:1]))


def test_groups() -> None:
    for norm, groups in (("group", GROUPS), ("layer", 1)):
        layer = NORMS[norm](32)
        assert isinstance(layer, nn.GroupNorm)
        assert (layer.num_groups, layer.num_channels) == (groups, 32)


def test_a_built_network_is_frozen_before_anyone_says_train() -> None:
    net = build_network(spec_of("convnet", "frozen"))
    assert not any(module.training for module in net.modules() if isinstance(module, nn.BatchNorm2d))


def test_a_norm_of_ones_own() -> None:
    class Own(nn.BatchNorm2d):
        pass

    net = build_network(spec_of("convnet", "batch"), norm=Own)
    assert sum(isinstance(module, Own) for module in net.modules()) == 3
    assert all(value.device.type == "cpu" for value in net.state_dict().values())
