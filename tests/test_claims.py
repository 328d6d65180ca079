"""Numbers of README and pages are claims, claims are what their files give, and nothing protects unattacked."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from studies.claims import claims
from studies.claims.selectors import UnreadError, numbers, printed

FILE, LINES, PAGE = "scores.json", "cells.jsonl", "page.md"


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A project of one page, one table of claims and one file a kind."""
    (tmp_path / FILE).write_text(json.dumps({"a 0": {"rdlv": 0.914}, "a 1": {"rdlv": 0.928}, "b 0": {"rdlv": 0.1}}))
    lines = [{"event": "score", "seed": seed, "in": {"arm": "x"}, "value": seed / 8} for seed in range(3)]
    (tmp_path / LINES).write_text("\n".join(json.dumps(line) for line in lines))
    (tmp_path / PAGE).write_text(
        "**Rates.**\n\n| attack | none | median |\n|---|---|---|\n| patch | 1 % | 52 % (3 to 99 %) |\n"
    )
    (tmp_path / "README.md").write_text(
        "The image, at <!--c:read-->0.92<!--/c-->, ResNet-18, `k=3`, [page 4](a/5.md).\n"
    )
    (tmp_path / "docs").mkdir()
    return tmp_path


def claim(**changed: Any) -> dict[str, Any]:
    return {
        "id": "read",
        "sentence": "what is read",
        "kind": "attack",
        "value": "0.92",
        "interval": "",
        "seeds": "0",
        "chosen": "nothing",
        "tested": "two sites",
        "attackers": ["plain"],
        "adapted": "none",
        "pages": ["README.md"],
        "command": "make",
        "read": [{"file": FILE, "at": "a */rdlv", "by": "mean"}],
    } | changed


def faults(
    project: Path, monkeypatch: pytest.MonkeyPatch, *made: dict[str, Any], allow: tuple[str, ...] = ()
) -> list[str]:
    """What is wrong with a project that makes these claims."""
    allowed = [{"page": "README.md", "text": text, "why": "said"} for text in allow]
    table = {
        "claim": list(made),
        "watched": {"README.md": "all"},
        "allow": [{"page": "README.md", "text": "page 4", "why": "x"}],
    }
    table["allow"] = [*table["allow"], *allowed]
    monkeypatch.setattr(claims, "load", lambda _: table)
    return claims.faults(project)


def test_this_project_has_no_fault() -> None:
    assert claims.faults() == []


