"""One image is divided out of a perceptron's update, whatever else attacks can do."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from clients.classifier import ClassifierClient
from fedsec.datasets.phantom import draw
from fedsec.errors import ProbeError
from fedsec.images import to_images
from fedsec.models.networks import new_network
from fedsec.models.state import network_arrays
from fedsec.probes.audit import ATTACKS, Means
from fedsec.probes.view import Recipe, ServerView
from fedsec.types import Rows

RECIPE = Recipe(network="perceptron", norm="none", size=32)


def round_of(recipe: Recipe, images: int = 1) -> tuple[ServerView, Rows]:
    own = Rows(draw("chest", images, 32, seed=0).pixels, np.arange(images) % 2)
    client = ClassifierClient(recipe, own, partition=0, seed=0)
    client.fit(list(network_arrays(new_network(recipe.spec, seed=1)).values()), {"round": 1})
    assert client.captured is not None
    return client.captured, own


def attacked(view: ServerView) -> np.ndarray:
    images, _ = ATTACKS["first-layer"](view, Means(np.zeros((1, 1, 32, 32), np.float32), None, 0))
    return images


@pytest.mark.parametrize("norm", ["none", "layer", "group", "frozen"])
@pytest.mark.parametrize(("steps", "momentum"), [(1, 0.0), (5, 0.0), (5, 0.9)])
def test_the_image_is_recovered(norm: str, steps: int, momentum: float) -> None:
    view, own = round_of(replace(RECIPE, norm=norm, steps=steps, momentum=momentum))  # type: ignore[arg-type]
    np.testing.assert_allclose(attacked(view), to_images(own.pixels), atol=2e-3)


def test_what_cannot_be_divided_is_refused_with_the_reason() -> None:
    with pytest.raises(ProbeError, match="2 images are mixed"):
        attacked(round_of(replace(RECIPE, batch=2), images=2)[0])
    with pytest.raises(ProbeError, match="begins with a convolution"):
        attacked(round_of(replace(RECIPE, network="convnet"))[0])
    view, _ = round_of(RECIPE)
    with pytest.raises(ProbeError, match="did not move"):
        attacked(replace(view, after=view.before))
