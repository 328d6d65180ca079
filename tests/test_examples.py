"""What CONTRIBUTING says of adding is true: examples/added gives four keys a value more, and the laws hold of them."""

from __future__ import annotations

import shutil
import sys
import tomllib
from collections.abc import Iterator
from importlib.metadata import entry_points
from pathlib import Path

import numpy as np
import pytest

from fedsec.attacks.poison import POISONS
from fedsec.attacks.threat import threat
from fedsec.config import Attack, RunConfig
from fedsec.config.added import GROUPS, added
from fedsec.config.run_config import meanings
from fedsec.datasets import load
from fedsec.defences.reducers import REDUCERS, needs
from fedsec.errors import ConfigError, DataError
from fedsec.images import save_png, to_images, to_pixels
from fedsec.probes.audit import ATTACKS, Means
from tests.apps.test_laboratory import laboratory, quick
from tests.laws import test_reducers as reducers
from tests.laws.test_tables import test_a_poison_is_seeded_keeps_the_count_and_touches_its_fraction as seeded
from tests.metrics.samples import lesions
from tests.probes.rounds import SMALL, trained

EXAMPLE = Path(__file__).parents[1] / "examples/added"
NAMES = {"defence.name": "mean-around-median", "attack.name": "disc", "data.format": "flat"}
__all__ = ["quick"]


@pytest.fixture(autouse=True)
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """As ``pip install examples/added`` leaves it: the package, and what it says of itself."""
    install(tmp_path / "site", monkeypatch, name="fedsec-added")
    added.cache_clear()
    yield
    added.cache_clear()
    for module in [name for name in sys.modules if name.startswith("fedsec_added")]:
        del sys.modules[module]


def install(site: Path, monkeypatch: pytest.MonkeyPatch, *, name: str) -> None:
    told = tomllib.loads((EXAMPLE / "pyproject.toml").read_text())["project"]
    beside = site / f"{name.replace('-', '_')}-{told['version']}.dist-info"
    beside.mkdir(parents=True)
    (beside / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {told['version']}\n")
    lines = [
        f"[{group}]\n" + "".join(f"{k} = {v}\n" for k, v in points.items())
        for group, points in told["entry-points"].items()
    ]
    (beside / "entry_points.txt").write_text("\n".join(lines))
    shutil.copytree(EXAMPLE / "fedsec_added", site / "fedsec_added")
    monkeypatch.syspath_prepend(str(site))


def test_every_group_has_an_example_and_a_configuration_takes_it() -> None:
    assert all(entry_points(group=group) for group in GROUPS.values())
    config = RunConfig.from_flat(NAMES)
    assert (config.defence.name, config.attack.name, config.data.format) == tuple(NAMES.values())
    told = {key: allowed for key, _, allowed, _ in meanings()}
    assert all(f"| {name}" in told[key] for key, name in NAMES.items()), "fedsec config lists them"


def test_without_the_package_its_names_are_unknown_and_all_named_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "path", [path for path in sys.path if not path.endswith("/site")])
    added.cache_clear()
    with pytest.raises(ConfigError, match=r"\(3 found\)(?s:.)*'disc'(?s:.)*'mean-around-median'"):
        RunConfig.from_flat(NAMES)


def test_a_cell_is_another_one_when_the_package_is_another_version(tmp_path: Path) -> None:
    config = RunConfig.from_flat({"defence.name": "mean-around-median"})
    before = config.digest(seed=0, data="d")
    (metadata,) = (tmp_path / "site").glob("*.dist-info/METADATA")
    metadata.write_text(metadata.read_text().replace("0.1.0", "0.2.0"))
    added.cache_clear()
    assert config.digest(seed=0, data="d") != before


def test_a_name_that_is_taken_or_cannot_be_loaded_is_one_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (points,) = (tmp_path / "site").glob("*.dist-info/entry_points.txt")
    points.write_text(
        "[fedsec.reducers]\nmedian = fedsec_added.reducer:mean_around_median\nlost = fedsec_added.no:thing\n"
    )
    added.cache_clear()
    with pytest.raises(ConfigError, match=r"fedsec-added 0\.1\.0 adds a name that fedsec has"):
        RunConfig.from_flat({"defence.name": "median"})
    with pytest.raises(ConfigError, match=r"'lost': fedsec-added 0\.1\.0 cannot be loaded"):
        REDUCERS["lost"]


def test_the_laws_of_reducers_hold_of_the_added_one() -> None:
    name = "mean-around-median"
    assert needs(name) == (2, 1)
    for n in (7, 12):
        reducers.test_permuted_clients_get_permuted_shares_and_the_same_input_the_same_bits(name, n)
    for factor in (1e-7, 3.0, 1e7):
        reducers.test_a_scale_scales_the_answer(name, factor)
    reducers.test_equal_updates_return_themselves(name)
    updates = np.array([[0.0], [1.0], [2.0], [3.0], [1e6]])
    answer = REDUCERS[name](updates, reducers.situation(updates, 1))
    assert answer.update == pytest.approx([1.5]), "the outlier is left out"
    assert answer.shares == pytest.approx([0.25, 0.25, 0.25, 0.25, 0])


def test_the_laws_of_data_attacks_hold_of_the_added_one_and_it_has_words() -> None:
    seeded("disc")
    (line,) = threat(Attack(name="disc", fraction=0.5))  # type: ignore[arg-type]
    assert line.startswith("paint a white disc")
    assert POISONS["disc"].against == ""


def test_the_added_layout_is_read_and_its_problems_are_named(tmp_path: Path) -> None:
    folder = tmp_path / "images"
    folder.mkdir()
    pixels = lesions(24, "x").pixels
    for number, image in enumerate(pixels):
        save_png(image[None], folder / f"{'ab'[number % 2]}_{number // 2}_x.png")
    settings = {"data.source": str(folder), "data.format": "flat", "data.cache": str(tmp_path / "cache")}
    config = RunConfig.from_flat({**settings, "data.grouping": "classes"})
    dataset = load(config.data)
    assert dataset.class_names == ("a", "b")
    assert not set(dataset.groups[dataset.train]) & set(dataset.groups[dataset.test])
    save_png(pixels[:1], folder / "strange.png")
    with pytest.raises(DataError, match=r"strange\.png"):
        load(config.data)


def test_the_added_probe_is_an_attack_of_an_audit() -> None:
    done, public = trained(SMALL, batch=1), lesions(4, "public", channels=SMALL.channels, size=SMALL.size)
    public.pixels[2] = to_pixels(done.images.numpy())[0]
    public.labels[2] = int(done.labels[0])
    images, told = ATTACKS["nearest"](done.view, Means(to_images(public.pixels[:1]), public, 0))
    np.testing.assert_allclose(images, done.images, atol=0.01)
    assert np.isfinite(told["alike"])


def test_added_attack_and_reducer_run_together(quick: Path) -> None:
    record = laboratory(quick, {"added": {"attack.name": "disc", "defence.name": "mean-around-median"}}, "added")
    (cell,) = record.finished().values()
    assert all(sum(row.weights.values()) == pytest.approx(1) for row in cell.rounds)
