"""A copy of the whole project to run, stop and kill: its environment, its settings, its processes."""

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import yaml

from tests.conftest import ROOT

COPIED = ("stages", "pipelines", "dvc.yaml", "data/groups.lock.json", ".dvcignore", ".gitignore")
RUN_SECONDS = 300
START_SECONDS = 150.0  # Prefect's own server takes 20 of them, on a busy machine 60
END_SECONDS = 60.0
ENDLESS_KIMG = 100_000

Run = Callable[..., subprocess.CompletedProcess]


def make_project(folder: Path, params: dict[str, Any]) -> Path:
    """Make a clone-like copy of the project's code with these settings, under Git and DVC."""
    folder.mkdir(parents=True)
    for name in COPIED:
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            (folder / name).parent.mkdir(exist_ok=True)
            shutil.copy(ROOT / name, folder / name)
    (folder / ".dvc").mkdir()
    shutil.copy(ROOT / ".dvc" / "config", folder / ".dvc" / "config")
    (folder / "params.yaml").write_text(yaml.safe_dump(params, sort_keys=False))
    git(folder, "init", "--quiet")
    commit(folder)
    return folder


def git(folder: Path, *arguments: str) -> None:
    """Run git in a folder."""
    author = ["-c", "user.name=test", "-c", "user.email=test@example.org"]
    subprocess.run(["git", *author, *arguments], cwd=folder, check=True, stdout=subprocess.DEVNULL)


def commit(folder: Path) -> None:
    """Commit all that Git does not ignore."""
    git(folder, "add", ".")
    git(folder, "commit", "--quiet", "-m", "state")


def environment(project: Path, **variables: str) -> dict[str, str]:
    """Return an environment in which nothing outside the project is read or written."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("MLFLOW_TRACKING", "PREFECT_"))}
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)])
    ours = {"PREFECT_HOME": str(project.parent / "prefect"), "OMP_NUM_THREADS": "1", "PATH": path}
    ours["SHELL"] = "/bin/sh"  # what dvc takes where SHELL is not set (cron, systemd, CI): dash does not exec by itself
    return kept | ours | {"PREFECT_SERVER_ANALYTICS_ENABLED": "false", "DO_NOT_TRACK": "1"} | variables


def runner_in(project: Path) -> Run:
    """Return a function that runs `python -m MODULE ARGUMENTS` in a project; stdout and stderr are captured."""

    def run(name: str, *arguments: str, **variables: str) -> subprocess.CompletedProcess:
        line = [sys.executable, "-m", name, *arguments]
        env = environment(project, **variables)
        return subprocess.run(line, cwd=project, env=env, capture_output=True, text=True, timeout=RUN_SECONDS)

    return run


def set_params(project: Path, **dotted: Any) -> None:
    """Set values in a project's params.yaml by dotted names."""
    params = yaml.safe_load((project / "params.yaml").read_text())
    for name, value in dotted.items():
        *parents, last = name.split(".")
        group = params
        for parent in parents:
            group = group[parent]
        group[last] = value
    (project / "params.yaml").write_text(yaml.safe_dump(params, sort_keys=False))


def assert_current(run: Run) -> None:
    """Assert that `dvc status` names no stage."""
    status = run("dvc", "status", "--json")
    assert (status.returncode, status.stdout.strip()) == (0, "{}"), status.stdout + status.stderr


def processes_of(project: Path) -> list[psutil.Process]:
    """Return the processes that run in the project."""
    found = []
    for process in psutil.process_iter():
        try:
            if process.cwd() == str(project) and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
        except psutil.Error:
            continue
    return found


def wait_until(fulfilled: Callable[[], Any], what: str, seconds: float = END_SECONDS) -> None:
    """Wait for a condition and fail, saying what was expected, if it does not come."""
    deadline = time.monotonic() + seconds
    while not fulfilled():
        assert time.monotonic() < deadline, f"{what} did not happen in {seconds} s"
        time.sleep(0.1)


def assert_nothing_left(project: Path) -> None:
    """Assert that the project's processes end by themselves."""
    wait_until(lambda: not processes_of(project), f"the end of {processes_of(project)}")


def role_of(process: psutil.Process) -> str:
    """Return what a process of a run is for; names are those of the front doors' own parts."""
    try:
        line = process.cmdline()
    except psutil.Error:
        return "gone"
    text = " ".join(line)
    if "pipelines.supervise" in line:
        return "supervisor" if "repro" in line else "outer supervisor"
    names = {
        "repro": "dvc",
        "stages.train": "stage",
        "pipelines.run": "runner",
        "pipelines.flows.lifecycle": "flow",
        "pipelines.flows.served": "served",
        "pipelines.flows": "launcher",
        "pipelines.serve": "launcher",
    }
    return next((role for word, role in names.items() if word in line), "server" if "uvicorn" in text else text)


def states_of(project: Path) -> set[Path]:
    """Return the states of the training `dcgan`."""
    return set((project / ".work/train/dcgan").glob("*/state-*"))


def finish_here(project: Path, ahead: float = 0) -> float:
    """Make what the training has reached its budget, so that the same command goes on and is soon done.

    One that is still at work passes its newest states within a moment, and keeps two: it needs some kimg `ahead`.
    """
    reached = max(int(path.name.removeprefix("state-")) for path in states_of(project))
    kimg = max(reached / 1000, 0.512) + ahead
    set_params(project, **{"models.dcgan.budget_kimg": kimg})
    return kimg


class Started:
    """A front door that was started in a project and trains `dcgan` without an end."""

    def __init__(self, project: Path, *line: str, **variables: str) -> None:
        self.project = project
        self.log = project.parent / "log"
        self.known = self.states()
        set_params(project, **{"models.dcgan.budget_kimg": ENDLESS_KIMG})
        with self.log.open("w") as stream:
            self.process = subprocess.Popen(
                [sys.executable, "-m", *line],
                cwd=project,
                env=environment(project, **variables),
                stdin=subprocess.DEVNULL,
                stdout=stream,
                stderr=stream,
                start_new_session=True,
            )

    def states(self) -> set[Path]:
        """Return the training's states."""
        return states_of(self.project)

    def wait_for_training(self) -> None:
        """Wait until the training has written a state that was not there at the start or at the last call."""
        known = self.known

        def fresh() -> bool:
            assert self.process.poll() is None, self.told()
            return bool(self.states() - known)

        wait_until(fresh, "a state", START_SECONDS)
        self.known = self.states()

    def find(self, role: str) -> psutil.Process:
        """Return the process of a role."""
        roles = {role_of(process): process for process in processes_of(self.project)}
        if "supervisor" in roles and (flow := roles["supervisor"].parent()):  # Prefect starts a served one as it likes
            roles["flow"] = flow
        assert role in roles, f"{role} is not among {sorted(roles)}\n{self.told()}"
        return roles[role]

    def strike(self, role: str, number: signal.Signals) -> None:
        """Send a signal to the process of a role and wait for its end."""
        process = self.find(role)
        process.send_signal(number)
        if process.pid == self.process.pid:
            self.process.wait(END_SECONDS)
        wait_until(lambda: not process.is_running() or process.status() == psutil.STATUS_ZOMBIE, f"the end of {role}")

    def told(self) -> str:
        """Return what was printed so far."""
        return self.log.read_text()

    def end(self) -> None:
        """End whatever a failed test left."""
        for process in processes_of(self.project):
            process.kill()
        self.process.kill()
        self.process.wait()
