"""Inversions of real updates: each preset runs and repeats itself, and what is no update gives no image."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from fedsec.errors import ProbeError
from fedsec.metrics.similarity import ssim
from fedsec.probes.inversion import PRESETS, Canvas, Preset, Reconstruction, invert
from fedsec.probes.replica import Replica
from fedsec.probes.rowspace import recovered_maps
from fedsec.probes.terms import TERMS, Observed, observe
from fedsec.seeds import address_seed
from fedsec.types import Images
from tests.probes.rounds import SMALL, Round, disturbed, images_of, trained
from tests.recordable import checked

TINY = replace(SMALL, size=16)


@pytest.fixture(scope="module")
def done() -> Round:
    return trained(TINY)


@pytest.fixture(scope="module")
def seen(done: Round) -> Observed:
    return observe(done.view, done.replica, next(recovered_maps(done.view, done.replica)))


def prior() -> Images:
    return images_of(TINY, 8, "public").mean(dim=0, keepdim=True).numpy()


def run(done: Round, seen: Observed, preset: Preset, iterations: int, **changes: object) -> Reconstruction:
    options: dict[str, object] = {"count": len(done.images), "labels": done.labels, "prior": prior(), "seed": 0}
    return invert(done.replica, seen, replace(preset, iterations=iterations), **{**options, **changes})  # type: ignore[arg-type]


@pytest.mark.parametrize("name", PRESETS)
def test_every_preset_runs_and_repeats_itself(name: str, done: Round, seen: Observed) -> None:
    drawn = torch.random.get_rng_state()
    one, same = (run(done, seen, PRESETS[name], 5) for _ in range(2))
    np.testing.assert_array_equal(one.images, same.images)
    assert one.curve == same.curve
    assert len(one.curve) == 5
    assert np.isfinite(one.curve).all()
    assert one.images.shape == tuple(done.images.shape)
    assert one.images.dtype == np.float32
    assert np.abs(one.images).max() <= 1
    assert set(one.terms) == set(PRESETS[name].terms) - {"group"}
    assert len(one.restarts) == PRESETS[name].restarts
    assert one.loss == min(one.restarts)
    assert one.loss == min(one.curve)
    assert one.loss == pytest.approx(sum(PRESETS[name].terms[term] * value for term, value in one.terms.items()))
    assert torch.equal(torch.random.get_rng_state(), drawn)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU on this machine")
@pytest.mark.parametrize("restarts", [1, 2])
@pytest.mark.parametrize("name", ["bn-update", "row-space", "inverting-gradients", "dlg"])
def test_on_cuda_replayed_iterations_are_the_plain_ones(
    name: str, restarts: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    done = trained(TINY)
    replica = Replica(done.view.recipe, done.view.before, device="cuda")
    seen = observe(done.view, replica, next(recovered_maps(done.view, replica)))
    preset = replace(PRESETS[name], iterations=4, restarts=restarts)
    options = {"count": len(done.images), "labels": done.labels, "prior": prior(), "seed": 0}
    replayed = invert(replica, seen, preset, **options)  # type: ignore[arg-type]
    monkeypatch.setattr("fedsec.probes.inversion.recorded", lambda function, device: function)
    plain = invert(replica, seen, preset, **options)  # type: ignore[arg-type]
    assert replayed.curve == pytest.approx(plain.curve, rel=1e-3)


@pytest.mark.parametrize("restarts", [1, 2])
@pytest.mark.parametrize("name", sorted(name for name, preset in PRESETS.items() if "group" not in preset.terms))
def test_an_iteration_can_be_recorded(
    name: str, restarts: int, done: Round, seen: Observed, monkeypatch: pytest.MonkeyPatch
) -> None:
    preset = replace(PRESETS[name], restarts=restarts)
    expected = run(done, seen, preset, 3)
    monkeypatch.setattr("fedsec.probes.inversion.recorded", checked)
    assert run(done, seen, preset, 3).curve == expected.curve


@pytest.mark.parametrize("preset", [PRESETS["row-space"], Preset("", {"update-cosine": 1.0})])
def test_the_loss_falls(preset: Preset, done: Round, seen: Observed) -> None:
    found = run(done, seen, preset, 60)
    assert found.loss < 0.8 * found.curve[0]
    assert found.curve[-1] < 0.9 * found.curve[0]


def test_maps_bring_the_image_nearer(done: Round, seen: Observed) -> None:
    truth = done.images.numpy()
    found = run(done, seen, PRESETS["row-space"], 150)
    assert ssim(truth, found.images)[0] > ssim(truth, prior())[0] + 0.05


def test_a_random_update_brings_no_image_nearer_and_the_true_one_does(done: Round) -> None:
    truth, noise = done.images.numpy(), disturbed(done.view, 1, alone=True)
    start, preset = ssim(truth, prior())[0], Preset("", {"update-layers": 1.0}, lr=0.02, start="prior")
    reached = {
        name: ssim(truth, run(done, observe(view, done.replica), preset, 60).images)[0] - start
        for name, view in (("true", done.view), ("random", noise))
    }
    assert reached["random"] < 0.005 < 0.01 < reached["true"], reached


def test_the_best_iterate_is_the_lowest_of_the_curve(done: Round, seen: Observed) -> None:
    """Started at the truth with too fast a rate, it is the first."""
    preset = Preset("", {"update-cosine": 1.0}, lr=0.5, start="prior")
    found = run(done, seen, preset, 5, prior=done.images.numpy())
    assert found.loss == found.curve[0] == min(found.curve) < 1e-4 < found.curve[-1]
    np.testing.assert_array_equal(found.images, done.images.numpy())


@pytest.mark.parametrize("name", [name for name, preset in PRESETS.items() if any("update" in t for t in preset.terms)])
def test_an_update_of_nan_has_no_inversion(name: str, done: Round, seen: Observed) -> None:
    broken = replace(seen, update={key: torch.full_like(value, torch.nan) for key, value in seen.update.items()})
    with pytest.raises(FloatingPointError, match="finite loss"):
        run(done, broken, PRESETS[name], 3)


@pytest.mark.parametrize("name", ["bn-only", "row-space"])
def test_nothing_observed_is_no_reason_to_draw_the_prior(name: str, done: Round, seen: Observed) -> None:
    with pytest.raises(ProbeError, match="was not observed"):
        run(done, Observed(seen.update), PRESETS[name], 3)
    with pytest.raises(ProbeError, match="any term"):
        run(done, seen, Preset(""), 3)


def test_priors_alone_are_a_choice(done: Round, seen: Observed) -> None:
    found = run(done, Observed(seen.update), Preset("", {"total-variation": 1.0}, start="prior"), 5)
    assert set(found.terms) == {"total-variation"}


def test_labels_that_are_not_known_are_found_beside_the_images(done: Round, seen: Observed) -> None:
    for name in ("inverting-gradients", "bn-only"):
        assert np.isfinite(run(done, seen, PRESETS[name], 3, labels=None).curve).all()


def test_any_kind_of_prior_and_a_word_each_iteration(done: Round, seen: Observed) -> None:
    said: list[tuple[int, float]] = []
    preset = PRESETS["bn-only"]
    one = run(done, seen, preset, 3, say=lambda *word: said.append(word))
    same = run(done, seen, preset, 3, prior=prior()[0].astype(np.float64))
    np.testing.assert_array_equal(one.images, same.images)
    assert said == list(zip((1, 2, 3), one.curve, strict=True))


@pytest.mark.parametrize("size", [15, 16])
def test_a_canvas_holds_the_images_it_was_given(size: int) -> None:
    images = torch.randn(2, 3, size, size, generator=torch.Generator().manual_seed(0))
    for pixels in ("pixels", "spectrum"):
        torch.testing.assert_close(Canvas(images, pixels).images(), images)


@pytest.mark.parametrize("chunk", [1, 2, None])
@pytest.mark.parametrize(
    "terms",
    [
        {"update-l2": 1.0, "statistics": 1.0, "group": 1.0},
        {"update-cosine": 1.0, "total-variation": 0.1},
        {"maps": 1.0, "box": 1.0},
    ],
)
def test_restarts_side_by_side_are_the_loops(
    terms: dict[str, float], chunk: int | None, done: Round, seen: Observed
) -> None:
    """However many go through the network at once, which bounds the memory, each ends where it would alone."""
    preset = Preset("", terms, restarts=3, lr=0.01, noise=0.1)
    loop, found = (run(done, seen, preset, 8, chunk=size) for size in (1, chunk))
    np.testing.assert_allclose(found.restarts, loop.restarts, rtol=1e-4)
    np.testing.assert_allclose(found.images, loop.images, atol=1e-3)
    np.testing.assert_allclose(found.curve, loop.curve, rtol=1e-4)


def test_a_restart_is_the_same_however_many_there_are(done: Round, seen: Observed) -> None:
    few, many = (run(done, seen, Preset("", {"update-cosine": 1.0}, restarts=n, lr=0.01), 4, chunk=1) for n in (1, 3))
    assert many.restarts[0] == few.loss
    assert len(set(many.restarts)) == 3
    assert many.loss == min(many.restarts)
    assert min(many.curve) == many.loss


@pytest.mark.parametrize("labels", [True, False])
def test_several_steps_and_images_of_several_restarts(labels: bool) -> None:
    done = trained(TINY, steps=2, batch=2, lr=0.1)
    preset = Preset("", {"update-l2": 1.0, "statistics": 1.0}, restarts=2, lr=0.01)
    told = done.labels if labels else None
    loop, found = (
        run(done, observe(done.view, done.replica), preset, 4, chunk=size, labels=told) for size in (1, None)
    )
    np.testing.assert_allclose(found.restarts, loop.restarts, rtol=1e-3)


def test_what_restarts_agree_on_draws_them_together(done: Round, seen: Observed) -> None:
    """A strong pull to the mean of two restarts, which starts at once, ends in what both are nearly."""
    preset = Preset("", {"total-variation": 1e-6, "group": 1.0}, restarts=2, lr=0.02, group_from=0.0)
    one, other = (images_at(done, seen, preset, weight) for weight in (1.0, 0.0))
    assert one < 0.2 * other


def images_at(done: Round, seen: Observed, preset: Preset, weight: float) -> float:
    """Distance of the best restart's images from the mean of the starts."""
    chosen = replace(preset, terms={**preset.terms, "group": weight})
    starts = [
        0.3 * torch.randn(done.images.shape, generator=torch.Generator().manual_seed(address_seed(0, *address)))
        for address in (("inversion",), ("inversion", 1))
    ]
    found = run(done, seen, chosen, 100, chunk=1)
    return float(np.square(found.images - torch.stack(starts).mean(dim=0).numpy()).mean())


def test_one_restart_agrees_with_itself(done: Round, seen: Observed) -> None:
    """The term has no part where there is nothing to compare, and alone it is nothing to hold images against."""
    alone, without = (run(done, seen, Preset("", {"update-cosine": 1.0, **group}), 4) for group in ({"group": 1.0}, {}))
    np.testing.assert_array_equal(alone.images, without.images)
    with pytest.raises(ProbeError, match="nothing to hold"):
        run(done, seen, Preset("", {"group": 1.0}, restarts=2), 3)


def test_every_preset_is_made_of_known_terms() -> None:
    for preset in PRESETS.values():
        assert set(preset.terms) <= set(TERMS)
        assert preset.source
