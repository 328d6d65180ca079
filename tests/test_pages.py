"""Tables of docs/results are what their commands print from the files that are kept beside them."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fedsec.config.matrix import read_matrix
from fedsec.errors import ConfigError
from fedsec.log.runlog import read
from fedsec.metrics.intervals import mean_interval
from fedsec.metrics.measures import HEADINGS, OLD_SSIM, SSIM
from fedsec.metrics.tradeoff import against_noise
from fedsec.reports.markdown import flags as caught
from fedsec.reports.markdown import watched
from fedsec.reports.markdown.matrix import apart, tables
from fedsec.reports.markdown.scores import DEFAULT
from fedsec.reports.markdown.scores import table as scores
from fedsec.reports.matrix import MAPS
from fedsec.run.matrix import standings
from studies.detection.evidence import table as evidence
from studies.detection.roc import RULES, draw
from studies.detection.roc import table as detection
from studies.leakage import pooled, protected
from studies.leakage.membership import table as members
from studies.split_learning import privacy as pgsl_privacy

PROJECT = Path(__file__).parents[1]
RESULTS, DATA = PROJECT / "docs/results", PROJECT.parent / "shared/data"
UTILITY = ",".join(f"{kind}-auc-{count}" for count in (10, 25, 100) for kind in ("real", "utility"))
QUALITY = "frechet-domain,kid,precision,recall,spread,trigger-rate,trigger-strength"
DRAWN = "frechet-domain,precision,recall,spread,gan-test-auc,utility-auc-25,trigger-rate,trigger-strength"
KINDS = ("iid", "1.0", "0.3", "0.1")
SEEDS = tuple(f"one-image-seed-{seed}" for seed in range(3))
KEYS = (("psnr", 1), ("rdlv", 2))
RATIO = "Fréchet distance over the oracle's"
CHEST = ("data.modality=chest", "data.grouping=classes", "gan.mirror=false")


@pytest.mark.parametrize(
    ("page", "metrics"), [("isic", DEFAULT), ("isic", UTILITY), ("sweep", QUALITY), ("diffusion", DRAWN)]
)
def test_score_tables(page: str, metrics: str) -> None:
    kept = json.loads((RESULTS / page / "results.json").read_text(encoding="utf-8"))
    assert scores(kept, metrics.split(",")) in (RESULTS / f"{page}.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("kind", KINDS)
def test_detection_tables(kind: str) -> None:
    rows = json.loads((RESULTS / f"calibration/ten-{kind}.json").read_text(encoding="utf-8"))
    assert {row["rule"] for row in rows} == set(RULES)
    third = json.loads((RESULTS / f"calibration/third-{kind}.json").read_text(encoding="utf-8"))
    page = (RESULTS / "calibration.md").read_text(encoding="utf-8")
    assert "\n".join(detection(rows)) in page
    assert "\n".join(detection(third)) in page


@pytest.mark.parametrize(
    ("name", "split"), [("site", "four real sites"), ("dirichlet-0.3", "Dirichlet 0.3"), ("iid", "iid")]
)
def test_what_the_parts_see(name: str, split: str) -> None:
    kept = json.loads((RESULTS / f"evidence/{name}.json").read_text(encoding="utf-8"))
    head, _, *found = ([cell.strip() for cell in line.split("|")[1:-1]] for line in evidence(kept, (20,)).splitlines())
    assert head[2:6] == ["whole", "sharp", "odd", "all"], "the page leaves 'all' out"
    expected = {cells[0].replace("weak patch", "patch on a quarter of the images"): cells[2:] for cells in found}
    page = (RESULTS.parent / "defences.md").read_text(encoding="utf-8").replace("*", "").replace("−", "-")
    shown = [[cell.strip() for cell in line.split("|")[1:-1]] for line in page.splitlines()]
    rows = {cells[1]: cells[2:] for cells in shown if cells[:1] == [split]}
    assert rows == {attack: [*values[:3], *values[4:]] for attack, values in expected.items()}


def assert_same_picture(drawn: Path, kept: Path) -> None:
    pixels = []
    for path in (drawn, kept):
        with Image.open(path) as picture:
            pixels.append(np.asarray(picture.convert("L"), np.float64))
    assert np.abs(pixels[0] - pixels[1]).mean() < 1, "levels of 255"


def test_what_was_seen_of_a_diffusion_model_is_drawn_from_what_is_kept(tmp_path: Path) -> None:
    record = read(RESULTS / "diffusion")
    watched.draw(record, ("attack+fed-detect", "attack+fed-inspect"), 0, tmp_path / "watched.png")
    assert_same_picture(tmp_path / "watched.png", RESULTS / "diffusion/watched.png")
    page = (RESULTS / "diffusion.md").read_text(encoding="utf-8")
    assert "\n".join(caught.table([record], "diffusion")) in page


def test_detection_curves_are_drawn_from_what_is_kept(tmp_path: Path) -> None:
    kinds = {kind: json.loads((RESULTS / f"calibration/ten-{kind}.json").read_text(encoding="utf-8")) for kind in KINDS}
    draw(kinds, tmp_path / "roc.png")
    assert_same_picture(tmp_path / "roc.png", RESULTS / "calibration/roc.png")


@pytest.mark.parametrize(
    ("name", "profile", "source", "settings", "pasted"),
    [
        ("isic/tables", "core", "isic/class2", (), ("Trigger rate",)),
        ("isic/tables-skewed", "skewed", "isic/class2", (), ()),
        (
            "chestx/tables",
            "core",
            "chestx/chest_xray",
            CHEST,
            ("Trigger strength", RATIO),
        ),
    ],
)
def test_matrix_tables(
    name: str, profile: str, source: str, settings: tuple[str, ...], pasted: tuple[str, ...]
) -> None:
    if not (DATA / source).is_dir():
        pytest.skip(f"needs shared/data/{source} beside the project: a cell is known by its images, too")
    page = RESULTS / f"matrix/{name}.md"
    matrix = read_matrix(PROJECT / "experiments/matrix.toml", profile, [f"data.source={DATA / source}", *settings])
    for split in matrix.splits:
        board = standings(matrix, split, page.parent)
        if board.record.finished():
            assert "\n".join(tables(board)) in page.read_text(encoding="utf-8")
            for shown in (shown for shown in MAPS if shown.title in pasted):
                assert "\n".join(apart(board, shown)) in (RESULTS / "matrix.md").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("attack", "files"),
    [
        ("prior", SEEDS),
        ("released", ("one-image-released",)),
        ("bn-update", SEEDS),
        ("bn-only", SEEDS),
        ("row-space", SEEDS),
        ("prior", ("one-image-224px",)),
        ("released", ("one-image-224px",)),
        ("bn-update", ("one-image-224px",)),
        ("row-space", ("one-image-224px",)),
    ],
)
def test_leakage_rows(attack: str, files: tuple[str, ...]) -> None:
    seeds = pooled.rows_of([RESULTS / f"leakage/{file}.json" for file in files])[attack]
    rows = [row for seed in seeds for row in seed]
    page = (RESULTS / "leakage.md").read_text(encoding="utf-8").replace("*", "").splitlines()
    lines = [line for line in page if line.replace("`", "").startswith(f"| {attack} |") and f"| {len(rows)} " in line]
    assert lines, f"no line says that {attack} was run at {len(rows)} sites"
    ways = ([rows], seeds)  # the mean over sites, or over the seeds' means
    said = [
        [shown(float(np.mean([np.mean([row[key] for row in group]) for group in way])), n) for key, n in KEYS]
        for way in ways
    ]
    assert any(all(text in line for text in way) for line in lines for way in said), (said, lines)


@pytest.mark.parametrize("file", sorted((RESULTS / "membership").glob("*.json")), ids=lambda file: file.stem)
def test_membership_tables_have_chance_beside_each_number(file: Path) -> None:
    page = (RESULTS / "membership.md").read_text(encoding="utf-8")
    for name, kept in json.loads(file.read_text(encoding="utf-8")).items():
        assert "\n".join(members(name, kept["attacks"])) in page


def test_pgsl_table_is_of_the_kept_cells() -> None:
    arms = "plain,noise-0.5,noise-1,noise-2,noise-4,pgsl,no-peek-5"
    cells: dict[str, dict[int, pgsl_privacy.Cell]] = {}
    for arm in arms.split(","):
        files = [RESULTS / f"pgsl/privacy-chest/{arm}-{seed}.json" for seed in range(3)]
        cells[arm] = {seed: json.loads(file.read_text(encoding="utf-8")) for seed, file in enumerate(files)}
    page = (RESULTS / "pgsl-privacy.md").read_text(encoding="utf-8")
    assert arms in page
    assert pgsl_privacy.table(cells) in page
    for measure, digits in (("iip", 3), (SSIM, 3), ("rdlv", 3), ("psnr", 1)):
        mine, *noise = (pgsl_privacy.point(arm, cells[arm], measure) for arm in ("pgsl", *arms.split(",")[:5]))
        found = against_noise(mine, noise, measure=measure)
        ends = " to ".join(f"{value:+.{digits}f}" for value in (found.low, found.high))
        assert f"{found.difference:+.{digits}f} ({ends})" in page
        assert "not told apart" in found.words


def shown(value: float, digits: int) -> str:
    return f"{round(value, digits) + 0.0:.{digits}f}"


def test_sites_of_one_seed_count_once_and_measures_are_not_mixed(tmp_path: Path) -> None:
    files = [RESULTS / f"leakage/{name}.json" for name in SEEDS]
    line = next(line for line in pooled.table(pooled.rows_of(files)) if line.startswith("| row-space |"))
    means = []
    for file in files:
        kept = json.loads(file.read_text(encoding="utf-8"))
        means.append(np.mean([row["rdlv"] for key, row in kept.items() if key.startswith("row-space ")]))
    over = mean_interval([float(mean) for mean in means])
    assert "| row-space | 3 | 18 | not measured |" in line
    assert f"| {over.mean:.2f} ({over.low:.2f} to {over.high:.2f}) |" in line
    assert HEADINGS[OLD_SSIM] in pooled.table(pooled.rows_of(files))[0]
    new = tmp_path / "new.json"
    new.write_text(files[0].read_text(encoding="utf-8").replace(f'"{OLD_SSIM}"', f'"{SSIM}"'), encoding="utf-8")
    with pytest.raises(ConfigError, match="two measures of SSIM"):
        pooled.table(pooled.rows_of([new, files[1]]))


@pytest.mark.parametrize(
    ("file", "line"),
    [
        ("chest-8", "normal, pneumonia | 8, 8, 1"),
        ("chest-1", "normal, pneumonia | 1, 1, 1"),
        ("chest-16", "normal, pneumonia | 16, 4, 4"),
        ("isic-site-8", "four cameras of HAM10000 | 8, 8, 1"),
        ("isic-site-1", "four cameras of HAM10000 | 1, 1, 1"),
        ("isic-class-8", "benign, malignant | 8, 8, 1"),
    ],
)
def test_rows_of_what_statistics_say(file: str, line: str) -> None:
    kept = json.loads((RESULTS / f"leakage/hints-{file}.json").read_text(encoding="utf-8"))
    error = np.abs(np.array(kept["read"]) - np.array(kept["truth"])).mean()
    page = (RESULTS / "leakage.md").read_text(encoding="utf-8").replace("*", "")
    assert f"| {line} | {error:.2f} |" in page


def test_what_noise_leaves_is_of_the_kept_files() -> None:
    page = (RESULTS / "noise.md").read_text(encoding="utf-8")
    lines = protected.table(sorted((RESULTS / "noise").glob("*.json")))
    drawn, told = ([line for line in lines[2:] if ("candidates" in line) == kind] for kind in (False, True))
    assert drawn
    assert told
    assert all(line in page for line in drawn)
    assert all("|".join(line.split("|")[:5]) in page for line in told)
