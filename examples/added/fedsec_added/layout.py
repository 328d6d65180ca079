"""``data.format = "flat"``: one folder of files named LABEL_PATIENT_anything.png."""

from __future__ import annotations

from pathlib import Path

from fedsec.datasets.problems import LOOSE, Problem
from fedsec.datasets.raw import Item, Survey


def survey(root: Path) -> Survey:
    """Every file of ``root`` with its label and patient; one of another name is a problem, which ends the run."""
    items, problems = [], []
    for path in sorted(root.iterdir()):
        label, *rest = path.stem.split("_")
        if rest and path.is_file():
            items.append(Item(path.name, label, group=rest[0]))
        else:
            problems.append(Problem(LOOSE, path.name))
    return Survey(root, tuple(items), tuple(problems))
