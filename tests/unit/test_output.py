"""A process whose terminal is closed or whose reader has ended goes on and says so to nobody."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

SPEAKING = """
import pathlib, sys, time
from stages.output import survive_lost_output
if sys.argv[1] == "lossy":
    survive_lost_output()
print("first", flush=True)
pathlib.Path("started").touch()
sys.stdin.readline()
for number in range(3):
    print("lost", number, flush=True)
    print("lost", number, file=sys.stderr, flush=True)
pathlib.Path("whole").touch()
"""


@pytest.mark.parametrize("kind", ["lossy", "plain"])
@pytest.mark.parametrize("ends", [os.pipe, os.openpty])
def test_only_a_lossy_process_survives_its_reader(tmp_path: Path, kind: str, ends) -> None:
    reader, writer = ends()
    line = [sys.executable, "-c", SPEAKING, kind]
    process = subprocess.Popen(line, cwd=tmp_path, stdin=subprocess.PIPE, stdout=writer, stderr=writer, text=True)
    os.close(writer)
    assert os.read(reader, 100).split() == [b"first"]
    os.close(reader)
    process.communicate("\n", timeout=60)
    assert (process.returncode == 0) == (kind == "lossy")
    assert (tmp_path / "whole").exists() == (kind == "lossy")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_full_disk_is_still_an_error(tmp_path: Path) -> None:
    with Path("/dev/full").open("w") as full:
        line = [sys.executable, "-c", SPEAKING, "lossy"]
        done = subprocess.run(line, cwd=tmp_path, input="\n", stdout=full, stderr=subprocess.PIPE, text=True)
    assert done.returncode != 0
    assert "No space left on device" in done.stderr


def test_streams_without_a_descriptor_stay() -> None:
    script = "import io, sys; from stages.output import survive_lost_output; sys.stdout = kept = io.StringIO();"
    check = "survive_lost_output(); assert sys.stdout is kept; print('ü', file=sys.stderr)"
    done = subprocess.run([sys.executable, "-c", f"{script} {check}"], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "ü\n")
