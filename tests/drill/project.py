"""A prepared project to interrupt: data made, training still to come, each trial in its own copy."""

import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from tests.conftest import ROOT
from tests.lifecycle.project import environment, make_project

MODEL = "dcgan"
DISK = "full disk"
COMMANDS = {
    "run": ("pipelines.run",),
    "dvc": ("dvc", "repro"),
    "flow": ("pipelines.flows", "lifecycle"),
}
SMALL = {"budget_kimg": 6, "tick_kimg": 1, "checkpoint_kimg": 1.5, "ema_half_life_kimg": 0.6}


@dataclass(frozen=True)
class Project:
    """A folder with the project's code and made data; copies of it are interrupted."""

    folder: Path
    targets: tuple[str, ...] = ()  # what the front doors are asked for; none: everything

    @property
    def log(self) -> Path:
        """What the commands in this folder have printed."""
        return self.folder.with_suffix(".log")

    def copy(self) -> "Project":
        """Return a fresh copy beside the original."""
        copied = Project(self.folder.parent / "trial" / "project", self.targets)
        copied.remove()
        shutil.copytree(self.folder, copied.folder, symlinks=True)
        return copied

    def remove(self) -> None:
        """Delete the folder and what stands beside it."""
        if self.folder.parent.name == "trial":
            shutil.rmtree(self.folder.parent, ignore_errors=True)

    def reset(self) -> None:
        """Make the copy as it was at first."""
        self.copy_of_original().copy()

    def copy_of_original(self) -> "Project":
        """Return the project that this is a copy of."""
        return Project(self.folder.parent.parent / "project", self.targets)

    def keep(self, number: int) -> None:
        """Keep a failed trial's log and notes where they outlive the drill."""
        kept = ROOT / ".work" / "drill" / str(number)
        shutil.rmtree(kept, ignore_errors=True)
        kept.mkdir(parents=True)
        shutil.copy(self.log, kept / "log")
        shutil.copytree(self.folder / ".work" / "last", kept / "last", dirs_exist_ok=True)

    def start(self, door: str, **variables: str) -> subprocess.Popen:
        """Start a front door in a session of its own, its output appended to the log."""
        if variables:
            variables |= {"DRILL_FOLDER": str(self.folder), "PYTHONPATH": str(Path(__file__).parent / "full_disk")}
        with self.log.open("a") as log:
            return subprocess.Popen(
                [sys.executable, "-m", *COMMANDS[door], *self.targets],
                cwd=self.folder,
                env=environment(self.folder, **variables),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def publish(self, door: str) -> int:
        """Do what a user of plain dvc does after it; the other doors have published."""
        if door != "dvc":
            return 0
        return self.start_module("pipelines.publish")

    def start_module(self, module: str) -> int:
        """Run a module to its end, its output appended to the log, and return its exit code."""
        with self.log.open("a") as log:
            line = [sys.executable, "-m", module]
            return subprocess.run(
                line, cwd=self.folder, env=environment(self.folder), stdout=log, stderr=log
            ).returncode

    def last_line(self) -> str:
        """Return the last line of the log."""
        lines = self.log.read_text().splitlines()
        return lines[-1] if lines else ""


def default_project(folder: Path, targets: tuple[str, ...]) -> Project:
    """Return a project with the default data and the default model, its budget small, data made."""
    params = yaml.safe_load((ROOT / "params.yaml").read_text())
    params["select"] = {MODEL: params["select"][MODEL]}
    params["models"] = {MODEL: params["models"][MODEL] | SMALL}
    params["evaluate"] |= {"count": 64, "kid_subset": 32}
    params["benchmark"] |= {"batches": [1], "seconds": 0.2, "min_runs": 10}
    return prepare_project(folder, params, targets)


def prepare_project(folder: Path, params: dict[str, Any], targets: tuple[str, ...]) -> Project:
    """Return a project of these settings whose data is made and everything else to come."""
    project = Project(make_project(folder / "project", params), targets)
    line = [sys.executable, "-m", "pipelines.run", "augment", "--no-publish"]
    done = subprocess.run(line, cwd=project.folder, env=environment(project.folder), capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"the data could not be made: {done.stdout}{done.stderr}")
    return project
