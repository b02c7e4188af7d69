"""DVC's cache and run-cache: what no workspace, branch, tag, experiment, champion or release refers to.

`dvc gc` decides and removes; it never touches the run-cache, whose entries go here once a file of theirs is gone.
"""

import re
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import yaml

from pipelines.dvc import dvc_command, dvc_environment
from pipelines.retention.superseded import Finding, Superseded
from pipelines.retention.workspaces import at_work, held, other_workspaces
from stages.errors import InputError
from stages.process import WORK

KIND = "DVC cache"
COLLECT = ("gc", "--workspace", "--all-branches", "--all-tags", "--all-experiments", "--force")
REASON_LENGTH = 400

Locks = dict[str, dict[str, Any]]


def find_unused(kept: list[dict[str, Any]], projects: list[Path], shared_is_mine: bool) -> Finding:
    """Return what of the cache is unused; `kept` are further outputs (md5, hash) and `projects` others that share it.

    Raises:
        InputError: dvc cannot tell, or something is at work in a workspace that shares the cache.
    """
    cache = cache_folder()
    workspaces = other_workspaces()
    if not shared_is_mine and not projects and not _is_ours(cache, workspaces):
        note = (
            f"{cache} stays: it lies outside of this repository's workspaces, and another project may keep results in "
            "it that this one does not know; name such projects by --project, or give --shared-cache-is-mine"
        )
        return Finding(KIND, [], [note])
    sharing = [*workspaces, *(project.resolve() for project in projects)]
    locked = [*workspaces, *(project for project in sharing if (project / WORK).is_dir() and project not in workspaces)]
    check_idle()
    with held(locked):
        unused = collect(kept, sharing, dry=True)
    entries = stale_entries(cache, set(unused))

    def drop_files() -> None:
        check_idle()
        with held(locked):
            collect(kept, sharing, dry=False)

    items = [_counted(f"{len(unused)} files", "nothing refers to them", unused, drop_files)] if unused else []
    if entries:
        items.append(
            _counted(f"{len(entries)} run-cache entries", "of files that are gone", entries, _remover(cache, entries))
        )
    return Finding(KIND, items)


def check_idle() -> None:
    """Make sure that no stage puts files into the cache now.

    Raises:
        InputError: another process is at work in this workspace.
    """
    if names := at_work(Path()):
        raise InputError(f"{KIND}: {', '.join(names)} is at work in this workspace; wait for it")


def cache_folder() -> Path:
    """Return the folder of DVC's cache."""
    return Path(_dvc("cache", "dir").strip()).resolve()


def _is_ours(cache: Path, workspaces: list[Path]) -> bool:
    return any(cache.is_relative_to(root.resolve()) for root in (Path(), *workspaces))


def collect(kept: list[dict[str, Any]], sharing: list[Path], dry: bool) -> list[Path]:
    """Let `dvc gc` remove what is unused, or only list it (`dry`), and return the files of the list.

    Raises:
        InputError: dvc failed, such as for a branch that it cannot read; nothing is removed then.
    """
    with kept_project(kept) as project:
        projects = ["--projects", *map(str, [*sharing, project])]
        told = _dvc(*COLLECT, *(["--dry"] if dry else []), *projects)
    return [Path(found).resolve() for found in re.findall(r"^Removing (.+)$", told, re.MULTILINE)]


class kept_project(tempfile.TemporaryDirectory):  # noqa: N801 - used as a context manager
    """A project for the time of a block that refers to further outputs, so that `dvc gc` keeps them, too."""

    def __init__(self, kept: list[dict[str, Any]]) -> None:
        super().__init__(prefix="kept-")
        self.kept = kept

    def __enter__(self) -> str:
        root = Path(super().__enter__())
        subprocess.run(["git", "init", "--quiet", str(root)], check=True)  # dvc looks for branches and tags in it
        (root / ".dvc").mkdir()
        cache = f'"{cache_folder()}"'  # a plain # would end it, and dvc would not know what lies in kept folders
        (root / ".dvc" / "config").write_text(f"[core]\n    analytics = false\n[cache]\n    dir = {cache}\n")
        outs = [{**out, "path": f"kept-{number}"} for number, out in enumerate(self.kept)]
        if outs:
            (root / "kept.dvc").write_text(yaml.safe_dump({"outs": outs}))
        return str(root)


def outputs_of(lock: dict[str, Any], model: str) -> list[dict[str, Any]]:
    """Return what a dvc.lock says of a model's own outputs: the files' md5 and how it was reckoned."""
    stages = [stage for name, stage in lock.get("stages", {}).items() if name.partition("@")[2] == model]
    return [{key: out[key] for key in ("md5", "hash") if key in out} for stage in stages for out in stage["outs"]]


def stale_entries(cache: Path, going: set[Path]) -> list[Path]:
    """Return the run-cache's entries that name a file which is going or gone: no run can be taken from them."""
    return [entry for entry in sorted((cache / "runs").glob("*/*/*")) if any(map(_gone(going), _files(cache, entry)))]


def _gone(going: set[Path]) -> Callable[[Path], bool]:
    return lambda path: path in going or not path.exists()


def _files(cache: Path, entry: Path) -> Iterator[Path]:
    for out in (yaml.safe_load(entry.read_text()) or {}).get("outs", []):
        if md5 := out.get("md5"):
            yield cache / "files" / "md5" / md5[:2] / md5[2:]


def _counted(name: str, detail: str, files: list[Path], drop: Callable[[], None]) -> Superseded:
    return Superseded(name, detail, sum(path.stat().st_size for path in files if path.exists()), drop)


def _remover(cache: Path, entries: list[Path]) -> Callable[[], None]:
    def remove() -> None:
        for entry in stale_entries(cache, set()):  # where dvc has dropped nothing, a run can still be taken from them
            if entry not in entries:
                continue
            entry.unlink(missing_ok=True)
            if not any(entry.parent.iterdir()):
                entry.parent.rmdir()

    return remove


def _dvc(*arguments: str) -> str:
    done = subprocess.run(dvc_command(*arguments), capture_output=True, text=True, env=dvc_environment())
    if done.returncode:
        reason = " ".join(done.stderr.split())[-REASON_LENGTH:]
        raise InputError(f"{KIND}: dvc {arguments[0]} failed, nothing of it is dropped: {reason}")
    return done.stdout
