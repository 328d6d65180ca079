"""Class names to labels, and the binary grouping of skin diagnoses.

Grouping 'malignant': when any class of a set is a known skin diagnosis (capitals do not matter), the set is a skin set:
melanoma, basal and squamous cell carcinoma and actinic keratosis / Bowen's disease become 'malignant', the other known
diagnoses 'benign', and a class that is neither is an error, never silently benign. When no class is a known skin
diagnosis (NORMAL / PNEUMONIA, say), the classes stay as they are. Grouping 'classes' always keeps them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from fedsec.datasets.problems import UNKNOWN_CLASS, Problem

MALIGNANT = frozenset({"mel", "bcc", "akiec", "ak", "scc", "malignant", "melanoma"})
BENIGN = frozenset({"nv", "bkl", "df", "vasc", "benign", "nevus", "seborrheic_keratosis"})


def is_skin(labels: Sequence[str]) -> bool:
    return any(label.lower() in MALIGNANT | BENIGN for label in set(labels))


def problems(labels: Sequence[str], grouping: Literal["classes", "malignant"]) -> list[Problem]:
    """One problem for each class that the grouping does not know."""
    if grouping == "classes" or not is_skin(labels):
        return []
    unknown = sorted(name for name in set(labels) if name.lower() not in MALIGNANT | BENIGN)
    return [Problem(UNKNOWN_CLASS, f"class {name}", f"{list(labels).count(name)} images") for name in unknown]


def grouped(labels: Sequence[str], grouping: Literal["classes", "malignant"]) -> list[str]:
    """Each image's class after the grouping; every class is known here."""
    if grouping == "classes" or not is_skin(labels):
        return list(labels)
    return ["malignant" if label.lower() in MALIGNANT else "benign" for label in labels]
