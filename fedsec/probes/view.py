"""The server's view of one reply: the model before, what came back, and what is public. No image, no truth."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, replace
from itertools import cycle, islice
from pathlib import Path
from typing import Any, Literal

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from fedsec.errors import RunError
from fedsec.models.networks import NetworkSpec, Norm
from fedsec.types import Arrays, Vector
from fedsec.weights import COUNTERS, STATISTICS

VERSION = 1


@dataclass(frozen=True)
class Recipe:
    """How a client trains, as the protocol tells everybody: network, and plain SGD with cross-entropy on mini-batches.

    ``steps``: of this round; ``batch``: images a step; the images are in [-1, 1]. ``bn_momentum``: torch's weight of
    the newest batch in running statistics.
    """

    network: Literal["resnet18", "convnet", "perceptron"] = "resnet18"
    norm: Norm = "batch"
    channels: int = 1
    classes: int = 2
    size: int = 64
    steps: int = 1
    batch: int = 1
    lr: float = 0.01
    momentum: float = 0.0
    bn_momentum: float = 0.1

    @property
    def spec(self) -> NetworkSpec:
        """The network's part of it."""
        return NetworkSpec(self.network, self.norm, self.channels, self.classes, size=self.size)

    def sizes(self, images: int) -> list[int]:
        """Images in each of the ``steps`` batches: pass after pass over all, whose last batch may be a part of one."""
        of_a_pass = [min(self.batch, images - start) for start in range(0, images, self.batch)]
        return list(islice(cycle(of_a_pass), self.steps))


@dataclass(frozen=True)
class ServerView:
    """What an honest-but-curious server holds after one reply.

    ``before``: the whole state dict that it sent out. ``after``: what the client sent back, the same names or fewer
    (buffers that did not travel are missing). ``examples``: images the client says it has. ``labels``: theirs, only
    where the protocol reveals them.
    """

    recipe: Recipe
    before: Arrays
    after: Arrays
    examples: int
    labels: tuple[int, ...] | None = None

    def __post_init__(self) -> None:
        extra = set(self.after) - set(self.before)
        assert not extra, f"sent back but never sent out: {sorted(extra)}"

    @property
    def parameters(self) -> tuple[str, ...]:
        """Names of the trained tensors: everything but running statistics and counters."""
        return tuple(name for name in self.before if name.rsplit(".", 1)[-1] not in (*STATISTICS, *COUNTERS))

    @property
    def reached(self) -> ServerView:
        """The view of the images that the round reached, which are fewer where it ended within its first pass: the
        update says nothing of the others, nor which they are."""
        return replace(self, examples=min(self.examples, self.recipe.steps * self.recipe.batch))

    @property
    def statistics(self) -> bool:
        """Whether running statistics came back."""
        return any(name.rsplit(".", 1)[-1] in STATISTICS for name in self.after)

    @property
    def update(self) -> dict[str, Vector]:
        """Parameter name -> after - before, float64, in the parameter's shape."""
        return {
            name: np.asarray(self.after[name], np.float64) - np.asarray(self.before[name], np.float64)
            for name in self.parameters
        }

    def save(self, folder: Path) -> None:
        """``view.safetensors`` with both models and ``view.json`` with the rest; whole files or none."""
        folder.mkdir(parents=True, exist_ok=True)
        tensors = {f"{side}.{name}": np.array(value, order="C") for side in _SIDES for name, value in self._of(side)}
        save_file(tensors, folder / "tensors.part")
        facts = {
            "version": VERSION,
            "recipe": asdict(self.recipe),
            "examples": self.examples,
            "labels": self.labels,
            "order": {side: [name for name, _ in self._of(side)] for side in _SIDES},
        }
        (folder / "facts.part").write_text(json.dumps(facts, indent=1) + "\n", encoding="utf-8")
        (folder / "tensors.part").replace(folder / "view.safetensors")
        (folder / "facts.part").replace(folder / "view.json")

    def _of(self, side: str) -> list[tuple[str, Any]]:
        return list((self.before if side == "before" else self.after).items())

    @classmethod
    def load(cls, folder: Path) -> ServerView:
        """Read a saved view. Raises RunError when it is none."""
        try:
            facts = json.loads((folder / "view.json").read_text(encoding="utf-8"))
            if facts["version"] != VERSION:
                raise RunError(
                    f"{folder}: a view of version {facts['version']}, this fedsec reads {VERSION}: capture it again"
                )
            sides: dict[str, Arrays] = {side: {} for side in _SIDES}
            with safe_open(folder / "view.safetensors", framework="numpy") as file:
                for key in file.keys():  # noqa: SIM118  # not a dict
                    side, name = key.split(".", 1)
                    sides[side][name] = file.get_tensor(key)
            labels = facts["labels"]
            return cls(
                Recipe(**facts["recipe"]),
                {name: sides["before"][name] for name in facts["order"]["before"]},
                {name: sides["after"][name] for name in facts["order"]["after"]},
                int(facts["examples"]),
                None if labels is None else tuple(int(label) for label in labels),
            )
        except (OSError, ValueError, LookupError, TypeError, AttributeError, AssertionError, SafetensorError) as error:
            raise RunError(f"{folder} is no saved view ({error!r}): capture it again") from error


_SIDES = ("before", "after")
