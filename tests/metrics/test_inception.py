"""The real Inception path, on randomly initialised weights: their values mean nothing, all code that runs is FID's."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from pytorch_fid import inception as reference
from torch import Tensor

from fedsec.errors import ConfigError
from fedsec.metrics.features import Extractor
from fedsec.metrics.inception import WEIGHTS, _network, find_fid_weights, inception_extractor
from fedsec.types import Images


def random_weights() -> dict[str, Tensor]:
    """A state dict of FID's Inception with weights that keep the scale of what flows through."""
    rng = torch.Generator().manual_seed(0)
    state = {}
    for name, value in _network().state_dict().items():
        fan_in = max(1, value[0].numel()) if value.ndim > 1 else 1
        if name.endswith(("running_var", "bn.weight")):
            state[name] = torch.ones(value.shape)
        elif value.ndim > 1:
            state[name] = torch.randn(value.shape, generator=rng) * (2 / fan_in) ** 0.5
        else:
            state[name] = torch.zeros(value.shape, dtype=value.dtype)
    return state


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("inception") / "weights.pth"
    torch.save(random_weights(), path)
    return path


@pytest.fixture(scope="module")
def extractor(weights: Path) -> Extractor:
    return inception_extractor(weights, batch=2)


def images(n: int, channels: int) -> Images:
    levels = np.random.default_rng(0).integers(0, 256, (n, channels, 32, 32))
    return (levels / 127.5 - 1).astype(np.float32)


def test_gives_the_numbers_of_pytorch_fid(extractor: Extractor, weights: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    state = torch.load(weights, weights_only=True)
    monkeypatch.setattr(reference, "load_state_dict_from_url", lambda *_, **__: state)
    theirs = reference.InceptionV3().eval()
    shown = images(2, 3)
    with torch.no_grad():
        expected = theirs(torch.from_numpy(shown + 1) / 2)[0].flatten(1).numpy()
    found = extractor(shown)
    assert extractor.name == "fid"
    assert found.shape == (2, 2048)
    assert np.ptp(expected) > 0.1
    np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-3 * np.abs(expected).max())


def test_gray_images_are_shown_on_three_channels(extractor: Extractor) -> None:
    gray = images(1, 1)
    np.testing.assert_array_equal(extractor(gray), extractor(np.repeat(gray, 3, axis=1)))


def test_a_given_file_is_found(weights: Path) -> None:
    assert find_fid_weights(str(weights)) == weights


def test_the_cache_is_used_when_it_is_there(weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    assert find_fid_weights("") is None
    (tmp_path / "checkpoints").mkdir()
    cached = tmp_path / "checkpoints" / WEIGHTS
    cached.symlink_to(weights)
    assert find_fid_weights("") == cached


def test_a_file_without_batch_counters_is_accepted(tmp_path: Path) -> None:
    old = {k: v for k, v in random_weights().items() if not k.endswith("num_batches_tracked")}
    torch.save(old, tmp_path / "old.pth")
    assert find_fid_weights(str(tmp_path / "old.pth"))
    assert inception_extractor(tmp_path / "old.pth")(images(1, 3)).shape == (1, 2048)


def test_a_missing_file_names_the_key_and_the_remedy(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"measure\.fid-weights = .*nowhere.*no such file; give pytorch-fid's"):
        find_fid_weights(str(tmp_path / "nowhere.pth"))
    with pytest.raises(ConfigError, match="no such file"):
        find_fid_weights(str(tmp_path))


@pytest.mark.parametrize("content", [b"", b"not weights at all", b"PK\x03\x04 truncated"])
def test_a_broken_file_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "broken.pth"
    path.write_bytes(content)
    with pytest.raises(ConfigError, match="cannot be read as weights"):
        find_fid_weights(str(path))


def test_a_truncated_download_is_refused(tmp_path: Path, weights: Path) -> None:
    path = tmp_path / "half.pth"
    path.write_bytes(weights.read_bytes()[:1_000_000])
    with pytest.raises(ConfigError, match="delete a broken download"):
        find_fid_weights(str(path))


def test_code_in_a_file_is_not_run(tmp_path: Path) -> None:
    class Trap:
        def __reduce__(self) -> tuple[object, ...]:
            return (Path.touch, (tmp_path / "sprung",))

    torch.save({"fc.weight": Trap()}, tmp_path / "trap.pth")
    with pytest.raises(ConfigError, match="cannot be read as weights"):
        find_fid_weights(str(tmp_path / "trap.pth"))
    assert not (tmp_path / "sprung").exists()


def test_another_network_is_refused(tmp_path: Path) -> None:
    state = random_weights()
    state["fc.weight"] = torch.zeros(1000, 2048)  # torchvision's own Inception
    torch.save(state, tmp_path / "other.pth")
    with pytest.raises(ConfigError, match=r"not FID's Inception: 1 of \d+ tensors .*fc\.weight"):
        find_fid_weights(str(tmp_path / "other.pth"))
    torch.save([1, 2], tmp_path / "list.pth")
    with pytest.raises(ConfigError, match="not FID's Inception"):
        find_fid_weights(str(tmp_path / "list.pth"))
