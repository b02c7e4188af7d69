"""Several processes for one training: started by the stage itself where WORLD_SIZE says so, ended together.

`WORLD_SIZE=2 dvc repro` starts two on this machine, one per GPU. Under a launcher such as torchrun, which sets RANK,
the stage is one of the processes that the launcher started.
"""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

from stages.errors import InputError, Interrupted, ResourceError, StageError

LEADER = "IMAGE_FOUNDRY_LEADER"  # set for the processes that a stage started: it speaks for them
POLL_SECONDS = 0.1
LOST_PEER = "another process of this training has gone"
GRACE_SECONDS = 10.0  # for the others to notice that one has ended; each state on disk is whole
PEER_SIGNS = ("gloo", "connection closed by peer", "connection reset by peer", "nccl", "tcpstore")


def world_size() -> int:
    """Return how many processes train one model together.

    Raises:
        InputError: WORLD_SIZE is no number from 1.
    """
    text = os.environ.get("WORLD_SIZE", "1")
    if not text.isdecimal() or int(text) < 1:
        raise InputError(f"WORLD_SIZE is {text}; expected a number from 1")
    return int(text)


def rank() -> int:
    """Return this process's number among those of one training, 0 where it is alone."""
    return int(os.environ["RANK"]) if is_rank() else 0


def is_rank() -> bool:
    """Return whether this process is one of several of a training."""
    return "RANK" in os.environ and os.environ.get("WORLD_SIZE", "1") != "1"  # also where that is no number


def stay_alone() -> None:
    """Let libraries that read WORLD_SIZE see one process: it is meant for training."""
    for name in ("WORLD_SIZE", "RANK", "LOCAL_RANK"):
        os.environ.pop(name, None)


def has_leader() -> bool:
    """Return whether a stage started this process as one of several and speaks for them."""
    return LEADER in os.environ


def name_of(stage: str, number: int | None = None) -> str:
    """Return the name under which one of several processes (default: this one) leaves its note."""
    return f"{stage}.rank{rank() if number is None else number}"


def is_lost_peer(error: BaseException) -> bool:
    """Return whether an error says that another process of the training has gone."""
    return is_rank() and any(sign in str(error).lower() for sign in PEER_SIGNS)


def lost_peer(error: BaseException) -> ResourceError:
    """Return that another process has gone, with what the library said: it may have been the connection itself."""
    first = " ".join((str(error).splitlines() or [""])[0].split())[:200]
    return ResourceError(f"{LOST_PEER} ({first})")


class Ranks:
    """The processes of one training, all running this process's own command line."""

    def __init__(self, stage: str, notes: Path) -> None:
        self.stage, self.notes = stage, notes
        self.processes: list[subprocess.Popen] = []
        self.failed_first: int | None = None
        self.interrupted: Interrupted | None = None

    def run(self) -> None:
        """Start one process per rank and wait for all; the end of one ends the others.

        Raises:
            Interrupted: this process was asked to stop; every rank has saved or was killed.
            StageError: a rank failed: its reason.
        """
        shared = self._shared_environment()
        for number in range(world_size()):
            (self.notes / f"{name_of(self.stage, number)}.json").unlink(missing_ok=True)
        try:
            for number in range(world_size()):
                self.processes.append(self._start(number, shared))
            self._watch()
        except Interrupted as error:
            self.interrupted = error
            self._pass_on(signal.SIGTERM)
            self._watch()  # the supervisor's patience is the limit
        finally:
            self._pass_on(signal.SIGKILL)
            self._wait(GRACE_SECONDS)
        self._raise_reason()

    def _shared_environment(self) -> dict[str, str]:
        shared = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port()), LEADER: str(os.getpid())}
        if sys.platform == "linux":
            shared["GLOO_SOCKET_IFNAME"] = os.environ.get("GLOO_SOCKET_IFNAME", "lo")
        threads = max(1, (os.cpu_count() or 1) // world_size())  # accelerate would give all cores to each
        return {"OMP_NUM_THREADS": str(threads), **os.environ, **shared}

    def _start(self, number: int, shared: dict[str, str]) -> subprocess.Popen:
        environment = shared | {"RANK": str(number), "LOCAL_RANK": str(number)}
        output = None if number == 0 else subprocess.DEVNULL
        return subprocess.Popen([sys.executable, *sys.orig_argv[1:]], env=environment, stdout=output)

    def _watch(self) -> None:
        """Wait until all have ended; give the others a moment once one has failed."""
        deadline = float("inf")
        while any(process.poll() is None for process in self.processes):
            failed = [number for number, process in enumerate(self.processes) if process.returncode]
            if failed and deadline == float("inf"):
                self.failed_first = failed[0] if self.failed_first is None else self.failed_first
                deadline = time.monotonic() + GRACE_SECONDS
            if time.monotonic() > deadline:
                return
            time.sleep(POLL_SECONDS)

    def _pass_on(self, number: int) -> None:
        for process in self.processes:
            if process.poll() is None:
                process.send_signal(number)

    def _wait(self, seconds: float) -> None:
        deadline = time.monotonic() + seconds
        while any(process.poll() is None for process in self.processes) and time.monotonic() < deadline:
            time.sleep(POLL_SECONDS)

    def _raise_reason(self) -> None:
        """Raise what ended the training: the others only lost their connection to it, or were ended here."""
        numbers = sorted(range(len(self.processes)), key=lambda number: number != self.failed_first)
        noted = {number: self._noted(number) for number in numbers}
        causes = [error or self._killed(number) for number, error in noted.items()]
        failures = [error for error in causes if error]
        failures.sort(key=lambda error: str(error).startswith(LOST_PEER))
        if failures:
            raise failures[0]

    def _noted(self, number: int) -> StageError | None:
        """Return the failure that a rank has left a note of."""
        try:
            note = json.loads((self.notes / f"{name_of(self.stage, number)}.json").read_text())
        except (OSError, ValueError):
            return None
        if note["code"] == 0:
            return None
        error = StageError(note["reason"])
        error.code, error.retryable = note["code"], note["retryable"]
        return error

    def _killed(self, number: int) -> StageError | None:
        """Return how a rank without a note ended, None where it finished."""
        code = self.processes[number].returncode
        if code == 0:
            return None
        if self.interrupted:  # it was asked before it could answer
            return self.interrupted
        how = signal.Signals(-code).name if code and code < 0 else f"exit code {code}"
        error = ResourceError(f"process {number} of {len(self.processes)} ended by {how}; out of memory?")
        error.retryable = True  # a training goes on from its state
        return error


def free_port() -> int:
    """Return a TCP port of the loopback interface that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
