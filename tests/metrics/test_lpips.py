"""LPIPS with random weights: what any weights must give. Its values on the published ones need files nobody ships."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from fedsec.errors import MetricError
from fedsec.metrics.lpips import FEATURES, STAGES, Perceptual, PerceptualWeights, load_perceptual, perceptual_distance
from fedsec.seeds import stream
from fedsec.types import Images

Kept = dict[str, PerceptualWeights]


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> Kept:
    """Random weights of both networks, in the files' own names."""
    folder, rng, made = tmp_path_factory.mktemp("lpips"), torch.Generator().manual_seed(0), {}
    for name, build in FEATURES.items():
        backbone = {
            f"features.{key}": 0.05 * torch.randn(value.shape, generator=rng)
            for key, value in build().state_dict().items()
        }
        heads = {
            f"lin{k}.model.1.weight": torch.rand(1, count, 1, 1, generator=rng)
            for k, (_, count) in enumerate(STAGES[name])
        }
        torch.save({**backbone, "classifier.6.bias": torch.zeros(1000)}, folder / f"{name}.pth")
        torch.save(heads, folder / f"{name}-heads.pth")
        made[name] = PerceptualWeights(name, folder / f"{name}.pth", folder / f"{name}-heads.pth")  # type: ignore[arg-type]
    return made


def images(*address: str, n: int = 3, channels: int = 3) -> Images:
    return stream(0, "lpips", *address).uniform(-1, 1, (n, channels, 32, 32)).astype(np.float32)


@pytest.mark.parametrize("network", list(FEATURES))
def test_a_distance_is_zero_to_itself_symmetric_positive_and_blind_to_company(kept: Kept, network: str) -> None:
    distance = load_perceptual(kept[network])
    one, two = images("one"), images("two")
    assert distance(one, one).tolist() == [0, 0, 0]
    there, back = distance(one, two), distance(two, one)
    np.testing.assert_allclose(there, back, rtol=1e-6)
    assert (there > 1e-4).all()
    np.testing.assert_allclose(distance(one[1:2], two[1:2])[0], there[1], rtol=1e-4)
    np.testing.assert_allclose(distance(one, two, batch=2), there, rtol=1e-4)


def test_more_noise_is_farther_and_gray_counts_as_three_equal_channels(kept: Kept) -> None:
    distance = load_perceptual(kept["alex"])
    one, noise = images("one", channels=1), images("noise", channels=1)
    near, far = distance(one, one + 0.05 * noise), distance(one, one + 0.5 * noise)
    assert (near < far).all()
    three = distance(one.repeat(3, axis=1), (one + 0.5 * noise).repeat(3, axis=1))
    np.testing.assert_allclose(far, three, rtol=1e-5)


def test_the_distance_is_the_papers_sum_over_stages() -> None:
    """One stage by hand: features (1, 2) and (2, 1) of unit length sqrt 5, weights 1 and 3."""
    network = torch.nn.Sequential(torch.nn.Identity())
    distance = Perceptual.__new__(Perceptual)
    distance.network, distance.features, distance.heads = "alex", network, [torch.tensor([1.0, 3.0])]
    given = iter([[torch.tensor([1.0, 2.0]) / 5**0.5], [torch.tensor([2.0, 1.0]) / 5**0.5]])
    distance._stages = lambda images: [next(given)[0].reshape(1, 2, 1, 1)]  # type: ignore[method-assign]
    one = np.zeros((1, 3, 32, 32), np.float32)
    assert distance(one, one)[0] == pytest.approx((1 * 1 + 3 * 1) / 5)


def test_absent_weights_are_a_reason_never_a_zero(kept: Kept, tmp_path: Path) -> None:
    one = images("one")
    whole = kept["alex"]
    assert perceptual_distance(one, one, whole).value == 0
    assert perceptual_distance(one, images("two"), whole).name == "lpips-alex"
    lost = PerceptualWeights("alex", tmp_path / "none.pth", whole.heads)
    for weights, told in (
        (None, "no weights"),
        (lost, "no backbone at"),
        (PerceptualWeights("alex", whole.backbone, tmp_path / "none.pth"), "no linear weights at"),
        (PerceptualWeights("alex", kept["vgg"].backbone, whole.heads), "are not LPIPS weights of 'alex'"),
        (PerceptualWeights("alex", whole.backbone, kept["vgg"].heads), "are not LPIPS weights of 'alex'"),
    ):
        score = perceptual_distance(one, one, weights)
        assert np.isnan(score.value)
        assert told in score.reason


def test_a_file_that_holds_no_tensors_and_images_out_of_law_are_told(kept: Kept, tmp_path: Path) -> None:
    (tmp_path / "page.pth").write_text("<html>not found</html>")
    with pytest.raises(MetricError, match="is no file of tensors"):
        load_perceptual(PerceptualWeights("alex", tmp_path / "page.pth", kept["alex"].heads))
    distance, one = load_perceptual(kept["alex"]), images("one")
    with pytest.raises(MetricError, match="equal"):
        distance(one, one[:2])
    with pytest.raises(MetricError, match="sides of 32"):
        distance(one[:, :, :16], one[:, :, :16])
    broken = one.copy()
    broken[0, 0, 0, 0] = np.nan
    with pytest.raises(MetricError, match="not finite"):
        distance(one, broken)
    assert "no image" in perceptual_distance(one[:0], one[:0], kept["alex"]).reason


def test_loading_leaves_the_global_generator_alone(kept: Kept) -> None:
    before = torch.random.get_rng_state()
    load_perceptual(kept["alex"])
    assert torch.equal(before, torch.random.get_rng_state())
