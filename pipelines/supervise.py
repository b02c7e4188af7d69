"""Runs one command so that nothing of it outlives the process that asked: `python -m pipelines.supervise -- CMD...`.

A separate, single-threaded process, since Linux ties PR_SET_PDEATHSIG to the parent's thread, and since a runner or a
flow that is killed with SIGKILL cannot clean up after itself. It imports nothing heavy and starts in under 100 ms.
"""

import argparse
import contextlib
import ctypes
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType

PR_SET_PDEATHSIG = 1
PR_SET_CHILD_SUBREAPER = 36
GRACE_SECONDS = 60.0  # a training may need this long to save its state
POLL_SECONDS = 0.5
STOPPED = 143
CANNOT_START = 127
PARENT_ENDED = signal.SIGHUP  # unlike a user's second request it must not cut short the saving that the first began

Prctl = Callable[..., int]


def load_prctl() -> Prctl | None:
    """Return Linux's prctl, or None on systems that have none."""
    return ctypes.CDLL(None, use_errno=True).prctl if sys.platform == "linux" else None


class Supervisor:
    """Starts a command in its own process group, passes stop signals on, and ends only when the group is empty."""

    def __init__(self, parent: int, grace: float, leader_first: bool = False) -> None:
        self.parent = parent
        self.grace = grace
        self.leader_first = leader_first
        self.requests: list[int] = []
        self.prctl = load_prctl()
        self.wakeup, waker = os.pipe()
        for end in (self.wakeup, waker):
            os.set_blocking(end, False)
        signal.set_wakeup_fd(waker, warn_on_full_buffer=False)
        for number in (signal.SIGTERM, signal.SIGINT, PARENT_ENDED, signal.SIGCHLD):
            signal.signal(number, self._note)

    def _note(self, number: int, frame: FrameType | None) -> None:
        if number in (signal.SIGTERM, signal.SIGINT):
            self.requests.append(number)
        elif number == PARENT_ENDED and not self.requests:
            self.requests.append(signal.SIGTERM)

    def run(self, command: list[str]) -> int:
        """Run a command to its end and return its exit code (128 + n where signal n ended it)."""
        self._bind_to_parent()
        if self._parent_gone():
            return STOPPED
        try:
            child = subprocess.Popen(command, process_group=0, preexec_fn=self._bind_child(), stdin=subprocess.DEVNULL)
        except OSError as error:
            print(f"{command[0]} cannot be started: {error.strerror}", file=sys.stderr, flush=True)
            return CANNOT_START
        code = self._watch(child)
        self._clear(child.pid)
        return 128 - code if code < 0 else code

    def _bind_to_parent(self) -> None:
        if self.prctl:
            self.prctl(PR_SET_PDEATHSIG, PARENT_ENDED)
            self.prctl(PR_SET_CHILD_SUBREAPER, 1)  # orphans of the command come here, not to init

    def _bind_child(self) -> Callable[[], None] | None:
        prctl, supervisor = self.prctl, os.getpid()
        if prctl is None:
            return None

        def bind() -> None:
            prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
            if os.getppid() != supervisor:
                os._exit(STOPPED)

        return bind

    def _parent_gone(self) -> bool:
        return os.getppid() != self.parent

    def _watch(self, child: subprocess.Popen) -> int:
        """Wait for the command itself, stopping it when asked to; a second signal or the grace's end kills it."""
        deadline = float("inf")
        while child.poll() is None:
            if self._parent_gone():
                self._note(PARENT_ENDED, None)
            if self.requests and deadline == float("inf"):
                (signal_process if self.leader_first else signal_group)(child.pid, self.requests[0])
                deadline = time.monotonic() + self.grace
            if self._impatient(deadline):
                signal_group(child.pid, signal.SIGKILL)
            self._sleep()
        if self.requests and child.returncode in (-signal.SIGTERM, -signal.SIGINT):
            return STOPPED
        return child.returncode

    def _impatient(self, deadline: float) -> bool:
        return time.monotonic() > deadline or len(self.requests) > 1

    def _clear(self, group: int) -> None:
        """Wait for what the command left behind, ask it to stop, and kill it when the grace is over."""
        deadline = time.monotonic() + self.grace
        asked: set[int] = set()
        while remaining := self._remaining(group):
            if self._impatient(deadline):
                signal_group(group, signal.SIGKILL)
                for pid in remaining:
                    signal_process(pid, signal.SIGKILL)
            for pid in remaining - asked:
                told = self.requests and not self.leader_first and in_group(pid, group)
                if not told:
                    signal_process(pid, signal.SIGTERM)
            asked |= remaining
            self._sleep()

    def _remaining(self, group: int) -> set[int]:
        """Reap what has ended and return the adopted processes, or the group where orphans are not adopted here."""
        with contextlib.suppress(ChildProcessError):
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass
        if self.prctl:
            return set(child_processes(os.getpid()))
        return {group} if signal_group(group, 0) else set()

    def _sleep(self) -> None:
        select.select([self.wakeup], [], [], POLL_SECONDS)
        with contextlib.suppress(BlockingIOError):
            os.read(self.wakeup, 512)


def child_processes(pid: int) -> Iterator[int]:
    """Yield the process ids whose parent is `pid`, from /proc."""
    for entry in Path("/proc").iterdir():
        if not entry.name.isdecimal():
            continue
        with contextlib.suppress(OSError):  # it ended meanwhile
            fields = (entry / "stat").read_text().rpartition(")")[2].split()
            if int(fields[1]) == pid and fields[0] != "Z":
                yield int(entry.name)


def signal_group(group: int, number: int) -> bool:
    """Send a signal to a process group and return whether it still has a member."""
    try:
        os.killpg(group, number)
    except (ProcessLookupError, PermissionError):  # macOS answers EPERM for a group of zombies
        return False
    return True


def in_group(pid: int, group: int) -> bool:
    """Return whether a process belongs to a process group."""
    try:
        return os.getpgid(pid) == group
    except ProcessLookupError:
        return False


def signal_process(pid: int, number: int) -> None:
    """Send a signal to a process that may have ended."""
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, number)


def main() -> int:
    """Run the command line's command under supervision and return its exit code."""
    parser = argparse.ArgumentParser(prog="python -m pipelines.supervise", description=__doc__)
    parser.add_argument("--parent", type=int, default=os.getppid(), help="process whose end ends the command")
    parser.add_argument("--grace", type=float, default=GRACE_SECONDS, help="seconds between asking to stop and killing")
    parser.add_argument(
        "--leader-first",
        action="store_true",
        help="ask only CMD itself to stop, and what it started when it has ended; default: the whole group at once",
    )
    parser.add_argument("command", nargs="+", metavar="-- CMD", help="command with its arguments")
    arguments = parser.parse_args()
    return Supervisor(arguments.parent, arguments.grace, arguments.leader_first).run(arguments.command)


if __name__ == "__main__":
    sys.exit(main())
