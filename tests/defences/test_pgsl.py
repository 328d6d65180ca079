"""The equations of PGSL, each against what it must satisfy."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from scipy.optimize import minimize
from torch import Tensor

from fedsec.defences.pgsl import (
    Fusion,
    Pgsl,
    attack,
    fold,
    late_fusion,
    late_shares,
    low_rank,
    recovered,
    reversed_map,
    saliency,
    scaled,
    shrunk,
    shuffled,
    unfold,
)
from fedsec.errors import ConfigError


def drawn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def scorer(classes: int = 3) -> Callable[[Tensor], Tensor]:
    weights = drawn(48, classes, seed=9)
    return lambda images: (images.flatten(1) @ weights).tanh() * 2


def test_alpha_and_beta_are_the_derivatives_of_the_own_and_of_all_other_scores() -> None:
    images, labels = drawn(4, 3, 4, 4), torch.tensor([0, 1, 2, 1])
    alpha, beta = saliency(scorer(), images, labels)
    rows = torch.func.jacrev(scorer())(images)
    for i, label in enumerate(labels.tolist()):
        others = [k for k in range(3) if k != label]
        torch.testing.assert_close(alpha[i], rows[i, label, i])
        torch.testing.assert_close(beta[i], rows[i, others, i].sum(dim=0))


def test_with_softmax_beta_is_minus_alpha_and_the_map_alpha_squared() -> None:
    images = drawn(4, 3, 4, 4)
    alpha, beta = saliency(scorer(), images, None, "softmax")
    torch.testing.assert_close(beta, -alpha)
    torch.testing.assert_close(reversed_map(alpha, beta), torch.where(alpha < 0, alpha.square(), 0.0))


def test_without_labels_the_class_of_the_highest_score_is_attacked() -> None:
    images = drawn(4, 3, 4, 4)
    best = scorer()(images).argmax(1)
    torch.testing.assert_close(saliency(scorer(), images, None), saliency(scorer(), images, best))


def test_the_map_is_zero_off_the_reversed_condition_and_never_negative() -> None:
    alpha, beta = drawn(2, 3, 8, 8), drawn(2, 3, 8, 8, seed=1)
    found = reversed_map(alpha, beta)
    kept = (alpha < 0) & (beta > 0)
    assert (found[~kept] == 0).all()
    assert (found[kept] > 0).all()
    assert 0 < int(kept.sum()) < kept.numel()


@pytest.mark.parametrize("scores", ["logits", "softmax"])
def test_the_attack_stays_in_range_and_lowers_the_score_of_the_class(scores: str) -> None:
    images = drawn(8, 3, 4, 4).clamp(-1, 1)
    chosen = Pgsl(scores=scores, scale="peak", step=0.2)  # type: ignore[arg-type]
    attacked, found = attack(images, scorer(), None, chosen, torch.Generator())
    assert float(attacked.abs().max()) <= 1
    peaks = found.flatten(1).amax(1)
    assert int((peaks == 0).sum()) < 4, "an image whose saliency never fits the condition has an empty map"
    torch.testing.assert_close(peaks[peaks > 0], torch.full_like(peaks[peaks > 0], 0.2))
    best = scorer()(images).argmax(1)[:, None]
    before, after = (scorer()(x).log_softmax(1).gather(1, best) for x in (images, attacked))
    assert float((after - before).mean()) < 0


def test_the_true_label_is_read_only_where_that_is_asked_for() -> None:
    known = Pgsl(label="true")
    images, wrong = drawn(4, 3, 4, 4), (scorer()(drawn(4, 3, 4, 4)).argmax(1) + 1) % 3
    predicted, true = (attack(images, scorer(), wrong, chosen, torch.Generator()) for chosen in (Pgsl(), known))
    none = attack(images, scorer(), None, Pgsl(), torch.Generator())
    torch.testing.assert_close(predicted[1], none[1])
    assert not torch.equal(true[1], none[1])


def test_raw_is_the_equation_and_peak_fixes_the_largest_value() -> None:
    found = drawn(3, 1, 4, 4).abs()
    found[2] = 0
    torch.testing.assert_close(scaled(found, "raw", 1.0), found)
    peak = scaled(found, "peak", 0.5)
    torch.testing.assert_close(peak.flatten(1).amax(1), torch.tensor([0.5, 0.5, 0.0]))
    torch.testing.assert_close(peak[0] / peak[0].max(), found[0] / found[0].max())


def test_off_leaves_the_images_alone_and_random_keeps_the_values_but_not_their_places() -> None:
    images = drawn(4, 3, 4, 4).clamp(-1, 1)
    same, nothing = attack(images, scorer(), None, Pgsl(perturb="off"), torch.Generator())
    assert torch.equal(same, images)
    assert not nothing.any()
    found = reversed_map(*saliency(scorer(), images, None))
    mixed = shuffled(found, torch.Generator().manual_seed(0))
    assert torch.equal(mixed.flatten(1).sort(1).values, found.flatten(1).sort(1).values)
    assert not torch.equal(mixed, found)
    assert torch.equal(mixed, shuffled(found, torch.Generator().manual_seed(0)))


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("map_channel", [True, False])
def test_space_to_depth_is_undone_exactly(channels: int, map_channel: bool) -> None:
    images, found = drawn(2, channels, 8, 8), drawn(2, channels, 8, 8, seed=1).abs()
    folded = fold(images, found, map_channel=map_channel)
    assert folded.shape == (2, 4 * channels + map_channel, 4, 4)
    back, sent = unfold(folded, channels)
    assert torch.equal(back, images)
    assert (sent is not None) == map_channel
    if sent is not None:
        assert float(sent[0, 0, 0, 0]) == pytest.approx(float(found[0, :, :2, :2].mean()))


def test_with_tau_0_and_mu_1_one_iteration_gives_x_hat_and_nothing_is_recovered() -> None:
    values = drawn(2, 4, 3, 3)
    chosen = Pgsl(mu=1.0, lam=0.0, iterations=1)
    torch.testing.assert_close(low_rank(values, chosen), values)
    torch.testing.assert_close(recovered(values, chosen), torch.zeros_like(values), atol=1e-5, rtol=0)


def literal(values: Tensor, lam: float, mu: float, iterations: int) -> Tensor:
    """The loop as it is printed, a decomposition an iteration."""
    bar = torch.zeros_like(values)
    for _ in range(iterations):
        left, singular, right = torch.linalg.svd(bar - mu * (bar - values), full_matrices=False)
        bar = left @ torch.diag((singular - lam * mu).clamp_min(0)) @ right
    return bar


@pytest.mark.parametrize("iterations", [1, 2, 10])
def test_one_decomposition_is_the_printed_loop(iterations: int) -> None:
    values = drawn(1, 5, 2, 4)
    found = low_rank(values, Pgsl(threshold="absolute", lam=0.7, iterations=iterations))
    torch.testing.assert_close(found[0].flatten(1), literal(values[0].flatten(1), 0.7, 0.55, iterations))


@pytest.mark.parametrize("mu", [0.1, 0.55, 1.0])
def test_the_loop_tends_to_the_closed_form_at_the_rate_one_minus_mu(mu: float) -> None:
    singular, lam = torch.tensor([3.0, 1.0, 0.4, 0.05]), torch.tensor([0.1])
    limit = shrunk(singular, lam, mu, 0)
    gaps = [float((shrunk(singular, lam, mu, n) - limit).abs().max()) for n in (10, 100)]
    assert gaps[0] == pytest.approx(2.9 * (1 - mu) ** 10, abs=1e-5)
    assert gaps[1] < 1e-4


def test_the_closed_form_is_the_prox_of_the_nuclear_norm() -> None:
    """No matrix does better on 1/2 ||x - m||^2 + lam ||m||_*; a general minimiser ends at the same one."""
    values, lam = drawn(1, 3, 2, 2).double(), 0.6
    found = low_rank(values, Pgsl(threshold="absolute", lam=lam, iterations=0))[0].flatten(1)
    matrix = values[0].flatten(1)

    def loss(flat: object) -> float:
        m = torch.as_tensor(flat, dtype=torch.float64).view_as(matrix)
        return float(0.5 * (matrix - m).square().sum() + lam * torch.linalg.svdvals(m).sum())

    best = minimize(loss, matrix.flatten().numpy(), method="Powell", options={"xtol": 1e-9, "ftol": 1e-12})
    assert loss(found.flatten().numpy()) <= best.fun + 1e-9
    torch.testing.assert_close(torch.as_tensor(best.x).view_as(matrix), found, atol=1e-3, rtol=0)


def test_the_residual_has_singular_values_of_at_most_lambda() -> None:
    values = drawn(2, 6, 4, 4)
    spectrum = torch.linalg.svdvals(values.flatten(2))
    absolute = recovered(values, Pgsl(threshold="absolute", lam=0.5, iterations=0))
    torch.testing.assert_close(torch.linalg.svdvals(absolute.flatten(2)), spectrum.clamp_max(0.5), atol=1e-4, rtol=0)
    relative = recovered(values, Pgsl(lam=0.25, iterations=0))
    limit = torch.minimum(spectrum, 0.25 * spectrum[:, :1])
    torch.testing.assert_close(torch.linalg.svdvals(relative.flatten(2)), limit, atol=1e-4, rtol=0)


@pytest.mark.parametrize("matrix", ["sample", "channel"])
def test_recovery_reads_each_sample_alone_and_passes_no_gradient(matrix: str) -> None:
    chosen = Pgsl(matrix=matrix)  # type: ignore[arg-type]
    values = drawn(3, 4, 4, 4).requires_grad_(True)
    together = recovered(values, chosen)
    assert not together.requires_grad
    torch.testing.assert_close(together[1:2], recovered(values[1:2], chosen))


def test_low_rank_and_residual_add_up_and_off_hands_the_activations_on() -> None:
    values = drawn(2, 4, 4, 4)
    both = recovered(values, Pgsl()) + recovered(values, Pgsl(recovery="low-rank"))
    torch.testing.assert_close(both, values)
    assert torch.equal(recovered(values, Pgsl(recovery="off")), values)


def test_fusion_is_the_convolution_of_both_streams_plus_the_first() -> None:
    fusion, first, second = Fusion(2), drawn(1, 2, 4, 4), drawn(1, 2, 4, 4, seed=1)
    with torch.no_grad():
        fusion.filter.weight.zero_()
        fusion.filter.weight[0, 3, 1, 1] = 2.0
        fusion.filter.bias[:] = torch.tensor([0.5, 0.0])  # type: ignore[index]
        out = fusion(first, second)
    torch.testing.assert_close(out[0, 0], 2 * second[0, 1] + 0.5 + first[0, 0])
    torch.testing.assert_close(out[0, 1], first[0, 1])


def test_late_fusion_is_equations_9_to_11() -> None:
    names = ("recovered", "fused", "attacked")
    scores = {name: drawn(5, 3, seed=i).softmax(1) for i, name in enumerate(names)}
    tops = {name: value.amax(1) for name, value in scores.items()}
    total = 0.5 * tops["recovered"] + 0.3 * tops["fused"] + 0.2 * tops["attacked"]
    gamma, rho = 0.5 * tops["recovered"] / total, 0.3 * tops["fused"] / total
    wanted = gamma[:, None] * scores["recovered"] + rho[:, None] * scores["fused"]
    wanted = wanted + (1 - gamma - rho)[:, None] * scores["attacked"]
    torch.testing.assert_close(late_fusion(scores, (0.5, 0.3, 0.2)), wanted)


@pytest.mark.parametrize("names", [("attacked", "recovered", "fused"), ("attacked", "recovered")])
def test_late_shares_lie_in_0_to_1_and_sum_to_1(names: tuple[str, ...]) -> None:
    shares = late_shares({name: drawn(9, seed=i).sigmoid() for i, name in enumerate(names)}, (0.5, 0.3, 0.2))
    values = torch.stack([*shares.values()])
    assert float(values.min()) >= 0
    assert float(values.max()) <= 1
    torch.testing.assert_close(values.sum(dim=0), torch.ones(9))


def test_switches_that_cannot_be_are_named_all_at_once() -> None:
    with pytest.raises(ConfigError, match=r"3 found(.|\n)*mu = 1.2(.|\n)*lam = -1(.|\n)*weights = \(1, 0, 0\)"):
        Pgsl(mu=1.2, lam=-1, weights=(1, 0, 0))
