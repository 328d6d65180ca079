"""Our scores against other people's code: torch-fidelity, torchmetrics, piq. Where definitions differ, it is said."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from piq import psnr as piq_psnr
from piq import ssim as piq_ssim
from torch_fidelity.metric_fid import fid_features_to_statistics, fid_statistics_to_metric
from torch_fidelity.metric_kid import kernel_poly, mmd2
from torch_fidelity.metric_prc import prc_features_to_metric
from torchmetrics.functional.image import structural_similarity_index_measure
from torchmetrics.image.fid import _compute_fid
from torchmetrics.image.kid import poly_mmd

from fedsec.images import to_images
from fedsec.metrics.coverage import precision_share, recall_share
from fedsec.metrics.frechet import frechet_distance
from fedsec.metrics.kid import kid_distance
from fedsec.metrics.similarity import psnr, ssim
from fedsec.seeds import stream
from fedsec.types import Features, Images
from tests.metrics.samples import gaussian, lesions


def pairs(channels: int, size: int) -> tuple[Images, Images]:
    """Three pictures in [-1, 1] and what a middling attack makes of them."""
    truth = to_images(lesions(3, "truth", channels=channels, size=size).pixels)
    noise = stream(0, "reference", channels, size).normal(0, 0.2, truth.shape)
    return truth, np.clip(0.8 * truth + 0.1 + noise, -1, 1).astype(np.float32)


def on_unit(images: Images) -> torch.Tensor:
    return (torch.from_numpy(images).double() + 1) / 2


def correlated(n: int, d: int, *address: str) -> Features:
    return gaussian(n, d, *address) @ gaussian(d, d, "mixing", *address) + 0.3


@pytest.mark.parametrize(("channels", "size"), [(1, 32), (3, 32), (1, 64)])
def test_ssim_is_torchmetrics_and_piqs(channels: int, size: int) -> None:
    """piq's default halves images of 512 px and more, which the paper does not: off. torchmetrics' mean is over windows
    that reach beyond the border too, mirrored there: of its map the windows inside are taken, as in the paper."""
    truth, other = pairs(channels, size)
    _, theirs = structural_similarity_index_measure(
        on_unit(other), on_unit(truth), reduction="none", data_range=1.0, return_full_image=True
    )
    inside = theirs[..., 5:-5, 5:-5].mean(dim=(1, 2, 3))
    np.testing.assert_allclose(ssim(truth, other), np.asarray(inside), atol=1e-6)
    found = piq_ssim(on_unit(other), on_unit(truth), data_range=1.0, reduction="none", downsample=False)
    np.testing.assert_allclose(ssim(truth, other), np.asarray(found), atol=1e-6)


@pytest.mark.parametrize("channels", [1, 3])
def test_psnr_is_piqs(channels: int) -> None:
    """Of [0, 1] with data range 1, or of [-1, 1] with 2: the same. piq adds 1e-8 to the error."""
    truth, other = pairs(channels, 32)
    found = piq_psnr(on_unit(other), on_unit(truth), data_range=1.0, reduction="none")
    np.testing.assert_allclose(psnr(truth, other), np.asarray(found), rtol=1e-6)


@pytest.mark.parametrize(("n", "m", "d"), [(60, 60, 8), (90, 40, 8), (300, 200, 24)])
def test_frechet_is_torch_fidelitys_and_torchmetrics(n: int, m: int, d: int) -> None:
    """Theirs takes eigenvalues of a product of covariances: samples larger than the dimension, where they are sound."""
    x, y = correlated(n, d, "x"), correlated(m, d, "y")
    stats = [fid_features_to_statistics(torch.from_numpy(sample)) for sample in (x, y)]
    theirs = fid_statistics_to_metric(*stats, verbose=False)["frechet_inception_distance"]
    assert frechet_distance(x, y) == pytest.approx(theirs, rel=1e-8)
    moments = [torch.from_numpy(part) for stat in stats for part in (stat["mu"], stat["sigma"])]
    assert frechet_distance(x, y) == pytest.approx(float(_compute_fid(*moments)), rel=1e-8)


def test_kid_is_theirs_where_both_samples_are_of_one_size() -> None:
    """They average over subsets of one size; of the whole sample it is our number. Unequal sizes: test_kid."""
    x, y = correlated(80, 6, "x"), correlated(80, 6, "y")
    kernels = [
        kernel_poly(a, b, kid_kernel_poly_degree=3, kid_kernel_poly_coef0=1) for a, b in ((x, x), (x, y), (y, y))
    ]
    assert kid_distance(x, y) == pytest.approx(float(mmd2(*kernels)), rel=1e-9)
    assert kid_distance(x, y) == pytest.approx(float(poly_mmd(torch.from_numpy(x), torch.from_numpy(y))), rel=1e-9)


@pytest.mark.parametrize(("n", "m", "d"), [(50, 50, 4), (120, 70, 6)])
def test_precision_and_recall_are_torch_fidelitys(n: int, m: int, d: int) -> None:
    real, fake = gaussian(n, d, "real"), 1.3 * gaussian(m, d, "fake") + 0.4
    theirs = prc_features_to_metric(
        torch.from_numpy(fake), torch.from_numpy(real), prc_neighborhood=3, prc_batch_size=1000, verbose=False
    )
    assert precision_share(real, fake) == pytest.approx(theirs["precision"], abs=1e-6)
    assert recall_share(real, fake) == pytest.approx(theirs["recall"], abs=1e-6)
    assert 0.1 < precision_share(real, fake) < 0.95, "a test of numbers in between"
