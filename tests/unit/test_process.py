"""How a stage ends: exit codes and notes for what libraries throw."""

import errno
import json
from pathlib import Path

import pytest
from safetensors import SafetensorError

from stages.errors import FetchError, GateError, InputError, Interrupted
from stages.process import run_stage


def end(error: BaseException, monkeypatch, tmp_path) -> tuple[int, dict]:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("stages.process.die_with_parent", lambda: None)
    monkeypatch.setattr("stages.process.STOP.install", lambda: None)

    def work() -> None:
        raise error

    code = run_stage("stage", work)
    return code, json.loads(Path(".work/last/stage.json").read_text())


@pytest.mark.parametrize(
    ("error", "code", "words"),
    [
        (InputError("x is y"), 2, "x is y"),
        (FetchError("gone"), 2, "gone"),
        (GateError("not equal"), 3, "not equal"),
        (Interrupted("stopped"), 143, "stopped"),
        (OSError(errno.ENOSPC, "No space left on device", "a/b"), 4, "disk is full: a/b"),
        (OSError("4194304 requested and 262016 written"), 4, "disk is full"),
        (SafetensorError("Error while serializing: IoError(Os { code: 28, kind: StorageFull })"), 4, "disk is full"),
        (MemoryError(), 4, "out of memory"),
        (RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory"), 4, "out of memory"),
        (RuntimeError("CUDA out of memory. Tried to allocate 2 GiB"), 4, "out of memory"),
    ],
)
def test_the_cause_decides_the_exit_code(error, code, words, monkeypatch, tmp_path, capsys):
    found, note = end(error, monkeypatch, tmp_path)
    assert found == note["code"] == code
    assert words in note["reason"]
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1
    assert note["retryable"] == (isinstance(error, FetchError | Interrupted))


def test_a_defect_keeps_its_trace_and_leaves_a_note(monkeypatch, tmp_path):
    with pytest.raises(KeyError):
        end(KeyError("surprise"), monkeypatch, tmp_path)
    note = json.loads(Path(".work/last/stage.json").read_text())
    assert (note["code"], note["reason"]) == (1, "KeyError: 'surprise'")
