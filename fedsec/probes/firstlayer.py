"""The image of a one-image round, where the first layer is linear with a bias: exact, by division.

The gradient by row i of the weights is ``delta_i x`` and by entry i of the bias ``delta_i``, whatever comes behind, so
that their quotient is the image (Phong et al. 2018, sec. 3; Geiping et al. 2020, prop. 3.1). Every SGD step on the same
image adds another multiple of it, so it holds for any number of steps, with momentum too. All rows are used, by least
squares: x = sum_i db_i dW_i / sum_i db_i^2. It is what an attack must do at least, and a check on all before it.
"""

from __future__ import annotations

import numpy as np

from fedsec.errors import ProbeError
from fedsec.models.networks import HIDDEN
from fedsec.probes.view import ServerView
from fedsec.types import Images


def first_layer(view: ServerView) -> Images:
    """(1, c, s, s) in the range that the client trained in. Raises ProbeError where the first layer is a convolution,
    for more than one image, or where its bias did not move."""
    weight, bias = (view.update.get(f"{HIDDEN}.{leaf}") for leaf in ("weight", "bias"))
    recipe = view.recipe
    if weight is None or bias is None:
        raise ProbeError(
            f"first-layer: {recipe.network!r} begins with a convolution; only a perceptron gives itself away"
        )
    if view.examples != 1:
        raise ProbeError(f"first-layer: {view.examples} images are mixed in every row; one image can be divided out")
    energy = float(bias @ bias)
    if not 0 < energy < np.inf:
        raise ProbeError("first-layer: the first bias did not move, or not by a number: there is nothing to divide by")
    image = (bias @ weight / energy).reshape(1, recipe.channels, recipe.size, recipe.size)
    return np.asarray(image, np.float32)
