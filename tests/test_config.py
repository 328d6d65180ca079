"""RunConfig: complete, round-trip, all mistakes at once, the same defaults as pyproject.toml."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedsec.config import RunConfig, meanings
from fedsec.config.files import parse_settings, read_experiment
from fedsec.config.toml import flatten, write_config
from fedsec.errors import ConfigError

ROOT = Path(__file__).parents[1]


def test_flat_round_trip() -> None:
    config = RunConfig.from_flat({"data.size": 64, "gan.loss": "hinge", "run.seeds": "3,4"})
    assert RunConfig.from_flat(config.to_flat()) == config
    assert config.seeds == (3, 4)


def test_pyproject_holds_every_key_with_the_same_default() -> None:
    table = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    assert flatten(table["tool"]["flwr"]["app"]["config"]) == {key: default for key, default, _, _ in meanings()}


def test_what_fed_inspect_looks_at_and_its_rule_name_its_cells_and_nobody_elses() -> None:
    def digests(defence: str, rule: str) -> list[str]:
        return [
            RunConfig.from_flat({"defence.name": defence, "defence.inspects": inspects}).digest(
                seed=0, data="x", rule=rule
            )
            for inspects in ("all", "sharp", "whole")
        ]

    named = [digests("fed-inspect", rule) for rule in ("", "1", "2")]
    assert len({digest for one in named for digest in one}) == 9
    assert len(set(digests("fed-avg", "")) | set(digests("fed-avg", "1"))) == 1, "nobody else reads it"
    detect = [digests("fed-detect", rule) for rule in ("", "1", "2")]
    assert [len(set(one)) for one in detect] == [1, 1, 1], "FedDetect draws nothing"
    assert len({one[0] for one in detect}) == 3


def test_all_mistakes_come_at_once() -> None:
    wrong = {"data.size": 33, "split.clients": -1, "nonsense": 1, "train.lr": "fast"}
    with pytest.raises(ConfigError) as caught:
        RunConfig.from_flat(wrong)
    for part in ("data.size = 33", "32, 64, 128", "split.clients = -1", "nonsense", "train.lr = 'fast'"):
        assert part in str(caught.value)


@pytest.mark.parametrize(
    ("flat", "told"),
    [
        ({"attack.malicious": "7", "split.clients": 4}, "there are 4 clients"),
        ({"attack.malicious": "a"}, "whole numbers"),
        ({"run.seeds": ""}, "at least one"),
        ({"run.seeds": "1,1"}, "distinct"),
        ({"attack.size": 31}, "border"),
        ({"data.size": 224}, "only train.task = 'classifier'"),
        ({"run.name": "../x"}, "plain folder name"),
        ({"run.arms": "{"}, "not JSON"),
        ({"run.arms": "[]"}, "at least one arm"),
        ({"run.arms": '{"a b": {}}'}, "use letters"),
        ({"run.arms": '{"a": {"data.size": 64}}'}, "the same for every arm"),
        ({"run.arms": '{"a": {"gan.loss": "x"}}'}, "arm 'a': gan.loss = 'x'"),
        ({"train.penalty": 3.0}, "wgan-gp"),
        ({"train.lr": float("nan")}, "must be a number"),
        ({"gan.mirror": 1}, "must be bool"),
        ({"defence.name": "fed-detect", "train.steps": 5}, "take at least 6"),
        ({"run.arms": '{"a": {"defence.name": "fed-detect", "train.steps": 2}}'}, "arm 'a': train.steps = 2"),
        ({"defence.name": "fed-detect", "defence.rule": "paper", "defence.reported": "drop"}, "reads a loss"),
        ({"train.rounds": True}, "must be int"),
        ({"defence.name": "dp-fixed", "gan.statistics": "shared"}, "variance negative"),
        ({"defence.name": "dp-adaptive", "privacy.noised-by": "clients"}, "take dp-fixed"),
        ({"gan.family": "diffusion", "gan.share": "both"}, "has no discriminator"),
        (
            {"defence.name": "fed-inspect", "gan.share": "both"},
            "gan.share = 'both': fed-inspect .* nobody inspected; set",
        ),
        ({"attack.update": "discriminator-only"}, "no discriminator is sent; set"),
        (
            {"attack.update": "below-the-bar", "train.task": "classifier"},
            "attack.update = 'below-the-bar': knows rules about generators",
        ),
        (
            {"attack.update": "latent-conditional", "gan.family": "diffusion", "train.beta1": 0.9},
            "trains a DCGAN, gan.family is 'diffusion'",
        ),
        ({"attack.name": "patch", "attack.start": 101}, "attack.start = 101: nobody would ever attack in 100 rounds"),
        ({"attack.name": "patch", "attack.start": 9, "attack.stop": 8}, "attack.stop = 8; start earlier"),
        ({"attack.period": 0}, "attack.period = 0: must be at least 1"),
        ({"attack.class": -2}, "attack.class = -2: must be at least -1"),
        ({"gan.family": "diffusion", "gan.width": 24}, "multiple of 16"),
        ({"gan.family": "diffusion"}, "train.beta1 = 0.5: is a GAN's"),
        ({"train.task": "classifier", "classifier.network": "perceptron"}, "one value a channel"),
        (
            {"train.task": "classifier", "leakage.probe": "statistics", "classifier.norm": "group"},
            "train-mode BatchNorm",
        ),
        ({"train.task": "classifier", "leakage.probe": "statistics", "classifier.sends": "weights"}, "BatchNorm sends"),
        ({"gan.family": "diffusion", "privacy.image-bound": 1.0}, "DP-SGD is of a discriminator"),
        ({"gan.loss": "wgan-gp", "privacy.image-bound": 1.0}, "gradient penalty"),
    ],
)
def test_a_broken_rule_says_value_and_rule(flat: dict[str, Any], told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        RunConfig.from_flat(flat)


def test_digest_ignores_speed_and_place_but_nothing_else() -> None:
    base = RunConfig()
    digest = base.digest(seed=0, data="d")
    neutral = {"speed.workers": 7, "run.name": "other", "run.out": "x", "data.source": "moved", "data.cache": "c"}
    assert RunConfig.from_flat({**base.to_flat(), **neutral}).digest(seed=0, data="d") == digest
    for key, value in {"train.lr": 1e-4, "gan.loss": "hinge", "attack.blend": 0.5, "data.seed": 1}.items():
        assert RunConfig.from_flat({**base.to_flat(), key: value}).digest(seed=0, data="d") != digest
    assert base.digest(seed=1, data="d") != digest
    assert base.digest(seed=0, data="e") != digest


def test_what_a_rule_reads_by_itself_is_the_same_cell_as_when_it_is_named() -> None:
    for rule, reads in {"released": "last", "paper": "last", "calibrated": "drop"}.items():
        told = {"defence.name": "fed-detect", "defence.rule": rule}
        auto, named = RunConfig.from_flat(told), RunConfig.from_flat({**told, "defence.reported": reads})
        assert auto.defence.reads == reads
        assert auto.digest(seed=0, data="d") == named.digest(seed=0, data="d")


@settings(deadline=None, max_examples=50)
@given(st.text(max_size=30))
def test_any_text_survives_config_toml(text: str) -> None:
    import tempfile

    config = RunConfig.from_flat({"data.source": text})
    with tempfile.TemporaryDirectory() as folder:
        write_config(config, Path(folder))
        read = flatten(tomllib.loads((Path(folder) / "config.toml").read_text(encoding="utf-8")))
    assert RunConfig.from_flat(read) == config


@pytest.mark.parametrize("profile", ["", "quick", "full", "large", "paper"])
def test_the_isic_experiment_parses_in_every_profile(profile: str) -> None:
    config = read_experiment(ROOT / "experiments" / "isic.toml", profile, ["data.source=phantom"])
    assert "vanilla" in config.arms
    assert all(config.arm(name).data == config.data for name in config.arms)


@pytest.mark.parametrize("profile", ["", "quick", "full", "large"])
def test_the_chestx_experiment_parses_in_every_profile(profile: str) -> None:
    config = read_experiment(ROOT / "experiments" / "chestx.toml", profile, ["data.source=phantom"])
    assert {"vanilla", "attack", "attack+fed-inspect"} <= set(config.arms)
    assert (config.data.modality, config.gan.mirror) == ("chest", False)


@pytest.mark.parametrize("profile", ["", "quick", "sweep", "full", "large"])
def test_the_leakage_experiment_parses_in_every_profile(profile: str) -> None:
    config = read_experiment(ROOT / "experiments" / "leakage.toml", profile, ["data.source=phantom"])
    assert {"plain", "fed-bn"} <= set(config.arms)
    assert (config.split.clients, config.batches[8], config.train.task) == (9, 1, "classifier")


def test_the_epsilon_profile_leaves_statistics_out_of_what_is_clipped() -> None:
    config = read_experiment(ROOT / "experiments" / "leakage.toml", "epsilon", ["data.source=phantom"])
    chosen = [config.arm(arm).classifier for arm in config.arms]
    assert sum("clip-noise" in one.protect for one in chosen) == 7
    assert all(one.norm == "group" or one.sends == "weights" for one in chosen)


@pytest.mark.parametrize("profile", ["", "quick", "full", "large"])
def test_the_pgsl_experiment_parses_in_every_profile(profile: str) -> None:
    config = read_experiment(ROOT / "experiments" / "pgsl.toml", profile, ["data.source=phantom"])
    assert {"split", "pgsl", "recovery-off", "random-map", "noise-1", "no-peek"} <= set(config.arms)
    assert len({config.arm(arm).cut.noise for arm in config.arms}) >= 4, "a noise curve"
    assert config.leakage.every
    assert (config.train.task, config.arm("pgsl").pgsl.on, config.arm("split").pgsl.on) == (
        "split-learning",
        True,
        False,
    )


def test_overrides_beat_profile_and_file(tmp_path: Path) -> None:
    file = tmp_path / "x.toml"
    file.write_text(
        'train.rounds = 1\n[profiles.p]\ntrain.rounds = 2\narms = ["b"]\n[arms.a]\n[arms.b]\ngan.ema = 0.5\n'
    )
    config = read_experiment(file, "p", ["train.rounds=3", "run.name=n"])
    assert config.train.rounds == 3
    assert config.arms == {"b": {"gan.ema": 0.5}}
    assert config.arm("b").gan.ema == 0.5


def test_unreadable_settings_are_all_named() -> None:
    with pytest.raises(ConfigError, match=r"'a'.*\n.*'b'"):
        parse_settings(["a", "b", "c=1"])


@pytest.mark.parametrize("words", [["--profile", "none"], []])
def test_wrong_profile_or_file_is_one_clear_error(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    from fedsec.cli import main

    file = str(ROOT / "experiments" / "isic.toml") if words else "absent.toml"
    assert main(["run", file, *words]) == 1
    told = capsys.readouterr().err
    assert "fedsec:" in told
    assert "Traceback" not in told


def test_arms_are_json_with_scalars() -> None:
    assert json.loads(RunConfig().run.arms) == RunConfig().arms
