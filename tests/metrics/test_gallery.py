"""Identification among public images: the right one is found, and a ruined network says nothing."""

from __future__ import annotations

import math

import numpy as np
import torch

from fedsec.images import to_images
from fedsec.metrics.gallery import Gallery
from fedsec.metrics.iip import OTHERS
from fedsec.models.networks import NetworkSpec, new_network
from fedsec.types import Rows


def rows(count: int, seed: int) -> Rows:
    pixels = np.random.default_rng(seed).integers(0, 256, (count, 32, 32, 1), dtype=np.uint8)
    return Rows(pixels, np.zeros(count, np.int64))


def test_the_image_itself_is_identified_and_a_network_that_noise_has_ruined_has_no_say() -> None:
    truth, network = rows(3, 1), new_network(NetworkSpec("convnet"), seed=0).eval()
    gallery = Gallery.of(rows(OTHERS + 1, 2))
    sound = gallery.scores(truth, to_images(truth.pixels), network)
    assert sound["iip-pixels"] == sound["iip-features"] == 1
    assert 0 < sound["iip-chance"] < 0.01
    with torch.no_grad():
        next(network.parameters()).fill_(float("nan"))
    ruined = gallery.scores(truth, to_images(truth.pixels), network)
    assert ruined["iip-pixels"] == 1
    assert math.isnan(ruined["iip-features"])
    assert gallery.scores(Rows(truth.pixels, np.ones(3, np.int64)), to_images(truth.pixels), network) == {}
