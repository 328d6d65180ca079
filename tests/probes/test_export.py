"""The payload that breaching reads: its parts by our own account, and its attacker where an interpreter has it.

``FEDSEC_BREACHING=PYTHON`` names an interpreter with breaching 0.1.2, torch, torchvision and safetensors.
"""

from __future__ import annotations

import json
import os
import subprocess
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from fedsec.errors import ProbeError
from fedsec.metrics.similarity import ssim
from fedsec.models.networks import build_network
from fedsec.probes.export import payload_of
from tests.probes.rounds import SMALL, Round, images_of, trained

ROOT = Path(__file__).parents[2]
TINY = replace(SMALL, size=16)
PYTHON = os.environ.get("FEDSEC_BREACHING", "")
ATTACK = """
import json, sys
from pathlib import Path
import breaching, numpy as np, torch
from fedsec.models.networks import build_network
from fedsec.probes.export import payload_of
from fedsec.probes.view import ServerView
torch.manual_seed(0)
view = ServerView.load(Path(sys.argv[1]))
payload, shared = payload_of(view, statistics=sys.argv[2] == "statistics")
cfg = breaching.get_attack_config("invertinggradients", overrides=["optim.max_iterations=" + sys.argv[3]])
attacker = breaching.attacks.prepare_attack(build_network(view.recipe.spec), torch.nn.CrossEntropyLoss(), cfg)
found, told = attacker.reconstruct([payload], [shared], {}, dryrun=False)
np.save(Path(sys.argv[1]) / "found.npy", found["data"].numpy())
print(json.dumps({"loss": float(told["opt_value"]), "labels": found["labels"].tolist()}))
"""


def labelled(done: Round) -> Round:
    return replace(done, view=replace(done.view, labels=tuple(int(label) for label in done.labels)))


@pytest.mark.parametrize("norm", ["batch", "frozen", "group", "none"])
def test_a_model_loads_it_in_the_order_of_its_tensors(norm: str) -> None:
    done = labelled(trained(TINY, norm=norm, batch=2))
    payload, shared = payload_of(done.view)
    network = build_network(done.view.recipe.spec)
    names = [name for name, _ in network.named_parameters()]
    for name, own, sent, change in zip(
        names, network.parameters(), payload["parameters"], shared["gradients"], strict=True
    ):
        assert own.shape == sent.shape == change.shape
        np.testing.assert_array_equal(sent.numpy(), done.view.before[name])
        assert sent.dtype == change.dtype == torch.float32
    assert (payload["buffers"] is not None) == (norm == "frozen")
    if payload["buffers"]:
        assert [b.shape for b in payload["buffers"]] == [b.shape for b in network.buffers()]
    assert payload["metadata"].shape == (1, 16, 16)
    assert payload["metadata"].modality == "vision"
    assert shared["metadata"]["num_data_points"] == 2
    assert shared["metadata"]["labels"].tolist() == [0, 1]
    assert shared["buffers"] is shared["metadata"]["local_hyperparams"] is None


def test_one_step_shares_the_gradient_itself() -> None:
    done = labelled(trained(TINY, norm="group", batch=2, lr=0.05, momentum=0.9))
    network = build_network(done.view.recipe.spec)
    network.load_state_dict({name: torch.from_numpy(np.array(v)) for name, v in done.view.before.items()})
    loss = nn.functional.cross_entropy(network(done.images), done.labels)
    for own, shared in zip(
        torch.autograd.grad(loss, list(network.parameters())), payload_of(done.view)[1]["gradients"], strict=True
    ):
        assert torch.linalg.vector_norm(own - shared) < 1e-3 * torch.linalg.vector_norm(own) + 1e-5


def test_several_steps_share_the_difference_and_how_it_came_about() -> None:
    done = labelled(trained(TINY, steps=3, batch=2, lr=0.05))
    _, shared = payload_of(done.view)
    for change, own in zip(shared["gradients"], done.update.values(), strict=True):
        torch.testing.assert_close(change, own)
    told = shared["metadata"]["local_hyperparams"]
    assert (told["lr"], told["steps"], told["data_per_step"]) == (0.05, 3, 2)
    assert [labels.tolist() for labels in told["labels"]] == [[0, 1]] * 3


def test_statistics_are_recovered_before_they_are_handed_over() -> None:
    done = trained(TINY, batch=4)
    _, shared = payload_of(done.view, labels=[0, 1, 0, 1], statistics=True)
    network = build_network(done.view.recipe.spec)
    assert [b.shape for b in shared["buffers"]] == [b.shape for b in network.buffers()]
    for step, (mean, var, _) in enumerate(zip(*[iter(shared["buffers"])] * 3, strict=True)):
        torch.testing.assert_close(mean, done.seen[0][step][0], rtol=1e-3, atol=1e-4)
        torch.testing.assert_close(var, done.seen[0][step][1], rtol=2e-2, atol=1e-4)


def test_what_breaching_cannot_simulate_is_refused() -> None:
    steps = trained(TINY, steps=2)
    with pytest.raises(ProbeError, match="needs the label of every image"):
        payload_of(steps.view)
    with pytest.raises(ProbeError, match="1 labels for 2 steps of 1"):
        payload_of(steps.view, labels=[0])
    with pytest.raises(ProbeError, match=r"momentum 0\.9 over 2 steps"):
        payload_of(trained(TINY, steps=2, momentum=0.9).view, labels=[0, 1])
    silent = {name: value for name, value in steps.view.after.items() if "running" not in name}
    with pytest.raises(ProbeError, match="keeps its statistics"):
        payload_of(replace(steps.view, after=silent), labels=[0, 1], statistics=True)


@pytest.mark.skipif(not PYTHON, reason="FEDSEC_BREACHING names no interpreter that has breaching 0.1.2")
@pytest.mark.parametrize(("steps", "statistics"), [(1, "none"), (1, "statistics"), (2, "none")])
def test_breachings_attacker_takes_it_and_reconstructs(steps: int, statistics: str, tmp_path: Path) -> None:
    """Without normalisation its image is nearer to the truth than grey is; with it, that it runs is what is asked."""
    bare = statistics == "none"
    recipe = replace(TINY, channels=3, norm="none" if bare else "batch")
    done = labelled(trained(recipe, steps=steps, lr=0.01))
    done.view.save(tmp_path)
    ran = subprocess.run(
        [PYTHON, "-W", "ignore", "-c", ATTACK, str(tmp_path), statistics, "300" if bare else "5"],
        env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert ran.returncode == 0, ran.stderr[-2000:]
    told = json.loads(ran.stdout.splitlines()[-1])
    found, truth = np.load(tmp_path / "found.npy"), images_of(recipe, steps, "round").numpy()
    assert found.shape == truth.shape
    assert np.abs(found).max() <= 1 + 1e-5
    assert told["labels"] == done.labels.tolist()
    if bare:
        assert told["loss"] < 0.5
        assert ssim(truth, found).mean() > 0.3