def test_a_fresh_project_of_one_claim_has_none(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert faults(project, monkeypatch, claim()) == []


def test_a_number_outside_a_claim_is_found(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    page = project / "README.md"
    page.write_text(page.read_text() + "\n| noise | leaves 0.31 |\n")
    assert [fault for fault in faults(project, monkeypatch, claim()) if "'0.31'" in fault]
    assert faults(project, monkeypatch, claim(), allow=("leaves 0.31",)) == []


def test_what_is_allowed_must_be_there(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert any("allowed, but not there" in fault for fault in faults(project, monkeypatch, claim(), allow=("7 px",)))


def test_a_file_that_no_longer_gives_the_claim_is_found(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (project / FILE).write_text(json.dumps({"a 0": {"rdlv": 0.914}, "a 1": {"rdlv": 0.94}}))
    assert faults(project, monkeypatch, claim()) == ["read: the value says '0.92', the files give 0.927"]
    (project / FILE).unlink()
    assert "there is no file" in faults(project, monkeypatch, claim())[0]


def test_an_interval_is_read_too(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    interval = {"file": FILE, "at": "a */rdlv", "by": ["low", "high"], "of": "interval"}
    made = claim(interval="0.80 to 0.95", read=[*claim()["read"], interval])
    assert any("the interval says" in fault for fault in faults(project, monkeypatch, made))
    assert faults(project, monkeypatch, claim(interval="0.83 to 1.01", read=made["read"])) == []


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"adapted": "none"}, "no attacker that knows the protection"),
        ({"adapted": "knows"}, "not among the attackers"),
        ({"attackers": ["knows"], "adapted": "knows", "tested": "nothing"}, "on the data it was chosen on"),
    ],
)
def test_a_protection_needs_its_attacker(
    project: Path, monkeypatch: pytest.MonkeyPatch, changed: dict[str, Any], said: str
) -> None:
    assert any(said in fault for fault in faults(project, monkeypatch, claim(kind="protective", **changed)))
    held = claim(kind="protective", attackers=["plain", "knows"], adapted="knows")
    assert faults(project, monkeypatch, held) == []


def test_a_promise_without_a_protective_claim_is_found(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    page = project / "README.md"
    page.write_text(page.read_text() + "\nNoise takes the attacker out.\n")
    assert any("promises" in fault for fault in faults(project, monkeypatch, claim()))
    page.write_text("Noise takes the attacker out: <!--c:read-->0.92<!--/c-->, page 4.\n".replace(": <", " at <"))
    held = claim(kind="protective", attackers=["plain", "knows"], adapted="knows")
    assert faults(project, monkeypatch, held) == []


def test_marks_are_filled_from_the_claims(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    page = project / "README.md"
    page.write_text(page.read_text().replace("0.92", "0.93"))
    assert any("'0.93', claimed is '0.92'" in fault for fault in faults(project, monkeypatch, claim()))
    assert claims.write(project) == ["README.md"]
    assert "<!--c:read-->0.92<!--/c-->" in page.read_text()
    assert faults(project, monkeypatch, claim()) == []


def test_a_mark_has_a_claim_and_a_claim_a_mark(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "other: does not stand in README.md" in faults(project, monkeypatch, claim(), claim(id="other"))
    assert "README.md: no claim 'read'" in faults(project, monkeypatch, claim(id="other"))
    assert "read: this id is given twice" in faults(project, monkeypatch, claim(), claim())


def test_a_claim_that_does_not_say_all_is_found(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = claim()
    del made["tested"]
    assert faults(project, monkeypatch, made) == ["read: no 'tested'"]


def test_the_screen_of_a_page_ends_at_its_first_part() -> None:
    page = "# Page\nfive of 9\n| a | 3 |\n## Part\n17\n"
    assert [fault.split("'")[1] for fault in claims.unclaimed("p", claims.watched_text(page, "screen"), ())] == ["9"]


def test_the_short_of_a_page_is_one_paragraph_of_its_screen() -> None:
    page = "# Page\n\n**In short.** Half.\nAll.\n\n4 px\n\n## Part\n\n**In short.** No.\n"
    assert claims.watched_text(page, "short") == "**In short.** Half.\nAll."
    assert claims.watched_text("# Page\n\n4 px\n", "short") == ""


def test_every_page_of_results_is_watched_or_says_why_not(project: Path) -> None:
    pages = project / "docs/results"
    pages.mkdir()
    (pages / "new.md").write_text("# New\n\n**In short.** Nothing.\n")
    table: dict[str, Any] = {"watched": {}, "unwatched": {}}
    assert claims.overlooked(table, project) == ["docs/results/new.md: a page of results that is not watched"]
    assert claims.overlooked(table | {"watched": {"docs/results/new.md": "short"}}, project) == []
    assert claims.overlooked(table | {"unwatched": {"docs/results/new.md": "a reason"}}, project) == []
    assert len(claims.overlooked(table | {"unwatched": {"docs/results/new.md": ""}}, project)) == 1
    both = {"watched": {"docs/results/new.md": "short"}, "unwatched": {"docs/results/new.md": "a reason"}}
    assert len(claims.overlooked(both, project)) == 1


def test_a_result_page_without_an_answer_or_with_a_number_outside_a_claim_is_found(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    page = project / "docs/results/new.md"
    page.parent.mkdir()
    table = {"claim": [], "allow": [], "watched": {"docs/results/new.md": "short"}}
    monkeypatch.setattr(claims, "load", lambda _: table)
    page.write_text("# New\n\nThe answer is 0.42.\n")
    assert claims.faults(project) == ["docs/results/new.md: there is no short to watch"]
    page.write_text("# New\n\n**In short.** The answer is 0.42.\n")
    assert ["'0.42.' is in no claim" in fault for fault in claims.faults(project)] == [True]


def test_the_answer_of_every_page_of_results_is_held_against_the_claims() -> None:
    table = claims.load()
    pages = {page.relative_to(claims.PROJECT).as_posix() for page in (claims.PROJECT / "docs/results").glob("*.md")}
    assert pages <= {*table["watched"], *table["unwatched"]}
    assert set(table["unwatched"]) <= {"docs/results/adaptive.md"}, "an excuse is for a page whose cells still run"


@pytest.mark.parametrize(
    ("read", "given"),
    [
        ({"file": FILE, "at": ["b 0/rdlv", "a 1/rdlv"], "by": "each", "times": 100}, [10.0, 92.8]),
        ({"file": FILE, "at": "*/rdlv", "by": ["min", "max", "count"]}, [0.1, 0.928, 3]),
        ({"file": LINES, "at": "value", "where": {"in/arm": "x", "seed": 2}}, [0.25]),
        ({"file": LINES, "at": "value", "where": {"event": "score"}, "each-file": "sum"}, [0.375]),
        ({"file": PAGE, "under": "Rates", "row": "patch", "column": "median"}, [52, 3, 99]),
    ],
)
def test_numbers_are_found(project: Path, read: dict[str, Any], given: list[float]) -> None:
    assert numbers(read, project) == pytest.approx(given)


def test_items_of_a_list_are_found_by_their_fields(project: Path) -> None:
    (project / FILE).write_text(json.dumps([{"clients": 4, "rate": 0.5}, {"clients": 10, "rate": 0.75}]))
    assert numbers({"file": FILE, "where": {"clients": 10}, "at": "rate"}, project) == [0.75]
    with pytest.raises(UnreadError):
        numbers({"file": FILE, "where": {"clients": 30}, "at": "rate"}, project)


def run_of(rounds: int, *, flags: dict[int, list[int]], asked: dict[int, list[int]] | None = None) -> str:
    """A run's events: client 0 of three attacks; ``flags`` and who was ``asked`` (else everybody) by round."""
    lines: list[dict[str, Any]] = [{"event": "run", "malicious": [0]}]
    for number in range(1, rounds + 1):
        losses = {str(client): 1.0 for client in (asked or {}).get(number, [0, 1, 2])}
        row = {"event": "round", "arm": "x", "seed": 0, "round": number, "losses": losses}
        lines += [row | {"flags": flags.get(number, [])}, row | {"arm": "other", "flags": [0, 1, 2]}]
    return "\n".join(json.dumps(line) for line in lines)


def test_flags_are_of_replies_after_a_clients_own_tenth(project: Path) -> None:
    read = {"file": LINES, "arm": "x", "flagged": "attacker"}
    (project / LINES).write_text(run_of(13, flags={3: [0], 11: [0], 12: [0, 2]}))
    assert numbers(read, project) == [1, 1, 0]
    assert numbers(read | {"flagged": "honest", "by": ["sum", "count"]}, project) == [1, 6]
    (project / LINES).write_text(run_of(13, flags={11: [0], 13: [0]}, asked={11: [1, 2]}))
    assert numbers(read, project) == [0, 1], "who was not asked in round 11 sends its own eleventh in round 12"


@pytest.mark.parametrize("wrong", [{"flagged": "both"}, {"arm": "none"}])
def test_flags_that_are_not_there_are_said(project: Path, wrong: dict[str, str]) -> None:
    (project / LINES).write_text(run_of(12, flags={}))
    with pytest.raises(UnreadError):
        numbers({"file": LINES, "arm": "x", "flagged": "attacker", **wrong}, project)
    (project / LINES).write_text(run_of(12, flags={}) + "\n" + run_of(12, flags={}))
    with pytest.raises(UnreadError, match="2 runs"):
        numbers({"file": LINES, "arm": "x", "flagged": "attacker"}, project)


@pytest.mark.parametrize(
    "read",
    [
        {"file": FILE, "at": "c/rdlv"},
        {"file": FILE, "at": "a 0"},
        {"file": LINES, "at": "value", "where": {"seed": 7}},
        {"file": LINES, "at": "event"},
        {"file": PAGE, "under": "Rates", "row": "patch", "column": "mean"},
        {"file": PAGE, "under": "Rates", "row": "stain", "column": "median"},
        {"file": PAGE, "under": "Elsewhere", "row": "patch", "column": "median"},
    ],
)
def test_what_is_not_there_is_said(project: Path, read: dict[str, Any]) -> None:
    with pytest.raises(UnreadError):
        numbers(read, project)


def test_printed_digits_are_the_tolerance() -> None:
    assert [number for number, _ in printed("99.9 to 100 %, -0.04, 1,704")] == [99.9, 100, -0.04, 1704]
    assert [half for _, half in printed("99.9 to 100, 0.92")] == pytest.approx([0.05, 0.5, 0.005])
