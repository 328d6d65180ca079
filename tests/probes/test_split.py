"""Attacks on split learning: each recovers what it must, repeats itself, and leaves the halves as they were."""

from __future__ import annotations

from copy import deepcopy
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fedsec.errors import ProbeError
from fedsec.metrics.similarity import ssim
from fedsec.probes.split_learning.attacks import ATTACKS
from fedsec.probes.split_learning.learned import Decoder
from fedsec.probes.split_learning.matching import MATCHING, match
from fedsec.probes.split_learning.view import READINGS, Means, SplitView, folded, fresh, unfolded
from tests.probes.exchanges import SIZE, client_of, exchange, means, pictures, shallow

FOLDED = partial(client_of, 5, 24, pool=False)


class Trainee:
    """A client that a malicious server holds."""

    def __init__(self, images: Tensor, own: Tensor, client: nn.Module) -> None:
        self.images, self.own, self.client, self.turn = images, own, client, 0
        self.adam = torch.optim.Adam(client.parameters(), 1e-3)

    def send(self) -> Tensor:
        self.turn = (self.turn + 16) % len(self.images)
        last: Tensor = self.client(self.images[self.turn : self.turn + 16])
        self.last = last
        return last

    def give_back(self, gradient: Tensor) -> None:
        self.adam.zero_grad()
        self.last.backward(gradient)  # type: ignore[no-untyped-call]
        self.adam.step()

    def watch(self) -> Tensor:
        out: Tensor = self.client(self.own)
        return out.detach()


def everything(client: nn.Module, view: SplitView, images: Tensor, **more: object) -> Means:
    frozen = deepcopy(client).train(view.train)
    size = images.shape[-1]
    private = torch.cat([pictures(32 - len(images), "private", size=size), images])
    trainee = Trainee(private, images, fresh(view.architecture, 5, "trainee"))
    return means(size, query=lambda batch: frozen(batch).detach(), session=trainee, **more)


