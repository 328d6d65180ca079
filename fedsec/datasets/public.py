"""Images of nobody's training: what an attacker may have, and what clients are scored on."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from fedsec.datasets.partitioning import held_by_nobody
from fedsec.images import to_images
from fedsec.seeds import stream
from fedsec.types import Dataset, Images, Indices, Rows


def public_rows(dataset: Dataset, parts: Sequence[Indices]) -> Rows:
    """Training images that no client of ``parts`` holds, by patient or lesion; none when all are given away."""
    return dataset.rows(held_by_nobody(dataset, parts))


def attacker_rows(dataset: Dataset, parts: Sequence[Indices]) -> Rows:
    """``public_rows``, or the held-out images where every training image belongs to a client. For attacks alone: a
    model that learnt from the second could not be tested on them."""
    rows = public_rows(dataset, parts)
    return rows if len(rows) else dataset.rows(dataset.test)


def held_share(dataset: Dataset, partition: int, clients: int) -> Rows:
    """Every ``clients``-th held-out image from the ``partition``-th on, in an order drawn by the data alone: nobody's
    twice, and the first of them are a fair sample. Whatever the split, each client has the same share."""
    order = stream(0, "held-out", dataset.digest).permutation(dataset.test)
    return dataset.rows(order[partition::clients])


def first_of_each(rows: Rows, most: int) -> Rows:
    """The first ``most`` images of each label, label after label."""
    chosen = [np.flatnonzero(rows.labels == label)[:most] for label in np.unique(rows.labels)]
    return rows.take(np.concatenate(chosen))


def prior_image(rows: Rows) -> Images:
    """(1, c, s, s): the mean of public images, what an attacker draws who has seen no update."""
    mean: Images = to_images(rows.pixels).mean(axis=0, keepdims=True)
    return mean
