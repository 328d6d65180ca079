"""The ladder: where statistics come from, and what each rung matches."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from fedsec.errors import ProbeError
from fedsec.probes import ladder
from fedsec.probes.inversion import invert
from fedsec.probes.ladder import RUNGS, SOURCES, climb, without_statistics
from fedsec.probes.presets import Preset
from fedsec.probes.terms import Observed
from fedsec.reports.sources import LEAKS
from fedsec.types import Images
from tests.probes.rounds import SMALL, Round, images_of, trained

TINY = replace(SMALL, size=16)


@pytest.fixture(scope="module")
def done() -> Round:
    return trained(TINY, batch=2)


def public(done: Round) -> Images:
    return images_of(done.view.recipe, 6, "public").numpy()


def prior(done: Round) -> Images:
    mean: Images = public(done).mean(axis=0, keepdims=True)
    return mean


@pytest.mark.parametrize("name", SOURCES)
def test_every_source_has_a_pair_for_every_layer_and_repeats_itself(name: str, done: Round) -> None:
    one, same = (SOURCES[name](done.view, done.replica, public(done), 0) for _ in range(2))
    assert [tuple(mean.shape) for mean, _ in one] == [(32,), (64,), (128,)]
    for (mean, var), (again, var_again) in zip(one, same, strict=True):
        assert torch.equal(mean, again)
        assert torch.equal(var, var_again)
        assert (var > 0).all()


def test_what_was_sent_is_the_batchs_own(done: Round) -> None:
    for (mean, var), (true_mean, true_var) in zip(
        SOURCES["sent"](done.view, done.replica, public(done), 0), done.seen[0], strict=True
    ):
        torch.testing.assert_close(mean, true_mean, rtol=1e-3, atol=1e-5)
        torch.testing.assert_close(var, true_var, rtol=1e-3, atol=1e-5)
    with pytest.raises(ProbeError, match="take a rung without"):
        SOURCES["sent"](without_statistics(done.view), done.replica, public(done), 0)


def test_the_other_sources_know_nothing_of_the_batch(done: Round) -> None:
    """They are the same for any client that was sent the same model."""
    stranger = replace(done.view, after=done.view.before)
    for name in ("global", "proxy", "random"):
        one, other = (SOURCES[name](view, done.replica, public(done), 0) for view in (done.view, stranger))
        assert all(
            torch.equal(a, b) for pair, same in zip(one, other, strict=True) for a, b in zip(pair, same, strict=True)
        )


def test_proxy_is_the_mean_over_batches_of_the_clients_size(done: Round) -> None:
    images = torch.from_numpy(public(done))
    with torch.no_grad():
        seen = [done.replica.logits(done.replica.weights, images[k : k + 2])[1] for k in (0, 2, 4)]
    found = SOURCES["proxy"](done.view, done.replica, public(done), 0)
    torch.testing.assert_close(found[2][1], torch.stack([layers[2][1] for layers in seen]).mean(0))
    with pytest.raises(ProbeError, match="at least one batch of 2"):
        SOURCES["proxy"](done.view, done.replica, public(done)[:1], 0)


def test_random_statistics_are_the_global_ones_shuffled() -> None:
    done = trained(TINY, steps=2, lr=0.1)
    used = replace(done.view, before=done.view.after)
    plain, shuffled = (SOURCES[name](used, done.replica, public(done), 0) for name in ("global", "random"))
    for (mean, var), (other, other_var) in zip(plain, shuffled, strict=True):
        assert not torch.equal(mean, other)
        order = torch.argsort(mean)[torch.argsort(torch.argsort(other))]
        torch.testing.assert_close(mean[order], other)
        torch.testing.assert_close(var[order], other_var)


@pytest.mark.parametrize("name", RUNGS)
def test_every_rung_matches_what_it_says_and_the_budget_is_one(
    name: str, done: Round, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[tuple[Preset, Observed]] = []

    def look(replica: object, observed: Observed, preset: Preset, **rest: object) -> object:
        asked.append((preset, observed))
        return invert(replica, observed, preset, **rest)  # type: ignore[arg-type]

    monkeypatch.setattr(ladder, "invert", look)
    rung = RUNGS[name]
    if rung.maps:  # a batch of two has more positions than this network has channels
        with pytest.raises(ProbeError, match="not attempted: no layer"):
            climb(name, done.view, prior=prior(done), public=public(done), seed=0, iterations=3)
        assert not asked
        return
    images, _ = climb(name, done.view, prior=prior(done), public=public(done), seed=0, iterations=3)
    assert images.shape == tuple(done.images.shape)
    if not asked:
        assert name == "prior-only"
        np.testing.assert_array_equal(images, np.repeat(prior(done), 2, axis=0))
        return
    ((preset, observed),) = asked
    assert preset.iterations == 3
    assert ("statistics" in preset.terms) == bool(rung.statistics) == bool(observed.moments)
    assert ("update-layers" in preset.terms) == rung.update
    assert "maps" not in preset.terms
    assert observed.maps is None


def test_every_leak_is_a_difference_of_two_rungs_that_differ() -> None:
    for name, (one, other) in LEAKS.items():
        assert RUNGS[one] != RUNGS[other], name


def test_maps_are_read_with_and_without_statistics() -> None:
    done = trained(replace(SMALL, size=32))
    base = images_of(done.view.recipe, 4, "public").mean(dim=0, keepdim=True).numpy()
    for name in ("maps-only", "maps+bn"):
        _, told = climb(name, done.view, prior=base, public=base, seed=0, iterations=2)
        assert told["maps"] > 0