def perturbed() -> tuple[SplitView, Tensor, Tensor]:
    """PGSL's client with a map of one value a cell: its view, the images, and the client half's input."""
    images = 0.8 * pictures(2, "own") - 0.1
    change = 0.3 * torch.rand(2, 1, SIZE // 2, SIZE // 2, generator=torch.Generator().manual_seed(0))
    change = F.interpolate(change, scale_factor=2)
    inputs = folded(images + change, change)
    client = fresh(FOLDED, 0, "client")
    return exchange(inputs, client, FOLDED), images, inputs


def nearness(images: Tensor, found: np.ndarray) -> float:
    return float(ssim(images.numpy(), found).mean())


@pytest.mark.parametrize("train", [False, True])
@pytest.mark.parametrize("name", ATTACKS)
def test_every_attack_repeats_itself_and_changes_nothing(name: str, train: bool) -> None:
    view, images, client = (
        (*perturbed()[:2], fresh(FOLDED, 0, "client")) if "adaptive" in name else shallow(train=train)
    )
    assert view.server is not None
    held = [view.activations, *view.server.state_dict().values(), *(view.client or {}).values(), *client.parameters()]
    before, drawn = [value.clone() for value in held], torch.random.get_rng_state()
    one, same = (ATTACKS[name](view, everything(client, view, images, iterations=2)) for _ in range(2))
    np.testing.assert_array_equal(one.images, same.images)
    assert one.images.shape == images.shape
    assert one.images.dtype == np.float32
    assert np.abs(one.images).max() <= 1
    assert all(torch.equal(a, b) for a, b in zip(before, held, strict=True))
    assert all(value.requires_grad for value in view.server.parameters())
    assert torch.equal(torch.random.get_rng_state(), drawn)


def test_white_box_reads_a_shallow_half() -> None:
    view, images, _ = shallow()
    blind = replace(view, server=None, gradient=None, update=None, labels=None)
    found = ATTACKS["white-box"](blind, means(iterations=500))
    assert nearness(images, found.images) >= 0.9 > nearness(images, means().prior.expand(2, -1, -1, -1).numpy()) + 0.1


def test_the_adaptive_attack_sees_through_space_to_depth_and_map() -> None:
    view, images, _ = perturbed()
    naive = ATTACKS["white-box"](view, means(iterations=400, reading=READINGS["folded"]))
    found = ATTACKS["adaptive"](view, means(iterations=400))
    assert nearness(images, found.images) >= 0.9
    assert nearness(images, found.images) > nearness(images, naive.images) + 0.05


def test_a_map_of_single_pixels_is_shared_out_by_smoothness() -> None:
    """Subtracting its mean leaves a pattern; moving images and map together leaves less."""
    images = 0.8 * pictures(2, "own") - 0.15
    change = torch.zeros_like(images).bernoulli_(0.05, generator=torch.Generator().manual_seed(0))
    inputs = folded(images + 0.9 * change, 0.9 * change)
    client = fresh(FOLDED, 0, "client")
    view = exchange(inputs, client, FOLDED)
    simple, joint = (ATTACKS[name](view, means(iterations=400)) for name in ("adaptive", "adaptive-joint"))
    assert nearness(images, joint.images) > nearness(images, simple.images) + 0.03


def test_the_client_input_gives_the_image_exactly() -> None:
    _, images, inputs = perturbed()
    torch.testing.assert_close(unfolded(inputs), images)
    for reading in READINGS.values():
        assert torch.equal(reading.show(reading.lift(images)), images)
        assert float(reading.amiss(reading.lift(images))) == 0
    assert float(READINGS["adaptive"].amiss(-inputs)) > 0
    assert float(READINGS["joint"].amiss(-torch.cat([images, images + 1], dim=1))) > 0
    assert torch.equal(READINGS["joint"].enter(READINGS["joint"].lift(images)), folded(images))


@pytest.mark.parametrize(("name", "steps"), [("decoder", 100), ("unsplit", 20), ("fsha", 200)])
def test_what_learns_beats_the_prior(name: str, steps: int) -> None:
    view, images, client = shallow(train=True, n=4, width=8, size=16)
    known = everything(client, view, images, iterations=steps)
    found = torch.from_numpy(ATTACKS[name](view, known).images)
    assert float((found - images).square().mean()) < 0.8 * float((known.prior - images).square().mean())


def test_gradients_at_the_cut_and_updates_are_fitted() -> None:
    view, images, client = shallow()
    for name in ("dlg", "inverting-gradients", "client-update"):
        found = ATTACKS[name](view, everything(client, view, images, iterations=60))
        assert found.loss < 0.8 * found.curve[0], name
    hidden = ATTACKS["dlg"](replace(view, labels=None), everything(client, view, images, iterations=30))
    assert hidden.loss < hidden.curve[0]


def test_the_true_images_fit_everything() -> None:
    view, images, client = shallow(train=True)
    for name in ("dlg", "inverting-gradients", "client-update", "white-box"):
        preset = replace(MATCHING[name], start="prior", iterations=1)
        found = match(view, replace(everything(client, view, images), prior=images), preset)
        assert max(value for term, value in found.terms.items() if term not in ("total-variation", "box")) < 1e-6


@pytest.mark.parametrize(
    ("name", "lost", "said"),
    [
        ("white-box", {"client": None}, "weights are not in the view"),
        ("dlg", {"gradient": None}, "cut-l2 was not observed"),
        ("dlg", {"server": None}, "server half is not in the view"),
        ("client-update", {"update": None}, "update-cosine was not observed"),
    ],
)
def test_what_the_view_lacks_is_said(name: str, lost: dict[str, None], said: str) -> None:
    view, _, _ = shallow()
    with pytest.raises(ProbeError, match=said):
        ATTACKS[name](replace(view, **lost), means())  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("name", "lost", "said"),
    [
        ("decoder", {}, "queries"),
        ("decoder", {"query": lambda x: x, "public": None}, "auxiliary images"),
        ("fsha", {}, "session"),
    ],
)
def test_what_the_attacker_lacks_is_said(name: str, lost: dict[str, object], said: str) -> None:
    view, _, _ = shallow()
    with pytest.raises(ProbeError, match=said):
        ATTACKS[name](view, replace(means(), **lost))  # type: ignore[arg-type]


def test_odd_networks_are_refused() -> None:
    with pytest.raises(ProbeError, match="power of two"):
        Decoder(4, 12, (1, 32, 32))
    with pytest.raises(ProbeError, match="Bilinear"):
        fresh(lambda: nn.Bilinear(2, 2, 2), 0, "odd")
