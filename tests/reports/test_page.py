"""The report: one inert file, the same bytes each time, whole whatever is missing from the run."""

from __future__ import annotations

import math
import re
import shutil
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import pytest

from fedsec.log import runlog
from fedsec.log.runlog import RunLog
from fedsec.reports import gallery
from fedsec.reports.page import write_report
from fedsec.types import Score
from tests.reports.fake_run import ALL_ARMS, Plan, build, cell, start

ORDER = [
    "What was run",
    "The split",
    "Generated images",
    "Losses of the clients",
    "Weights of the clients",
    "Differential privacy",
    "Final scores",
    "Scores over rounds",
    "Utility of the synthetic images",
    "Dropped replies",
    "Versions and seeds",
]
VOID = {"meta", "img", "br", "rect", "path"}


class Reading(HTMLParser):
    """Collects elements, attributes and identifiers, and checks that every element is closed."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[str] = []
        self.pairs: list[tuple[str, str]] = []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_startendtag(tag, attrs)
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.pairs += [(name, value or "") for name, value in attrs]

    def handle_endtag(self, tag: str) -> None:
        if tag not in VOID:
            assert self.open.pop() == tag

    def values(self, name: str) -> list[str]:
        return [value for its, value in self.pairs if its == name]


@pytest.fixture(scope="module")
def report(finished_run: Path) -> str:
    return write_report(finished_run).read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def elements(report: str) -> Reading:
    return Reading(report)


def drawn(folder: Path) -> str:
    text = write_report(folder).read_text(encoding="utf-8")
    Reading(text)
    return text


def test_sections_stand_in_order(report: str) -> None:
    assert re.findall(r"<h2>(.*?)</h2>", report) == ORDER
    assert report.index('class="verdict"') < report.index("<h2>")


def test_what_a_client_sent_is_inert(report: str, elements: Reading) -> None:
    assert "script" not in elements.tags
    assert not [name for name, _ in elements.pairs if name.startswith("on")]
    assert not re.search("[\x00-\x08\x0b-\x1f\x7f\u202a-\u202e]", report)
    assert "&lt;script src=" in report, "it is shown, as text"


def test_no_outside_resource(elements: Reading) -> None:
    assert not {"script", "link", "iframe", "object", "embed", "form", "base", "a", "audio", "video"} & set(
        elements.tags
    )
    assert all(value.startswith("data:image/png;base64,") for value in elements.values("src"))
    assert all(value.startswith("#") for value in elements.values("href"))
    style = " ".join([*elements.values("style"), *elements.values("clip-path")])
    assert all(target.startswith("#") for target in re.findall(r"url\((.*?)\)", style))
    assert not [value for name, value in elements.pairs if "://" in value and name != "src"]


def test_no_path_of_this_machine(report: str, finished_run: Path) -> None:
    text = re.sub(r"data:image/png;base64,[^\"]*", "", report)
    for path in (str(finished_run), str(Path.home()), str(Path.cwd()), "/home/", "/srv/", "someone"):
        assert path not in text


def test_pictures_and_figures_can_be_read_aloud(report: str, elements: Reading) -> None:
    assert elements.tags.count("img") == 27, "3 arms x 2 seeds x 4 rounds, and 3 at full size"
    assert all(elements.values("alt"))
    assert len(elements.values("alt")) == elements.tags.count("img")
    named = elements.values("role").count("img") + elements.values("aria-hidden").count("true")
    assert named == elements.tags.count("svg")
    assert elements.tags.count("th") == elements.values("scope").__len__()
    assert elements.tags.count("caption") == elements.tags.count("table")


def test_identifiers_are_unique_and_references_resolve(report: str, elements: Reading) -> None:
    found = elements.values("id")
    assert len(set(found)) == len(found)
    wanted = {value[1:] for value in elements.values("href")} | set(re.findall(r"url\(#([^)]*)\)", report))
    assert wanted <= set(found)


def test_drawn_again_it_is_the_same_bytes_anywhere(finished_run: Path, report: str, tmp_path: Path) -> None:
    moved = tmp_path / "elsewhere" / "renamed"
    shutil.copytree(finished_run, moved)
    for name in ("report.html", "results.json"):
        (moved / name).unlink(missing_ok=True)
    assert write_report(moved).read_text(encoding="utf-8") == report
    assert not [path for path in moved.iterdir() if path.name.startswith(".")]


def test_a_defended_arm_shows_what_its_defence_read(report: str) -> None:
    assert "What the defence read of them" in report
    assert report.count("what the defence reads, arm attack+fed-detect, seed") >= 1
    assert "what the defence reads, arm vanilla" not in report


def test_scores_and_footnotes(report: str) -> None:
    assert "<sup>1</sup>" in report
    assert "nobody attacks in this arm" in report
    assert "frechet-domain" in report
    assert "95 % Student-t interval" in report


def test_one_seed_says_that_there_is_no_interval(tmp_path: Path) -> None:
    text = drawn(build(tmp_path, Plan(arms=("vanilla", "attack"), seeds=(0,), rounds=4, pictures=False)))
    assert "One seed: there is no interval" in text
    assert "No sample grid was written." in text
    assert "Other seeds" not in text
    assert "What the defence read" not in text, "no arm has a defence that reads"


def test_a_run_that_only_started(tmp_path: Path) -> None:
    start(RunLog(tmp_path), Plan())
    text = drawn(tmp_path)
    assert "nothing to judge yet" in text
    assert "No round was aggregated." in text
    assert "there is no final score" in text


def test_an_interrupted_run_shows_what_there_is(tmp_path: Path) -> None:
    plan = Plan(arms=("vanilla", "attack"), seeds=(0,), rounds=4, pictures=False)
    log = RunLog(tmp_path)
    start(log, plan)
    cell(log, tmp_path, plan, "vanilla", 0)
    cell(log, tmp_path, plan, "attack", 0, end=False)
    with log.path.open("ab") as torn:
        torn.write(b'{"event": "cell-e')
    text = drawn(tmp_path)
    assert "seed 0, not finished" in text
    assert "Started, not finished: attack, seed 0" in text
    assert "cut short by a crash" in text


def test_nan_is_shown_with_its_reason(tmp_path: Path) -> None:
    log = RunLog(tmp_path)
    start(log, Plan(arms=("vanilla",), seeds=(0,)))
    log.cell_start("vanilla", 0, "d")
    for name in ("frechet-domain", "trigger-rate", "utility-auc-25"):
        for final in (False, True):
            log.score("vanilla", 0, 4, Score(name, math.nan, 0, "lower", "the <generator> made NaN"), final=final)
    log.cell_end("vanilla", 0, "d", math.nan)
    text = drawn(tmp_path)
    assert "NaN<sup>1</sup>" in text
    assert "the &lt;generator&gt; made NaN" in text
    assert "Scores over rounds" not in text


def test_only_pictures_of_the_run_folder_are_shown(tmp_path: Path) -> None:
    folder = build(tmp_path / "run", Plan(arms=("vanilla",), seeds=(0,), rounds=4))
    picture = (folder / "samples/vanilla-0-0004.png").read_bytes()
    (tmp_path / "secret.png").write_bytes(picture)
    (folder / "samples/text.png").write_text("not a picture")
    (folder / "samples/link.png").symlink_to(tmp_path / "secret.png")
    log = RunLog(folder)
    for number, file in enumerate(("../secret.png", "samples/text.png", "samples/link.png", "samples/gone.png"), 5):
        log.samples("vanilla", 0, number, file)
    text = drawn(folder)
    assert text.count("<img") == 4
    assert text.count("missing: ") == 4, "three files, of which that of the last round has two places"
    assert "not a PNG picture: samples/text.png" in text


def test_a_page_does_not_grow_without_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = build(tmp_path, Plan(arms=("vanilla",), seeds=(0,), rounds=4))
    monkeypatch.setattr(gallery, "BUDGET", 2 * (folder / "samples/vanilla-0-0001.png").stat().st_size)
    text = drawn(folder)
    assert 0 < text.count("<img") < 4
    assert "pictures are not inside this page" in text


@pytest.mark.parametrize("clients", [1, 12, 60])
def test_any_number_of_clients(tmp_path: Path, clients: int) -> None:
    log = RunLog(tmp_path)
    start(log, Plan(arms=("attack", "vanilla"), seeds=(0,)), clients=clients)
    for arm in ("attack", "vanilla"):
        log.cell_start(arm, 0, "d")
        each = dict.fromkeys(range(clients), 1.0)
        log.round(arm, 0, 1, heard=list(each), metrics={"g-loss": each, "g-loss-last": each}, weights=each, seconds=1.0)
    text = drawn(tmp_path)
    assert "client 0 (malicious)" in text
    assert ("honest clients" in text) == (clients > 8)
    assert "The split in numbers" in text


def test_every_arm_of_the_experiment(tmp_path: Path) -> None:
    text = drawn(build(tmp_path, Plan(arms=tuple(ALL_ARMS), seeds=(0,), rounds=4, pictures=False)))
    for term in ("The attack", "The defence", "Clean runs"):
        assert f"<dt>{term}</dt>" in text
    assert "oracle" in text


def test_neither_torch_nor_flower_nor_pyplot_is_imported() -> None:
    probe = (
        "import sys, fedsec.reports.page, fedsec.reports.results\n"
        "print([m for m in ('torch', 'flwr', 'ray', 'matplotlib.pyplot') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_the_reader_and_the_page_agree_on_the_cells(finished_run: Path) -> None:
    assert len(runlog.read(finished_run).finished()) == 6
