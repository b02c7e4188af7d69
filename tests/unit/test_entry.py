"""Every command of `pipelines` ends with one line and a documented code, whatever gives out."""

import errno
import os
import signal
import sqlite3
import subprocess
import sys
import time
from importlib import import_module
from pathlib import Path

import pytest

from stages.errors import GateError, Interrupted

FULL = OSError(errno.ENOSPC, "No space left on device", "a/b")
COMMANDS = {  # command -> its arguments, and what of it gives out
    "plan": ([], "plan"),
    "refresh": ([], "load_settings"),
    "publish": ([], "load_settings"),
    "run": ([], "opened_project"),
    "stylegan_zip": (["--out", "a.zip"], "write_stylegan_zip"),
    "serve": (["--cron", "0 3 * * *"], "load_settings"),
    "flows.__main__": (["lifecycle"], "load_settings"),
}


def call(name: str, error: BaseException, monkeypatch: pytest.MonkeyPatch) -> int:
    """Return the exit code of a command in which an error arises."""
    module = import_module(f"pipelines.{name}")
    arguments, part = COMMANDS[name]

    def give_out(*_args: object, **_more: object) -> None:
        raise error

    monkeypatch.setattr(module, part, give_out)
    monkeypatch.setattr(sys, "argv", [name, *arguments])
    code: int = module.main()
    return code


@pytest.fixture(autouse=True)
def kept_signals():
    """Give the tests' process its own handling of signals back."""
    numbers = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
    before = [signal.getsignal(number) for number in numbers]
    yield
    for number, handler in zip(numbers, before, strict=True):
        signal.signal(number, handler)


@pytest.mark.parametrize("name", COMMANDS)
@pytest.mark.parametrize(
    ("error", "code", "words"),
    [
        (FULL, 4, "the disk is full: a/b"),
        (sqlite3.OperationalError("database or disk is full"), 4, "the disk is full"),
        (OSError(errno.EROFS, "Read-only file system", "data/x"), 4, "data/x cannot be written: Read-only file system"),
        (PermissionError(errno.EACCES, "Permission denied", ".work/locks"), 4, ".work/locks cannot be written"),
        (Interrupted("stopped by SIGINT"), 143, "stopped by SIGINT"),
        (GateError("x is y"), 3, "x is y"),
    ],
)
def test_what_gives_out_is_one_line_and_a_code(name, error, code, words, monkeypatch, capsys) -> None:
    assert call(name, error, monkeypatch) == code
    told = capsys.readouterr().err
    command = name.partition(".")[0]
    assert told.startswith(f"{command}: {words}")
    assert told.count("\n") == 1


def test_a_defect_keeps_its_trace(monkeypatch) -> None:
    with pytest.raises(KeyError):
        call("plan", KeyError("surprise"), monkeypatch)


SPEAKING = "import sys; from pipelines.entry import answer; sys.exit(answer('demo', lambda: print('result') or 0))"
WAITING = """
import pathlib, sys, time
from pipelines.entry import answer
def work():
    pathlib.Path("started").touch()
    time.sleep(60)
    return 0
sys.exit(answer("demo", work))
"""


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_output_on_a_full_disk_is_told() -> None:
    with Path("/dev/full").open("w") as full:
        done = subprocess.run([sys.executable, "-c", SPEAKING], stdout=full, stderr=subprocess.PIPE, text=True)
    assert (done.returncode, done.stderr) == (4, "demo: the disk is full: free some space; what was finished is kept\n")


@pytest.mark.parametrize("under_nohup", [False, True])
def test_closed_terminal_stops_a_command_unless_under_nohup(tmp_path: Path, under_nohup: bool) -> None:
    before = (lambda: signal.signal(signal.SIGHUP, signal.SIG_IGN)) if under_nohup else None
    line = [sys.executable, "-c", WAITING]
    process = subprocess.Popen(line, cwd=tmp_path, stderr=subprocess.PIPE, text=True, preexec_fn=before)
    while not (tmp_path / "started").exists():
        assert process.poll() is None
        time.sleep(0.05)
    os.kill(process.pid, signal.SIGHUP)
    if under_nohup:
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(1.0)
        process.terminate()
    _, told = process.communicate(timeout=20)
    number = "SIGTERM" if under_nohup else "SIGHUP"
    assert (process.returncode, told) == (143, f"demo: stopped by {number}\n")
