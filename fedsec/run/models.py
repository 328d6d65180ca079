"""The model that a finished cell leaves in its run folder."""

from __future__ import annotations

import json
import os

from safetensors.numpy import save_file

from fedsec.run.plan import Plan
from fedsec.types import Arrays


def keep_model(plan: Plan, kind: str, arm: str, seed: int, arrays: Arrays) -> None:
    """``KIND-ARM-SEED.safetensors``, whole or not at all, with the cell's digest in its metadata."""
    path = plan.folder / f"{kind}-{arm}-{seed}.safetensors"
    partial = path.with_suffix(f".{os.getpid()}.part")
    facts = json.dumps({"arm": arm, "seed": seed, "digest": plan.digests[arm, seed]})
    save_file(arrays, partial, metadata={"fedsec": facts})
    os.replace(partial, path)
