"""Logs and cells that are kept packed read as they would unpacked."""

from __future__ import annotations

import lzma
from pathlib import Path

import pytest

from fedsec.errors import RunError
from fedsec.log import cells, files, runlog
from fedsec.log.runlog import EVENTS, RunLog
from tests.reports.fake_run import build

KEYS = [("vanilla", 0), ("attack", 0)]


@pytest.fixture
def run(tmp_path: Path) -> Path:
    return build(tmp_path / "run")


def test_a_packed_log_reads_the_same_and_is_unpacked_to_be_written_to(run: Path) -> None:
    before, plain = runlog.read(run), (run / EVENTS).read_bytes()
    files.pack(run / EVENTS)
    assert not (run / EVENTS).exists()
    assert repr(runlog.read(run)) == repr(before), "NaN is not itself"
    assert runlog.finished_cells(run)
    again = files.packed(run / EVENTS).read_bytes()
    RunLog(run)
    assert (run / EVENTS).read_bytes() == plain
    assert not files.packed(run / EVENTS).exists(), "one of the two, or they would part"
    files.pack(run / EVENTS)
    assert files.packed(run / EVENTS).read_bytes() == again


def kept(run: Path, folder: Path) -> dict[tuple[str, int], str]:
    for key in KEYS:
        cells.keep(run, folder, key)
    return {key: runlog.finished_cells(run)[key] for key in KEYS}


def test_packed_cells_are_found_as_files_are(run: Path, tmp_path: Path) -> None:
    folder = tmp_path / "cells"
    digests = kept(run, folder)
    lines, rules = {key: cells.lines(folder, key) for key in KEYS}, cells.rules(folder, KEYS)
    assert cells.pack(folder) == sorted(KEYS)
    assert [path.name for path in folder.iterdir()] == ["cells.jsonl.xz"]
    assert {key: cells.lines(folder, key) for key in KEYS} == lines
    assert cells.rules(folder, KEYS) == rules
    assert all(cells.holds(folder, key, digest) for key, digest in digests.items())
    assert not cells.holds(folder, KEYS[0], "another")
    assert cells.recall(tmp_path / "again", folder, digests) == KEYS
    assert cells.lines(folder, ("vanilla", 9)) == []


def test_a_pack_grows_and_a_file_of_its_own_goes_before_it(run: Path, tmp_path: Path) -> None:
    folder = tmp_path / "cells"
    cells.keep(run, folder, KEYS[0])
    cells.pack(folder)
    cells.keep(run, folder, KEYS[1])
    own = cells.place(folder, KEYS[0])
    newer = cells.lines(folder, KEYS[0])[:-1]
    own.write_text("\n".join(newer) + "\n", encoding="utf-8")
    assert cells.lines(folder, KEYS[0]) == newer
    assert cells.pack(folder) == sorted(KEYS)
    assert cells.lines(folder, KEYS[0]) == newer


@pytest.mark.parametrize("content", [b"no xz", lzma.compress(b"no json\n"), lzma.compress(b'{"event": "round"}\n')])
def test_a_pack_that_cannot_be_read_is_named(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "cells.jsonl.xz").write_bytes(content)
    with pytest.raises(RunError, match=r"cells\.jsonl\.xz: not a pack of cells"):
        cells.lines(tmp_path, KEYS[0])
    (tmp_path / "events.jsonl.xz").write_bytes(b"no xz")
    with pytest.raises(RunError, match=r"events\.jsonl\.xz: not an xz file"):
        runlog.read(tmp_path)
