"""What retention takes from DVC's cache: real repositories with one cheap stage, branches, tags and worktrees."""

import os
import subprocess
import sys
from contextlib import chdir
from pathlib import Path

import pytest
import yaml
from filelock import FileLock

from pipelines.retention.cache import find_unused, outputs_of
from stages.errors import InputError
from stages.process import prepare_environment
from tests.lifecycle.project import commit, git

COMMAND = "python -c \"import shutil, os; os.makedirs('out'); shutil.copy('in.txt', 'out/copy.txt')\""
MAKE = {"cmd": COMMAND, "deps": ["in.txt"], "outs": ["out"]}
STAGES = {"stages": {"make": {"foreach": ["one"], "do": MAKE}}}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A repository whose branch, tag, workspace and worktree each refer to another result; `lost` is in none."""
    prepare_environment()
    root = tmp_path_factory.mktemp("cache") / "main"
    root.mkdir()
    git(root, "init", "--quiet", "--initial-branch", "main")
    dvc(root, "init", "--quiet")
    (root / "dvc.yaml").write_text(yaml.safe_dump(STAGES))
    for name in ("branch", "tag"):
        produce(root, name)
        commit(root)
        git(root, *(["branch", "side"] if name == "branch" else ["tag", "v1"]))
    produce(root, "newest commit")
    commit(root)
    git(root, "worktree", "add", "--quiet", "--detach", "../second")
    second = root.parent / "second"
    dvc(second, "cache", "dir", "--local", str(root / ".dvc" / "cache"))
    produce(second, "worktree")
    produce(root, "lost")
    (root / "lost.lock").write_bytes((root / "dvc.lock").read_bytes())
    produce(root, "workspace")
    return root


def dvc(folder: Path, *arguments: str) -> str:
    environment = os.environ | {"PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}
    line = [sys.executable, "-m", "dvc", *arguments]
    return subprocess.run(line, cwd=folder, env=environment, check=True, capture_output=True, text=True).stdout


def produce(folder: Path, text: str) -> None:
    """Run the stage on a text and, as a later `dvc repro` does, put it into cache and run-cache."""
    (folder / "in.txt").write_text(text)
    dvc(folder, "repro", "--quiet")


def contents(root: Path) -> set[str]:
    """Return the texts that the cache holds."""
    files = [path for path in (root / ".dvc/cache/files").rglob("*") if path.is_file() and path.suffix != ".dir"]
    return {path.read_text() for path in files}


@pytest.fixture
def root(made: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(made)
    return made


def test_cache_of_others_is_left_alone(root: Path, tmp_path: Path) -> None:
    dvc(root, "cache", "dir", "--local", str(tmp_path / "shared"))
    try:
        finding = find_unused([], [], shared_is_mine=False)
        assert finding.items == []
        assert "lies outside of this repository's workspaces" in finding.notes[0]
        assert find_unused([], [], shared_is_mine=True).notes == []
    finally:
        (root / ".dvc/config.local").unlink()


def test_worktree_at_work_is_named(root: Path) -> None:
    lock = root.parent / "second/.work/locks/pipeline.lock"
    lock.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(lock), pytest.raises(InputError, match="second: pipeline is running there; wait for it"):
        find_unused([], [], shared_is_mine=False)


def test_results_that_a_champion_needs_stay(root: Path) -> None:
    kept = outputs_of(yaml.safe_load((root / "lost.lock").read_text()), "one")
    assert len(kept) == 1 and kept[0]["md5"].endswith(".dir")
    assert find_unused(kept, [], shared_is_mine=False).items == []


def test_another_project_keeps_what_it_names(root: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.mkdir()
    git(other, "init", "--quiet")
    dvc(other, "init", "--quiet")
    dvc(other, "cache", "dir", str(root / ".dvc/cache"))
    (other / "dvc.yaml").write_text(yaml.safe_dump(STAGES))
    (other / "dvc.lock").write_bytes((root / "lost.lock").read_bytes())
    assert find_unused([], [other], shared_is_mine=False).items == []


def test_only_what_nothing_refers_to_goes(root: Path) -> None:
    before = contents(root)
    assert before == {"branch", "tag", "newest commit", "worktree", "lost", "workspace"}
    runs = list((root / ".dvc/cache/runs").glob("*/*/*"))
    files, entries = find_unused([], [], shared_is_mine=False).items
    assert (files.name, entries.name) == ("2 files", "1 run-cache entries")
    assert files.bytes > len("lost")
    assert contents(root) == before
    files.drop()
    entries.drop()
    assert contents(root) == before - {"lost"}
    assert len(list((root / ".dvc/cache/runs").glob("*/*/*"))) == len(runs) - 1
    assert find_unused([], [], shared_is_mine=False).items == []
    for folder in (root, root.parent / "second"):
        with chdir(folder):
            assert dvc(folder, "status", "--json").strip() == "{}"
