"""What flows between the steps of the intake: surveyed items, decoded images, and a source to take them from."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from fedsec.datasets.problems import Problem
from fedsec.types import Pixels


@dataclass(frozen=True)
class Item:
    """One image file before decoding. ``file`` is relative to the survey's root, with '/'.

    ``group``: lesion or patient, '' = unknown, so a group of its own. ``site``: '' = unknown. ``split``: 'train' or
    'test' where the source fixes it.
    """

    file: str
    label: str
    group: str = ""
    site: str = ""
    split: str = ""


@dataclass(frozen=True)
class Survey:
    """What a folder or CSV claims to hold, and what is wrong with it; nothing is decoded yet."""

    root: Path
    items: tuple[Item, ...]
    problems: tuple[Problem, ...]


@dataclass(frozen=True)
class Raw:
    """n decoded images with the names that the source gives to label, group, site and split of each (see Item).

    ``contents``: hash of each file, '' = not known; equal files are kept on one side of the split.
    """

    pixels: Pixels
    labels: list[str]
    groups: list[str]
    sites: list[str]
    splits: list[str]
    contents: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        columns = (self.labels, self.groups, self.sites, self.splits)
        assert all(len(column) == len(self.pixels) for column in columns), [len(c) for c in columns]
        assert len(self.contents) in (0, len(self.pixels)), len(self.contents)


@dataclass(frozen=True)
class Source:
    """A place to take images from. ``fingerprint`` is cheap and names files and times; ``digest()`` names contents."""

    name: str
    fingerprint: str
    digest: Callable[[], str]
    read: Callable[[bool], tuple[Raw, list[Problem]]]
    """Decode everything, with a progress bar when True."""
