"""Names of the measures of reconstructions: the keys of logs and results, and what tables call them.

A key states its setting, since numbers of two settings are not comparable. ``OLD_SSIM`` is what logs held before
``SSIM``: it is still read, under its own heading, and never stands in a column, mean or difference of the new one.
"""

from __future__ import annotations

from collections.abc import Collection

SSIM = "ssim-gauss11"
"""Wang et al. 2004 on [0, 1], Gaussian window of 11: ``fedsec.metrics.similarity.ssim``."""
OLD_SSIM = "ssim"
"""Of older logs: uniform window of 7 on [-1, 1], where brightness weighs otherwise."""
HEADINGS = {
    SSIM: "SSIM (Gaussian 11, [0, 1])",
    OLD_SSIM: "SSIM on [-1, 1], not comparable",
    "psnr": "PSNR, dB",
    "rdlv": "RDLV",
    "iip": "identified",
    "iip-pixels": "identified by pixels",
    "iip-features": "identified by features",
}
"""Key -> what a table or sentence calls it."""


def ssim_of(keys: Collection[str]) -> str:
    """Which SSIM a row with these ``keys`` holds: ``OLD_SSIM`` where it has that alone, else ``SSIM``."""
    return OLD_SSIM if OLD_SSIM in keys and SSIM not in keys else SSIM
