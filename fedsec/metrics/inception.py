"""FID's own features: pytorch-fid's Inception-v3, from a weights file that is already here. Nothing is downloaded."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fedsec.errors import ConfigError
from fedsec.metrics.features import Extractor

WEIGHTS = "pt_inception-2015-12-05-6726825d.pth"
"""The file pytorch-fid 0.3 downloads; its last eight digits are its SHA-256's first."""
SIDE = 299
COUNTER = "num_batches_tracked"
"""BatchNorm's step counter: absent in files of old torch versions, unused in eval mode."""


def find_fid_weights(path: str) -> Path | None:
    """The Inception weights to use: ``path``, or with '' pytorch-fid's cached file, or None when there is neither.

    A file that is found is opened and compared with the network, so that a run can stop before it trains.
    Errors: ConfigError with the remedy when the file is missing, cannot be read, or holds another network.
    """
    if path:
        found = Path(path).expanduser()
        if not found.is_file():
            raise ConfigError(
                f"measure.fid-weights = {path!r}: no such file; give pytorch-fid's {WEIGHTS}, or '' for frechet-domain"
            )
    else:
        found = Path(torch.hub.get_dir()) / "checkpoints" / WEIGHTS
        if not found.is_file():
            return None
    _state(found)
    return found


def inception_extractor(weights: Path, *, batch: int = 32, device: str = "cpu") -> Extractor:
    """Pool features (2,048) of FID's Inception (Heusel et al. 2017), for ``fid``. Gray images become three channels.

    The same numbers as ``pytorch_fid.inception.InceptionV3``: bilinear to 299 px, input in [-1, 1]. About 0.3 s an
    image on one CPU thread. Errors: as ``find_fid_weights``.
    """
    network = InceptionPool(_state(weights)).requires_grad_(False).eval().to(device)
    return Extractor("fid", network, np.zeros(()), np.ones(()), batch)


class InceptionPool(nn.Module):
    """Images (n, 1 or 3, s, s) in [-1, 1] -> (n, 2048), the average pool before the last layer."""

    def __init__(self, state: dict[str, Tensor]) -> None:
        super().__init__()
        self.net = _network().to_empty(device="cpu")
        self.net.load_state_dict(state, strict=False)
        self.net.fc = nn.Identity()

    def forward(self, images: Tensor) -> Tensor:
        rgb = images.expand(-1, 3, -1, -1)
        pooled: Tensor = self.net(F.interpolate(rgb, size=(SIDE, SIDE), mode="bilinear", align_corners=False))
        return pooled


def _network() -> nn.Module:
    """FID's Inception on the meta device, patched as ``pytorch_fid.inception.fid_inception_v3`` does.

    That function always downloads, so its ten lines stand here again; a test holds both together. torchvision takes
    seconds to import and is needed only where weights exist, hence the import inside.
    """
    from pytorch_fid.inception import FIDInceptionA, FIDInceptionC, FIDInceptionE_1, FIDInceptionE_2
    from torchvision.models import inception_v3

    with torch.device("meta"):
        net: nn.Module = inception_v3(weights=None, num_classes=1008, aux_logits=False, init_weights=False)
        for name, channels, pool in (("5b", 192, 32), ("5c", 256, 64), ("5d", 288, 64)):
            setattr(net, f"Mixed_{name}", FIDInceptionA(channels, pool_features=pool))
        for name, middle in (("6b", 128), ("6c", 160), ("6d", 160), ("6e", 192)):
            setattr(net, f"Mixed_{name}", FIDInceptionC(768, channels_7x7=middle))
        net.Mixed_7b = FIDInceptionE_1(1280)
        net.Mixed_7c = FIDInceptionE_2(2048)
    return net


def _state(path: Path) -> dict[str, Tensor]:
    """The checked tensors of a weights file; never unpickles code."""
    remedy = f"give pytorch-fid's {WEIGHTS}, delete a broken download, or set it to '' for frechet-domain"
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a broken file raises anything from OSError to KeyError; all mean the same to the user
        raise ConfigError(
            f"measure.fid-weights: {path} cannot be read as weights ({error!r:.200}); {remedy}"
        ) from error
    wanted = {k: v.shape for k, v in _network().state_dict().items() if not k.endswith(COUNTER)}
    tensors = state if isinstance(state, dict) else {}
    given = {k: v.shape for k, v in tensors.items() if isinstance(v, Tensor) and not k.endswith(COUNTER)}
    wrong = sorted(k for k in wanted.keys() | given.keys() if wanted.get(k) != given.get(k))
    if wrong:
        raise ConfigError(
            f"measure.fid-weights: {path} is not FID's Inception: {len(wrong)} of {len(wanted)} tensors are missing, "
            f"unknown or of another shape ({', '.join(wrong[:3])}, ...); {remedy}"
        )
    return {k: v for k, v in tensors.items() if k in wanted}
