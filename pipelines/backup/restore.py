"""Brings a back-up into a clone of the project, wherever that lies: registry, cache, results, states, releases."""

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from pipelines.backup.contents import CACHE, DATABASE
from pipelines.backup.create import LOCK as BACKUP_LOCK
from pipelines.backup.registry import database_path, move_paths
from pipelines.backup.store import Entry, Manifest, Store, first_of, give_back
from pipelines.dvc import dvc_command, dvc_environment
from pipelines.git import ask_git
from pipelines.lifecycle import LOCK
from pipelines.retention.cache import cache_folder
from pipelines.retention.workspaces import at_work
from stages.errors import InputError
from stages.process import stage_lock
from stages.progress import progress
from stages.storage import check_free, sha256_file

REASON_LENGTH = 400


def restore(folder: Path, overwrite: bool) -> str:
    """Restore a back-up into the project in the current folder and return what was done, in words.

    Every content is verified before anything is written. What Git has is replaced; anything else that differs only
    with `overwrite`.

    Raises:
        InputError: the back-up is damaged, files here differ from it, or something is at work here; they are named.
        ResourceError: the disk is too small.
    """
    if not Path("dvc.yaml").exists():
        raise InputError(f"{Path.cwd()} holds no dvc.yaml; restore into a clone of the project")
    store = Store(folder)
    manifest = store.read()
    store.check(manifest)
    if names := at_work(Path()):  # such as `dvc repro`, which holds no lock of a run
        raise InputError(f"{', '.join(names)} is at work in this workspace; wait for it")
    with stage_lock(LOCK), stage_lock(BACKUP_LOCK), moved_registry(store, manifest) as (contents, entries):
        cache = cache_folder()
        targets = {name: target_of(name, cache) for name in entries}
        wanted = [name for name in entries if not is_there(targets[name], entries[name])]
        if not overwrite:
            refuse_losses({name: targets[name] for name in wanted})
        check_free(Path(), sum(entries[name].bytes for name in wanted), "restoring")
        for name in progress(wanted, "restoring", len(wanted), "files"):
            if name == DATABASE:
                drop_journals(targets[name])
            give_back(contents.get(name) or store.path(entries[name].sha256), targets[name], entries[name])
        check_out(overwrite)
    return describe(manifest, len(wanted))


@contextmanager
def moved_registry(store: Store, manifest: Manifest) -> Iterator[tuple[dict[str, Path], dict[str, Entry]]]:
    """Yield where contents lie that are not as in the back-up, and all entries: the registry names the new folder."""
    entry = manifest.files.get(DATABASE)
    if entry is None:
        yield {}, manifest.files
        return
    copy = Path(f".{DATABASE}.partial")
    try:
        give_back(store.path(entry.sha256), copy, entry)
        move_paths(copy, Path(manifest.project), Path.cwd())
        moved = replace(entry, sha256=sha256_file(copy), bytes=copy.stat().st_size)
        yield {DATABASE: copy}, {**manifest.files, DATABASE: moved}
    finally:
        copy.unlink(missing_ok=True)


def target_of(name: str, cache: Path) -> Path:
    """Return where a file of the back-up belongs here; a manifest cannot name a place outside.

    Raises:
        InputError: it does.
    """
    if name == DATABASE:
        return database_path() or Path(DATABASE)
    root, path = (cache, Path(name).relative_to(CACHE)) if name.startswith(f"{CACHE}/") else (Path(), Path(name))
    if path.is_absolute() or ".." in path.parts:
        raise InputError(f"the back-up's manifest names {name}, which lies outside of the project")
    return root / path


def drop_journals(database: Path) -> None:
    """Remove what a killed process left beside a sqlite file that is replaced: it would be played into the new one."""
    for suffix in ("-journal", "-wal", "-shm"):
        database.with_name(database.name + suffix).unlink(missing_ok=True)


def is_there(target: Path, entry: Entry) -> bool:
    """Return whether a file is here already as the back-up has it."""
    return target.is_file() and target.stat().st_size == entry.bytes and sha256_file(target) == entry.sha256


def refuse_losses(targets: dict[str, Path]) -> None:
    """Refuse to replace files that exist, differ and are not as Git has them.

    Raises:
        InputError: their names.
    """
    lost = [name for name, path in targets.items() if path.exists() and not is_in_git(path)]
    if lost:
        raise InputError(
            f"here and other than in the back-up: {first_of(lost)}; nothing was restored, --overwrite "
            "replaces them (make restore OVERWRITE=1)"
        )


def is_in_git(path: Path) -> bool:
    """Return whether a file is tracked and as in the last commit."""
    tracked = subprocess.run(["git", "ls-files", "--error-unmatch", str(path)], capture_output=True)
    differs = subprocess.run(["git", "diff", "--quiet", "HEAD", "--", str(path)], capture_output=True)
    return tracked.returncode == 0 and differs.returncode == 0


def check_out(overwrite: bool) -> None:
    """Let dvc put the results of dvc.lock into data/ and models/.

    Raises:
        InputError: it could not, such as over results here that differ.
    """
    if not Path("dvc.lock").exists():
        return
    command = dvc_command("checkout", "--quiet", *(["--force"] if overwrite else []))
    done = subprocess.run(command, capture_output=True, text=True, env=dvc_environment())
    if done.returncode:
        reason = " ".join((done.stderr or done.stdout).split())[:REASON_LENGTH]
        raise InputError(f"everything is restored but results of dvc.lock: dvc checkout failed: {reason}")


def describe(manifest: Manifest, written: int) -> str:
    """Return in words what was restored, and whether the code here is the back-up's."""
    text = f"restored {written} of {len(manifest.files)} files of {manifest.created}"
    here = ask_git("rev-parse", "HEAD") or ""
    if manifest.commit and here != manifest.commit:
        text += f"; the code here is {here[:12]}, the back-up was made at {manifest.commit[:12]}"
    return text
