"""What is shown while cells run."""

from __future__ import annotations

import io
from pathlib import Path

from rich.console import Console

from fedsec.log.runlog import RunLog
from fedsec.run.progress import RunProgress


def shown(progress: RunProgress, out: io.StringIO) -> str:
    out.truncate(out.seek(0))
    progress.refresh()
    return out.getvalue()


def test_a_cell_done_again_is_shown_from_its_start_and_not_as_it_was(tmp_path: Path) -> None:
    log = RunLog(tmp_path)
    log.cell_start("attack", 0, digest="old")
    log.cell_end("attack", 0, digest="old", seconds=1.0)
    out = io.StringIO()
    with RunProgress(tmp_path, Console(file=out), cells=[("attack", 0)], rounds=1) as progress:
        log.cell_start("clean", 0, digest="x")
        assert shown(progress, out) == "", "of an earlier run"
        log.cell_start("attack", 0, digest="new")
        assert "finished" not in shown(progress, out)
        log.cell_end("attack", 0, digest="new", seconds=1.0)
        assert "attack seed 0: round 0/1 finished" in shown(progress, out)
