"""Data sources to labelled images, split by lesion or patient, and their division among clients.

The path that a worker takes (``load`` of a cached set, ``partition`` of a known split) imports numpy alone.
"""

from fedsec.datasets.intake import load, quarantine_list
from fedsec.datasets.partitioning import held_by_nobody, partition

__all__ = ["held_by_nobody", "load", "partition", "quarantine_list"]
