"""Several stages one after the other in one process, which loads torch once: each by its own command line."""

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

SECONDS = 300
SCRIPT = """
import contextlib, io, json, sys
from importlib import import_module
for line in json.loads(sys.stdin.read()):
    name, *arguments = line.split()
    sys.argv = [name, *arguments]
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            code = import_module(f"stages.{name}.__main__").main()
        except SystemExit as ended:
            code = ended.code
        except Exception as error:
            code, _ = 1, print(repr(error), file=err)
    print(json.dumps({"code": code, "out": out.getvalue(), "err": err.getvalue()}), flush=True)
"""


@dataclass(frozen=True)
class Outcome:
    """How one stage ended."""

    code: int
    out: str
    err: str


def run_stages(folder: Path, lines: list[str]) -> dict[str, Outcome]:
    """Run command lines such as `train dcgan` in a folder; one that fails does not keep the next from running."""
    command = [sys.executable, "-c", SCRIPT]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        command, cwd=folder, env=environment, input=json.dumps(lines), capture_output=True, text=True, timeout=SECONDS
    )
    assert done.returncode == 0, done.stdout + done.stderr
    found = [Outcome(**json.loads(line)) for line in done.stdout.splitlines()]
    return dict(zip(lines, found, strict=True))
