from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from fedsec.images import to_images, to_pixels
from fedsec.metrics import features
from fedsec.metrics.features import NETWORKS, Extractor, domain_extractor, kept_extractor
from fedsec.metrics.fidelity import FIDELITY
from fedsec.metrics.utility import auc
from fedsec.models.classifier import FEATURES
from fedsec.models.fitting import fit_classifier, probabilities
from fedsec.types import Images
from tests.metrics.samples import lesions

TRAIN = lesions(300, "train")


@pytest.fixture(scope="module")
def extractor() -> Extractor:
    return domain_extractor(TRAIN, classes=2, seed=0, steps=25, batch=32)


def test_is_never_called_fid(extractor: Extractor) -> None:
    assert extractor.name == "frechet-domain"


def test_features_are_standardised_on_the_real_training_images(extractor: Extractor) -> None:
    features = extractor(to_images(TRAIN.pixels))
    assert features.shape == (300, FEATURES * NETWORKS)
    assert features.dtype == np.float64
    np.testing.assert_allclose(features.mean(axis=0), 0, atol=1e-5)
    assert features.std(axis=0).max() == pytest.approx(1, rel=1e-4)


def test_the_kept_extractor_is_the_one_that_was_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The networks are trained with channels last; what is kept must not depend on how they lie in memory."""
    path, images = tmp_path / "extractor.safetensors", to_images(TRAIN.pixels[:50])
    made = kept_extractor(path, TRAIN, classes=2, seed=0, steps=3)
    monkeypatch.setattr(features, "domain_extractor", None)  # from here on it must come from the file
    kept = kept_extractor(path, TRAIN, classes=2, seed=0)
    np.testing.assert_allclose(kept(images), made(images), atol=1e-4)


def test_a_damaged_extractor_is_made_again(tmp_path: Path) -> None:
    path = tmp_path / "extractor.safetensors"
    path.write_bytes(b"not an extractor")
    made = kept_extractor(path, TRAIN, classes=2, seed=0, steps=3)
    np.testing.assert_allclose(kept_extractor(path, TRAIN, classes=2, seed=0)(made_of()), made(made_of()), atol=1e-4)


def made_of() -> Images:
    return to_images(TRAIN.pixels[:9])


def test_one_image_has_one_answer(extractor: Extractor) -> None:
    """Neither the other images of its batch nor the batch's size change an image's features."""
    images = to_images(TRAIN.pixels[:20])
    small = Extractor(extractor.name, extractor.network, extractor.mean, extractor.deviation, 3)
    np.testing.assert_allclose(extractor(images)[7:9], extractor(images[7:9]), atol=1e-4)
    np.testing.assert_allclose(extractor(images), small(images), atol=1e-4)


def test_images_are_measured_as_they_are_stored(extractor: Extractor) -> None:
    rng = np.random.default_rng(0)
    generated: Images = rng.uniform(-1.1, 1.1, (6, 3, 32, 32)).astype(np.float32)
    np.testing.assert_allclose(extractor(generated), extractor(to_images(to_pixels(generated))), atol=1e-4)


def test_a_non_finite_image_has_nan_features_and_spoils_no_other(extractor: Extractor) -> None:
    images = to_images(TRAIN.pixels[:5])
    broken = images.copy()
    broken[2, 0, 3, 3] = np.nan
    broken[4, 1, 0, 0] = np.inf
    features = extractor(broken)
    np.testing.assert_array_equal(np.isnan(features).all(axis=1), [False, False, True, False, True])
    np.testing.assert_allclose(features[[0, 1, 3]], extractor(images)[[0, 1, 3]], atol=1e-4)


def test_the_distance_grows_with_damage(extractor: Extractor) -> None:
    real = extractor(to_images(TRAIN.pixels))
    other = to_images(lesions(300, "other").pixels)
    rng = np.random.default_rng(0)

    def distance(images: Images) -> float:
        return FIDELITY["frechet-domain"](real, extractor(images)).value

    noisy = [np.clip(other + rng.normal(0, s, other.shape), -1, 1).astype(np.float32) for s in (0.1, 0.3)]
    collapsed = np.repeat(other[:2], 150, axis=0)
    values = [distance(other), distance(noisy[0]), distance(noisy[1])]
    assert values == sorted(values)
    assert distance(collapsed) > 5 * values[0]


@pytest.mark.parametrize("channels", [1, 3])
def test_a_fit_is_repeatable_and_leaves_the_global_generator_alone(channels: int) -> None:
    rows = lesions(40, "repeat", channels=channels)
    before = torch.get_rng_state()
    fits = [fit_classifier(rows, classes=2, steps=4, seed=seed, batch=16, width=8) for seed in (0, 0, 1)]
    assert torch.equal(torch.get_rng_state(), before)
    first, again, other = ([value.clone() for value in net.state_dict().values()] for net in fits)
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    assert not all(torch.equal(a, b) for a, b in zip(first, other, strict=True))
    assert not fits[0].training


def test_a_fit_does_not_depend_on_the_global_seed() -> None:
    rows = lesions(40, "repeat")
    with torch.random.fork_rng(devices=[]):
        nets = []
        for seed in (1, 2):
            torch.manual_seed(seed)
            nets.append(fit_classifier(rows, classes=2, steps=2, seed=0, batch=8, width=8))
    images = to_images(rows.pixels[:4])
    np.testing.assert_array_equal(probabilities(nets[0], images), probabilities(nets[1], images))


def test_probabilities_sum_to_one() -> None:
    net = fit_classifier(lesions(40, "repeat"), classes=3, steps=2, seed=0, batch=8, width=8)
    shares = probabilities(net, to_images(lesions(9, "p").pixels))
    assert shares.shape == (9, 3)
    np.testing.assert_allclose(shares.sum(axis=1), 1, rtol=1e-12)


def test_a_rare_class_is_drawn_as_often_unless_weights_say_otherwise() -> None:
    """All images look alike, so that a fitted net can only learn how often each class is drawn."""
    pixels = np.full((40, 16, 16, 1), 90, np.uint8)
    labels = (np.arange(40) == 0).astype(np.int64)
    alike = type(TRAIN)(pixels, labels)

    def share(weights: np.ndarray[tuple[int], np.dtype[np.float64]] | None) -> float:
        net = fit_classifier(alike, classes=2, steps=60, seed=0, batch=32, lr=1e-2, weights=weights, width=4)
        return float(probabilities(net, to_images(pixels[:1]))[0, 1])

    assert share(None) == pytest.approx(0.5, abs=0.15)
    assert share(np.ones(40)) < 0.2


def test_a_fit_learns() -> None:
    test = lesions(200, "test")
    net = fit_classifier(TRAIN, classes=2, steps=40, seed=0, batch=32, width=16)
    assert auc(test.labels, probabilities(net, to_images(test.pixels))) > 0.8
