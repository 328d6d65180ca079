"""What BatchNorm running statistics say of a client's batches: number of steps, batch moments, who was in them.

After N steps with momentum m a running statistic is s_N = (1-m)^N s_0 + m sum_k (1-m)^(N-k) b_k, b_k the batch's. So
the server, which holds s_0 and s_N, knows a weighted mean of the b_k exactly. The variance that torch tracks is the
unbiased one, n / (n-1) times the batch's own, n = B H W values a channel.
Source: the released attack of Hatamizadeh et al. 2023, which takes b = (s_N - (1-m) s_0) / m, right for N = 1 alone,
and leaves out (n-1)/n; both are put right here (our derivation).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from fedsec.errors import ProbeError
from fedsec.types import Arrays, Vector
from fedsec.weights import COUNTERS, STATISTICS

MEAN, VARIANCE = STATISTICS
(COUNTER,) = COUNTERS
EPS = 1e-5
"""BatchNorm's own eps: variances that differ by less than this are the same to the network."""


@dataclass(frozen=True, eq=False)
class Moments:
    """Mean and biased variance of one layer's input, channel by channel: (c,) float64 each."""

    mean: Vector
    var: Vector


@dataclass(frozen=True)
class RecoveryError:
    """Relative L2 error of one layer's recovered mean and variance; 0 is exact, 1 as bad as a guess of 0."""

    mean: float
    var: float


def steps_taken(before: Arrays, after: Arrays) -> int:
    """Local steps N in train mode, from the counters; exact.

    ``before``: what the server sent, ``after``: what came back, names as in a torch state dict; layers that did not
    come back are left out. 0 when no layer was in train mode.
    Errors: ProbeError when no counter came back, one went backwards or by a fraction (noised), or layers disagree.
    """
    deltas = {name: _counter(after, name) - _counter(before, name) for name in _layers(before, after, COUNTER)}
    if not deltas:
        raise ProbeError(f"no {COUNTER} in the update: the client keeps its counters, so give the steps by hand")
    odd = {name: delta for name, delta in deltas.items() if delta < 0 or not delta.is_integer()}
    if odd:
        raise ProbeError(f"a counter moved by {next(iter(odd.values())):g} ({next(iter(odd))}): noised or set anew")
    if len(set(deltas.values())) > 1:
        least, most = min(deltas, key=lambda name: deltas[name]), max(deltas, key=lambda name: deltas[name])
        raise ProbeError(
            f"layers disagree on the steps: {least} took {deltas[least]:g}, {most} took {deltas[most]:g}; "
            "some were frozen or ran more than once a step, so treat them apart"
        )
    return int(next(iter(deltas.values())))


def recovered(
    before: Arrays,
    after: Arrays,
    *,
    steps: int,
    momentum: float | None = 0.1,
    counts: Mapping[str, int] | None = None,
) -> dict[str, Moments]:
    """Layer -> weighted mean over the N steps of the batch means and of the biased batch variances; float64.

    (s_N - d s_0) / (1 - d) with d = ``kept``: step k of N weighs m (1-m)^(N-k) / (1-d), or 1/N with ``momentum`` None.
    ``counts``: layer -> n = B H W, the same each step; a layer it lacks, or None, keeps the unbiased variance.
    Guarantee: up to float32 rounding of s_N, magnified by ``noise_gain``. With noise a variance can come out below 0;
    it is left so. The weighted mean of variances is not the variance of all batches pooled.
    Errors: ProbeError when statistics did not come back, or steps < 1, 0 < momentum <= 1, n >= 2 is broken; with
    momentum None also when the server's own counters are not known.
    """
    layers = [name for name in _layers(before, after, VARIANCE) if _key(name, MEAN) in after]
    if not layers:
        raise ProbeError(f"no {MEAN} and {VARIANCE} in the update: the client keeps its statistics, nothing to recover")
    found = {}
    for name in layers:
        d = kept(momentum, steps, seen=_seen(before, name) if momentum is None else 0)
        mean, var = (
            (np.asarray(after[key], np.float64) - d * np.asarray(before[key], np.float64)) / (1 - d)
            for key in (_key(name, MEAN), _key(name, VARIANCE))
        )
        found[name] = Moments(mean, var * _debiasing(name, counts))
    return found


def kept(momentum: float | None, steps: int, seen: int = 0) -> float:
    """Weight d of the old statistic s_0 in the new one: (1-m)^N, or t / (t + N) with momentum None and t batches seen.

    Errors: ProbeError for steps < 1 or a momentum outside (0, 1].
    """
    if steps < 1:
        raise ProbeError(f"{steps} steps: running statistics tell nothing before the first step in train mode")
    if momentum is None:
        return seen / (seen + steps)
    if not 0 < momentum <= 1:
        raise ProbeError(
            f"momentum = {momentum:g}: must lie above 0 and at most at 1, or be None for a cumulative mean"
        )
    return float((1 - momentum) ** steps)


