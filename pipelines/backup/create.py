"""Makes a back-up, or brings one up to date: only what is new is copied."""

import subprocess
from collections.abc import Callable
from pathlib import Path

from pipelines.backup.contents import DATABASE, Files, parts
from pipelines.backup.registry import database_path, foreign_locations, snapshot
from pipelines.backup.store import Entry, Manifest, Store
from pipelines.git import ask_git
from pipelines.publish import tracking_uri, without_secrets
from pipelines.retention.cache import cache_folder
from stages.errors import FetchError, InputError
from stages.process import stage_lock
from stages.progress import progress_bar
from stages.storage import check_free, sha256_bytes, sha256_file

LOCK = "backup"
TRIES = 3  # a training may drop an old state while it is being copied


def create(folder: Path) -> str:
    """Back the project in the current folder up and return what the back-up holds, in words.

    Trainings and MLflow may go on meanwhile.

    Raises:
        InputError: the folder lies within the project or holds something else, such as another project's back-up, or
            another back-up is at work.
        ResourceError: the disk is too small.
    """
    project = Path.cwd()
    if folder.resolve().is_relative_to(project.resolve()):
        raise InputError(f"{folder} lies within the project, and would be lost with it; give a folder on another disk")
    store = Store(folder)
    with stage_lock(LOCK):
        store.prepare()
        known = store.read() if store.exists else Manifest(str(project))
        if known.project != str(project):  # what this project has not would be dropped from it
            raise InputError(f"{folder} is the back-up of {known.project}; give {project} a folder of its own")
        manifest = Manifest(
            str(project), commit=ask_git("rev-parse", "HEAD"), branch=ask_git("branch", "--show-current")
        )
        changes = ask_git("status", "--porcelain", "--untracked-files=no") or ""
        manifest.uncommitted = [line[3:] for line in changes.splitlines()]
        manifest.bundle = bundle(store)
        for part, list_files in parts(cache_folder()).items():
            manifest.files |= copy_part(store, known, part, list_files)
            if part == "settings and locks":  # the registry before its artifacts
                manifest.files |= copy_registry(store, project)
        store.write(manifest)
    return describe(manifest, known)


def copy_part(store: Store, known: Manifest, part: str, list_files: Callable[[], Files]) -> dict[str, Entry]:
    """Copy one part of the project, once more where a file of it vanished meanwhile.

    Raises:
        FetchError: files vanish again and again.
    """
    missing = ""
    for _ in range(TRIES):
        try:
            return copy_files(store, known, part, list_files())
        except FileNotFoundError as error:
            missing = str(error.filename)
    raise FetchError(f"back-up of {part}: {missing} vanished while it was copied, {TRIES} times; run again")


def copy_files(store: Store, known: Manifest, part: str, files: Files) -> dict[str, Entry]:
    """Copy files that are not in the back-up as they are now, and return the entries of all."""
    there = list(files)
    entries = {name: entry for name, path in there if (entry := unchanged(store, known.files.get(name), path))}
    new = [(name, path) for name, path in there if name not in entries]
    needed = sum(path.stat().st_size for _, path in new)
    check_free(store.folder, needed, f"back-up of {part}")
    with progress_bar(part, needed, "bytes") as bar:
        for name, path in new:
            entries[name] = store.put(path)
            bar.update(entries[name].bytes)
    return entries


def unchanged(store: Store, entry: Entry | None, path: Path) -> Entry | None:
    """Return the entry of the last back-up if size, time and mode of the file are the same and its content is there."""
    about = path.stat()
    same = entry and (entry.bytes, entry.modified, entry.mode) == (
        about.st_size,
        about.st_mtime_ns,
        about.st_mode & 0o777,
    )
    return entry if entry and same and store.holds(entry) else None


def copy_registry(store: Store, project: Path) -> dict[str, Entry]:
    """Copy MLflow's sqlite file as it is at this moment; a server's registry is its owner's to back up."""
    database = database_path()
    if database is None:
        address = without_secrets(tracking_uri())
        print(f"MLflow at {address} is no part of this back-up: back up its database and artifacts there", flush=True)
        return {}
    if not database.exists():
        return {}
    copy = store.folder / f".{DATABASE}.partial"
    try:
        snapshot(database, copy)
        for location in foreign_locations(copy, project):
            print(f"MLflow's artifacts in {without_secrets(location)} are no part of this back-up", flush=True)
        return {DATABASE: store.put(copy)}
    finally:
        copy.unlink(missing_ok=True)


def bundle(store: Store) -> dict[str, str] | None:
    """Write Git's branches and tags into one file, from which `git clone` makes the project again."""
    refs = ask_git("for-each-ref", "--format=%(objectname) %(refname)")
    if not refs:
        return None
    state = f"{ask_git('rev-parse', 'HEAD')}\n{refs}"  # HEAD may be at a commit that no branch has
    path = store.folder / f"repository-{sha256_bytes(state.encode())[:12]}.bundle"
    if not path.exists():
        partial = path.with_name(f".{path.name}.partial")
        _git_or_fail("bundle", "create", "--quiet", str(partial.resolve()), "HEAD", "--all")
        partial.replace(path)
    return {"name": path.name, "sha256": sha256_file(path)}


def _git_or_fail(*arguments: str) -> None:
    done = subprocess.run(["git", *arguments], capture_output=True, text=True)
    if done.returncode:
        raise InputError(f"git {arguments[0]} failed: {' '.join(done.stderr.split())[-300:]}")


def describe(manifest: Manifest, known: Manifest) -> str:
    """Return in words what a back-up holds, what of it is new since the last one, and what Git has not yet."""
    contents = {entry.sha256: entry.bytes for entry in manifest.files.values()}
    old = {entry.sha256 for entry in known.files.values()}
    new = sum(size for sha256, size in contents.items() if sha256 not in old)
    text = f"{len(manifest.files)} files, {manifest.bytes / 1e6:,.1f} MB, of which {new / 1e6:,.1f} MB are new"
    code = [name for name in manifest.uncommitted if name not in manifest.files]
    return text + (f"; not in Git, and so not in it: changes of {', '.join(code)}" if code else "")
