"""What a site may do to an update before it leaves: laws over every entry, then each one's own."""

from __future__ import annotations

import numpy as np
import pytest

from fedsec.errors import ConfigError
from fedsec.privacy.percentile import percentile_noise
from fedsec.privacy.protection import BOUND, PROTECTIONS, Chosen, clip_noise, epsilon, parsed, prune, quantise
from fedsec.seeds import stream
from fedsec.types import Arrays, Vector

STRENGTHS = {"noise": 0.5, "clip-noise": 0.5, "prune": 0.7, "quantise": 0.3, "local-statistics": 1.0}
LEFT_OUT = {"local-statistics": {"bn.running_mean", "bn.running_var", "bn.num_batches_tracked"}}


def model(seed: int = 0) -> Arrays:
    rng = stream(seed, "model")
    return {
        "conv.weight": rng.normal(0, 1, (8, 3, 3, 3)).astype(np.float32),
        "bn.weight": rng.normal(1, 0.1, 8).astype(np.float32),
        "bn.running_mean": rng.normal(0, 1, 8).astype(np.float32),
        "bn.running_var": rng.uniform(1, 2, 8).astype(np.float32),
        "bn.num_batches_tracked": np.array(7),
        "fc.bias": rng.normal(0, 1, 2).astype(np.float32),
    }


def moved(before: Arrays, size: float = 0.01) -> Arrays:
    rng = stream(1, "update")
    after = {
        name: (np.asarray(value, np.float64) + size * rng.standard_normal(value.shape)).astype(value.dtype)
        if value.dtype.kind == "f"
        else value
        for name, value in before.items()
    }
    return {**after, "bn.num_batches_tracked": np.array(8)}


def sent(name: str, before: Arrays, after: Arrays, strength: float | None = None) -> Arrays:
    return Chosen(name, STRENGTHS[name] if strength is None else strength)(before, after, stream(0, "draw"))


def change(before: Arrays, after: Arrays, name: str) -> Vector:
    return np.asarray(after[name], np.float64) - np.asarray(before[name], np.float64)


def same(one: Arrays, two: Arrays) -> bool:
    return list(one) == list(two) and all(np.array_equal(one[name], two[name]) for name in one)


def test_the_strengths_of_these_tests_are_of_every_entry() -> None:
    assert set(STRENGTHS) == set(PROTECTIONS)
    assert all(entry.source for entry in PROTECTIONS.values())


@pytest.mark.parametrize("name", list(PROTECTIONS))
class TestLaws:
    def test_names_shapes_and_types_stay_but_for_what_is_said(self, name: str) -> None:
        before, after = model(), moved(model())
        found = sent(name, before, after)
        assert list(found) == [key for key in after if key not in LEFT_OUT.get(name, set())]
        assert all((found[k].shape, found[k].dtype) == (after[k].shape, after[k].dtype) for k in found)

    def test_strength_zero_sends_what_training_left(self, name: str) -> None:
        before, after = model(), moved(model())
        assert same(sent(name, before, after, 0.0), after)

    def test_it_does_something_and_touches_neither_input(self, name: str) -> None:
        before, after = model(), moved(model())
        assert not same(sent(name, before, after), after)
        assert same(before, model())
        assert same(after, moved(model()))

    def test_finite_stays_finite_at_any_strength(self, name: str) -> None:
        before = model()
        for size in (1e-30, 1e-3, 1e3):
            for strength in (STRENGTHS[name], 1.0):
                found = sent(name, before, moved(before, size), strength)
                assert all(np.isfinite(value).all() for value in found.values())

    def test_an_update_of_zeros_stays_one_or_is_hidden(self, name: str) -> None:
        before = model()
        found = sent(name, before, dict(before))
        assert all(np.isfinite(value).all() for value in found.values())
        still = all(np.array_equal(value, before[key]) for key, value in found.items())
        assert still == (name != "clip-noise"), "clip-noise must hide that there was no update"

    def test_equal_addresses_send_equal_updates(self, name: str) -> None:
        before, after = model(), moved(model())
        assert same(sent(name, before, after), sent(name, before, after))

    def test_counters_are_never_noised(self, name: str) -> None:
        found = sent(name, model(), moved(model()))
        assert int(found.get("bn.num_batches_tracked", np.array(8))) == 8

    def test_a_model_without_statistics_is_protected_too(self, name: str) -> None:
        before = {key: value for key, value in model().items() if not key.startswith("bn")}
        assert list(sent(name, before, moved({**before, "bn.num_batches_tracked": np.array(0)}))) != []


