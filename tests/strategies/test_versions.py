"""A rule's version changes with what computes, and with nothing else."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from fedsec.config.sections import Defence
from fedsec.run.app import source_of
from fedsec.run.versions import CALLED, MODULES, Read, rule_digest, rules


def changed(module: str, old: str, new: str) -> Read:
    """The sources with one text of one module replaced."""

    def read(name: str) -> str:
        text = source_of(name)
        if name != module:
            return text
        assert text.count(old) == 1, (module, old)
        return text.replace(old, new)

    return read


@pytest.mark.parametrize(
    ("module", "old", "new", "of"),
    [
        ("fedsec.defences.inspection", "WINDOW = 20", "WINDOW = 21", {"fed-inspect"}),
        ("fedsec.defences.inspection", "BOUND = 1.0", "BOUND = 1.5", {"fed-inspect"}),
        ("fedsec.defences.probation", "MOST = 2.0", "MOST = 3.0", {"fed-inspect"}),
        ("fedsec.defences.inspection", 'GAINS = ("sharp", "odd")', 'GAINS = ("sharp",)', {"fed-inspect"}),
        (
            "fedsec.defences.inspection",
            "(means - means[..., ::-1]) / 2",
            "(means - means[..., ::-1]) / 3",
            {"fed-inspect"},
        ),
        ("strategies.draws", "INSPECTED = 64", "INSPECTED = 63", {"fed-inspect"}),
        (
            "strategies.fedinspect",
            "self._draw(fit, seed) for fit",
            "self._draw(fit, seed + 1) for fit",
            {"fed-inspect"},
        ),
        ("fedsec.defences.evidence", "PEAK_SPREAD = 0.3", "PEAK_SPREAD = 0.31", {"fed-inspect", "fed-detect"}),
        ("fedsec.defences.feddetect", "GRACE = 2", "GRACE = 3", {"fed-inspect", "fed-detect"}),
        ("fedsec.defences.isolation", "SPREAD = 0.08\n", "SPREAD = 0.09\n", {"fed-inspect", "fed-detect"}),
        (
            "strategies.feddetect",
            "told = {fit.partition: self.read(fit.metrics)",
            "told = {0: self.read(fit.metrics)",
            {*MODULES},
        ),
        ("strategies.robust", "max(1, clients // 4)", "max(1, clients // 5)", set()),
        ("fedsec.defences.geometry", "BLOCK = 2**18", "BLOCK = 2**17", {"fed-inspect"}),
        ("fedsec.defences.inspection", '"""A peak that is none', '"""A peak that is quite none', set()),
        ("fedsec.defences.inspection", "WINDOW = 20", "WINDOW = 20  # rounds", set()),
    ],
)
def test_a_rule_that_computes_something_else_is_another_rule(module: str, old: str, new: str, of: set[str]) -> None:
    read = changed(module, old, new)
    assert {rule for rule in MODULES if rule_digest(rule, read) != rule_digest(rule)} == of


def test_a_module_that_the_rule_begins_to_use_counts() -> None:
    begun = changed(
        "fedsec.defences.inspection", "import numpy as np\n", "import numpy as np\nfrom strategies.newer import thing\n"
    )

    def with_newer(text: str) -> Callable[[str], str]:
        return lambda name: text if name == "strategies.newer" else begun(name)

    digests = {rule_digest("fed-inspect", with_newer(text)) for text in ("thing = 1", "thing = 2")}
    assert len({*digests, rule_digest("fed-inspect")}) == 3


def test_every_rule_that_reads_what_clients_report_or_draw_has_a_version_and_they_differ() -> None:
    for name in MODULES:
        assert Defence(name=name).reads_losses  # type: ignore[arg-type]
    assert len({*map(rule_digest, MODULES)}) == len(MODULES)


def test_a_rule_whose_modules_were_moved_keeps_the_name_that_kept_cells_know_it_by() -> None:
    assert rules() == {rule: CALLED.get(rule_digest(rule), rule_digest(rule)) for rule in MODULES}
    assert not set(CALLED) & set(CALLED.values())
