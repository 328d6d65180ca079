"""Text from outside is shown, never obeyed."""

from __future__ import annotations

import pytest

from fedsec.reports.markup import LONGEST, details, inert, page, plots, table
from tests.reports.fake_run import HOSTILE


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("<b>&\"'", "&lt;b&gt;&amp;&quot;&#x27;"),
        ("\x1b[31mred\x1b[0m", "red"),
        ("\x1b]0;title\x07rest", "rest"),
        ("a\r\nb\u2028c", "a ⏎ b ⏎ c"),
        ("a\x00\x07b\u202e\u200b", "ab"),
        ("half a pair \ud800", "half a pair "),
        ("no /home/someone/data/x.png there", "no …/x.png there"),
        ("C:\\Users\\me\\x.png", "…/x.png"),
        ("AUC 3/4, runs/isic, a / b", "AUC 3/4, runs/isic, a / b"),
        ("", ""),
        (12, "12"),
    ],
)
def test_inert(text: object, shown: str) -> None:
    assert inert(text) == shown


def test_long_text_is_cut_before_it_is_escaped() -> None:
    shown = inert("<" * 10_000)
    assert shown == "&lt;" * LONGEST + " … (cut)"


def test_a_table_has_scopes_and_its_caption_is_escaped() -> None:
    text = table(HOSTILE, ("a", "b"), [("x", "1")], numeric=True)
    assert text.count('scope="col"') == 2
    assert text.count('scope="row"') == 1
    assert "<script" not in text
    assert "\x1b" not in text


def test_empty_parts_leave_nothing_behind() -> None:
    assert plots([]) == ""
    assert details("title", "", "") == ""


def test_the_page_forbids_itself_every_resource() -> None:
    assert "default-src 'none'" in page("t", "")
