"""How an attack is put together from what an update gave away."""

from __future__ import annotations

import numpy as np
import pytest

from fedsec.errors import ProbeError
from fedsec.probes.audit import ATTACKS, MAPPED, Means, _smoothed
from fedsec.probes.presets import PRESETS
from tests.probes.rounds import SMALL, trained


def test_smoothness_and_statistics_weigh_more_where_a_map_says_less() -> None:
    view, preset = trained(SMALL).view, PRESETS["row-space"]
    pixels = SMALL.channels * SMALL.size**2
    assert _smoothed(preset, values=MAPPED * pixels, view=view) == preset
    assert _smoothed(preset, values=100 * pixels, view=view) == preset, "never less than the preset's own"
    sparse = _smoothed(preset, values=pixels, view=view)
    assert sparse.terms["total-variation"] == MAPPED * preset.terms["total-variation"]
    assert sparse.terms["statistics"] == MAPPED**2 * preset.terms["statistics"]
    assert sparse.terms["maps"] == preset.terms["maps"]
    several = _smoothed(preset, values=pixels, view=trained(SMALL, steps=2).view)
    assert several.terms["statistics"] == preset.terms["statistics"], "given moments hold the contrast"


def test_a_rung_that_needs_public_images_says_so_where_there_are_none() -> None:
    done = trained(SMALL)
    with pytest.raises(ProbeError, match="0 public images"):
        ATTACKS["proxy"](done.view, Means(np.zeros((1, 1, 32, 32), np.float32), None, 0, 2))
