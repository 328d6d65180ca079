"""Named tensors as vectors: which tensors travel, how they are stacked, and what may not enter an average."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from fedsec.config import Gan
from fedsec.errors import ReplyError
from fedsec.types import Arrays, Vector

Updates = npt.NDArray[np.float64]
"""(n clients, d parameters): each row is reply - global, in float64."""

COUNTERS = ("num_batches_tracked",)
STATISTICS = ("running_mean", "running_var")
LARGEST = 1e6
"""A weight beyond this is refused as absurd: a DCGAN's weights stay below 1e2."""


def travels(name: str, *, statistics: str) -> bool:
    """Whether a state-dict entry is sent. Step counters never are; running statistics only when 'shared'.

    >>> [travels(f"bn.{leaf}", statistics="local") for leaf in ("weight", "running_mean", "num_batches_tracked")]
    [True, False, False]
    """
    leaf = name.rsplit(".", 1)[-1]
    return leaf not in COUNTERS and (statistics == "shared" or leaf not in STATISTICS)


def sent_names(names: Iterable[str], sends: str) -> list[str]:
    """Which entries of a classifier's state dict a client sends: 'everything' (the counters too, as a stock client
    does), 'statistics' (without counters, which must never enter an average), or 'weights' (FedBN)."""
    if sends == "everything":
        return list(names)
    return [name for name in names if travels(name, statistics="shared" if sends == "statistics" else "local")]


def with_proper_variances(arrays: Arrays) -> Arrays:
    """``arrays`` with running variances below 0, which noise can make of small ones, set to 0."""
    return {
        name: np.maximum(value, 0) if name.rsplit(".", 1)[-1] == STATISTICS[1] else value
        for name, value in arrays.items()
    }


def shared_arrays(gan: Gan, generator: Arrays, discriminator: Arrays) -> Arrays:
    """What a client sends, under ``generator.`` and, with ``gan.share = 'both'``, ``discriminator.``."""
    networks = {"generator": generator} | ({"discriminator": discriminator} if gan.share == "both" else {})
    return {
        f"{network}.{name}": value
        for network, arrays in networks.items()
        for name, value in arrays.items()
        if travels(name, statistics=gan.statistics)
    }


def generator_arrays(shared: Arrays) -> Arrays:
    """The generator's own tensors out of what travels."""
    prefix = "generator."
    return {name[len(prefix) :]: value for name, value in shared.items() if name.startswith(prefix)}


@dataclass(frozen=True)
class Layout:
    """Names, shapes and dtypes of the tensors a reply must hold, in order."""

    names: tuple[str, ...]
    shapes: tuple[tuple[int, ...], ...]
    dtypes: tuple[str, ...]

    @classmethod
    def of(cls, arrays: Arrays) -> Layout:
        values = list(arrays.values())
        return cls(tuple(arrays), tuple(v.shape for v in values), tuple(v.dtype.str for v in values))

    @property
    def size(self) -> int:
        return sum(int(np.prod(shape)) for shape in self.shapes)

    def check(self, arrays: Mapping[str, npt.NDArray[np.generic]]) -> None:
        """Raise a ReplyError that says all that is wrong: keys, shapes, dtypes, non-finite or absurd values."""
        wrong = []
        if list(arrays) != list(self.names):
            missing, extra = set(self.names) - set(arrays), set(arrays) - set(self.names)
            order = "" if missing or extra else "; same names in another order"
            wrong.append(f"tensors differ: {len(missing)} missing, {len(extra)} extra{order}")
        for name, shape, dtype in zip(self.names, self.shapes, self.dtypes, strict=True):
            if name not in arrays:
                continue
            value = arrays[name]
            if value.shape != shape:
                wrong.append(f"{name} has shape {value.shape}, expected {shape}")
            elif value.dtype.str != dtype:
                wrong.append(f"{name} has dtype {value.dtype}, expected {np.dtype(dtype)}")
            elif not np.isfinite(value).all():
                wrong.append(f"{name} holds a non-finite value")
            elif value.size and float(np.abs(value).max()) > LARGEST:
                wrong.append(f"{name} holds a value above {LARGEST:g}")
        if wrong:
            more = f" (and {len(wrong) - 3} more)" if len(wrong) > 3 else ""
            raise ReplyError("; ".join(wrong[:3]) + more)

    def vector(self, arrays: Arrays) -> Vector:
        """(d,) float64, in layout order."""
        return np.concatenate([np.asarray(arrays[name], np.float64).ravel() for name in self.names])

    def arrays(self, vector: Vector) -> Arrays:
        """The inverse of ``vector``, in the layout's dtypes."""
        cuts = np.cumsum([int(np.prod(shape)) for shape in self.shapes])[:-1]
        parts = np.split(vector, cuts)
        return {
            name: part.reshape(shape).astype(np.dtype(dtype))
            for name, shape, dtype, part in zip(self.names, self.shapes, self.dtypes, parts, strict=True)
        }

    def updates(self, replies: Sequence[Arrays], origin: Vector) -> Updates:
        """Stack replies as deltas from ``origin`` (n, d)."""
        return np.stack([self.vector(reply) - origin for reply in replies])