def weighted(steps: Sequence[Mapping[str, Moments]], momentum: float) -> dict[str, Moments]:
    """What ``recovered`` recovers: layer -> the weighted means of each step's batch mean and biased variance.

    ``steps``: of every local step in order, N of them; step k weighs m (1-m)^(N-k) / (1 - (1-m)^N).
    """
    shares = np.array([(1 - momentum) ** (len(steps) - 1 - k) for k in range(len(steps))])
    shares /= shares.sum()
    return {
        name: Moments(
            np.asarray(sum(share * step[name].mean for share, step in zip(shares, steps, strict=True))),
            np.asarray(sum(share * step[name].var for share, step in zip(shares, steps, strict=True))),
        )
        for name in steps[0]
    }


def noise_gain(momentum: float | None, steps: int, seen: int = 0) -> float:
    """Factor by which noise on the sent statistics grows in the recovered ones: 1 / (1 - d), d = ``kept``; >= 1."""
    return 1 / (1 - kept(momentum, steps, seen))


def recovery_error(recovered: Mapping[str, Moments], truth: Mapping[str, Moments]) -> dict[str, RecoveryError]:
    """Layer -> relative L2 error over the channels: ||recovered - truth|| / ||truth||, NaN where the truth is all 0.

    Only for who audits: an attacker has no truth. Errors: ProbeError when the truth lacks a layer.
    """
    _same_layers(recovered, truth, "the truth")
    return {
        name: RecoveryError(_relative(found.mean, truth[name].mean), _relative(found.var, truth[name].var))
        for name, found in recovered.items()
    }


def moment_likelihood(candidate: Mapping[str, Moments], target: Mapping[str, Moments]) -> float:
    """How well a candidate image's (or batch's) moments fit the recovered ones: at most 0, higher is likelier.

    Model: in each channel both are Gaussians N(mean, var + EPS). Score = - sum over layers of the mean over channels of
    KL(candidate || target) + KL(target || candidate) = ((v_c - v_t)^2 + (v_c + v_t) (m_c - m_t)^2) / (2 v_c v_t).
    The first half, times n, is the log-likelihood of the candidate's n values under the target, less its largest; the
    second makes the score symmetric. The candidate's moments are those of one step in train mode from the weights that
    the server sent. For membership without inversion: rank candidates, or take a threshold from known strangers.
    Guarantee: 0 for equal moments only (variances below 0, as noise makes them, count as 0); does not depend on the
    order of layers or channels; a wider layer weighs no more. Fits one step with one image. With more the target is a
    mean over them and tells of no single image: at 4 images a step, or 4 steps of one, members ranked no better than
    strangers (untrained ResNet-18, phantom lesions). Channels are taken as independent, which they are not: a score to
    rank by, not a probability. Errors: ProbeError when the candidate lacks a layer or a channel.
    """
    _same_layers(target, candidate, "the candidate")
    return -float(sum(_divergence(candidate[name], moments) for name, moments in target.items()))


def _divergence(one: Moments, other: Moments) -> float:
    """Symmetric Kullback-Leibler divergence of two layers' Gaussians, mean over channels."""
    v, w = np.maximum(one.var, 0) + EPS, np.maximum(other.var, 0) + EPS
    return float((((v - w) ** 2 + (v + w) * (one.mean - other.mean) ** 2) / (2 * v * w)).mean())


def _relative(found: Vector, truth: Vector) -> float:
    length = float(np.linalg.norm(truth))
    return float(np.linalg.norm(found - truth)) / length if length > 0 else float("nan")


def _same_layers(wanted: Mapping[str, Moments], given: Mapping[str, Moments], who: str) -> None:
    for name, moments in wanted.items():
        if name not in given or given[name].mean.shape != moments.mean.shape:
            raise ProbeError(f"{who} has no layer {name!r} of {len(moments.mean)} channels: take both from one network")


def _key(layer: str, leaf: str) -> str:
    return f"{layer}.{leaf}" if layer else leaf


def _layers(before: Arrays, after: Arrays, leaf: str) -> list[str]:
    """Layers whose ``leaf`` was sent and came back, in the order of the state dict."""
    return [
        name.removesuffix(leaf).removesuffix(".")
        for name in before
        if name.rsplit(".", 1)[-1] == leaf and name in after
    ]


def _counter(arrays: Arrays, layer: str) -> float:
    return float(np.asarray(arrays[_key(layer, COUNTER)], np.float64).item())


def _seen(before: Arrays, layer: str) -> int:
    """Batches behind s_0, which a cumulative mean needs."""
    if _key(layer, COUNTER) not in before:
        raise ProbeError(f"{layer!r} has no {COUNTER}: a cumulative mean needs the count the server sent")
    return int(_counter(before, layer))


def _debiasing(layer: str, counts: Mapping[str, int] | None) -> float:
    if counts is None or layer not in counts:
        return 1.0
    n = counts[layer]
    if n < 2:
        raise ProbeError(f"counts[{layer!r}] = {n}: a batch variance needs at least 2 values a channel (n = B H W)")
    return (n - 1) / n
