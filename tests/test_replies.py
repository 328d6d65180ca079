"""Which replies of attackers whole runs miss."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from fedsec.log.runlog import read
from fedsec.reports.markdown.flags import again, alike
from studies.detection.replies import Replies, draw, replies_of, rows
from tests.test_pages import assert_same_picture

RESULTS = Path(__file__).parents[1] / "docs/results"


def made(*, flagged_from: int, overlap: float, clean: list[float]) -> Replies:
    """Two runs of one attacker and one honest client, twenty replies each; the second run flags a reply later."""
    own = np.tile(np.arange(1, 21), 4)
    seed = np.repeat([0, 1], 40)
    malicious = np.tile(np.repeat([True, False], 20), 2)
    flagged = malicious & (own >= flagged_from + seed)
    return Replies(
        2, 1, own, seed, malicious, flagged, np.where(malicious, 1.0, overlap) + own / 100, np.array(clean), 1.0
    )


def test_shares_are_of_a_client_s_first_second_and_later_replies() -> None:
    its = made(flagged_from=12, overlap=0.0, clean=[])
    assert list(its.share(0)) == [0.0] * 11 + [1.0] * 9
    assert list(its.share(1)) == [0.0] * 12 + [1.0] * 8
    assert its.share()[10:13].tolist() == [0.0, 0.5, 1.0]
    assert its.late_enough() == 13, "17 of 18 from the twelfth on are 94.4 %"
    assert made(flagged_from=30, overlap=0.0, clean=[]).late_enough() is None


def test_the_threshold_that_meets_the_target_is_asked_of_clean_runs() -> None:
    apart = made(flagged_from=12, overlap=0.0, clean=[0.5, 1.105, 1.115, 2.0])
    assert apart.roc()[2] == 1.0
    assert apart.at_the_target() == 0.5, "1.11 is what 19 of 20 late replies of attackers reach"
    together = made(flagged_from=12, overlap=1.0, clean=[])
    assert together.roc()[2] == pytest.approx(0.5)
    assert np.isnan(together.at_the_target())


def test_the_page_shows_what_is_kept(tmp_path: Path) -> None:
    records = {path.name: again(read(path)) for path in sorted((RESULTS / "calibration").glob("clients-*"))}
    kinds = {name: its for name, runs in alike(records).items() if (its := replies_of(runs)) is not None}
    page = (RESULTS / "calibration.md").read_text(encoding="utf-8")
    assert "\n".join(rows(kinds)) in page
    draw(kinds, tmp_path / "replies.png")
    assert_same_picture(tmp_path / "replies.png", RESULTS / "calibration/replies.png")