def test_noise_is_the_papers() -> None:
    before, after = model(), moved(model())
    assert same(sent("noise", before, after), percentile_noise(before, after, STRENGTHS["noise"], stream(0, "draw")))


def test_pruning_keeps_the_largest_changes_of_each_tensor_and_the_statistics() -> None:
    before, after = model(), moved(model())
    found = prune(before, after, 0.7, stream(0, "draw"))
    for name in ("conv.weight", "bn.weight", "fc.bias"):
        was, now = change(before, after, name).ravel(), change(before, found, name).ravel()
        kept = now != 0
        assert (~kept).sum() == int(0.7 * was.size)
        np.testing.assert_allclose(now[kept], was[kept], atol=1e-6)
        assert np.abs(was[kept]).min() >= np.abs(was[~kept]).max(initial=0)
    assert np.array_equal(found["bn.running_var"], after["bn.running_var"])
    nothing = prune(before, after, 1.0, stream(0, "draw"))
    assert all(np.array_equal(nothing[name], before[name]) for name in ("conv.weight", "fc.bias"))


def test_quantised_changes_are_few_values_and_right_on_average() -> None:
    values = stream(0, "values").uniform(-1, 1, 50_000)
    before: Arrays = {"w": np.zeros(50_000)}
    after: Arrays = {"w": values}
    found = np.asarray(quantise(before, after, 0.25, stream(0, "draw"))["w"], np.float64)
    step = 0.25 * float(np.abs(values).max())
    assert len(np.unique(found)) == 9
    np.testing.assert_allclose(found / step, np.rint(found / step), atol=1e-9)
    assert abs(float((found - values).mean())) < 4 * step / np.sqrt(len(found))
    assert float(np.abs(found - values).max()) <= step
    three = quantise(before, after, 1.0, stream(0, "draw"))["w"]
    assert len(np.unique(three)) == 3


def test_clipped_noise_has_the_norm_and_the_spread_it_promises() -> None:
    before: Arrays = {"w": np.zeros(40_000), "bn.running_mean": np.zeros(10)}
    after: Arrays = {"w": np.full(40_000, 3.0), "bn.running_mean": np.full(10, 9.0)}
    found = clip_noise(before, after, 0.2, stream(0, "draw"))
    whole = np.concatenate([after["w"], after["bn.running_mean"]])
    noise = np.concatenate([found["w"], found["bn.running_mean"]]) - BOUND * whole / np.linalg.norm(whole)
    assert float(noise.std()) == pytest.approx(0.2 * BOUND, rel=0.02)
    broken: Arrays = {"w": np.where(np.arange(40_000) == 0, np.nan, 1.0), "bn.running_mean": np.zeros(10)}
    assert np.isfinite(clip_noise(before, broken, 0.2, stream(0, "draw"))["w"]).all()


def test_epsilon_falls_with_noise_and_grows_with_releases() -> None:
    assert epsilon(0.0, 1e-3) == np.inf
    assert epsilon(1.0, 1e-3) > epsilon(4.0, 1e-3) > 0
    assert epsilon(1.0, 1e-3, 10) > epsilon(1.0, 1e-3)


def test_a_line_of_protections_is_read_in_order_and_mistakes_are_told() -> None:
    assert parsed("") == []
    assert parsed("prune=0.9, local-statistics=1") == [Chosen("prune", 0.9), Chosen("local-statistics", 1.0)]
    for text, told in (
        ("pruning=0.9", "is unknown: choose one of noise"),
        ("prune=1.5", "must be finite and 0 to 1"),
        ("prune=-1", "must be finite"),
        ("noise=inf", "must be finite"),
        ("noise=nan", "must be finite"),
        ("prune", "is written NAME=STRENGTH"),
        ("prune=much", "is written NAME=STRENGTH"),
        ("local-statistics=0.5", "nothing between"),
    ):
        with pytest.raises(ConfigError, match=told):
            parsed(text)
