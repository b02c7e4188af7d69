"""Pins what the pipeline reads from outside: `python -m pipelines.refresh`.

Writes data/source.lock.json (the selected source) and data/weights.lock.json (optional weights), both kept in Git and
dependencies of the stages that use them, so that DVC sees a change outside as a changed file.
"""

import argparse
import contextlib
import http.client
import json
import sys
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from pipelines.entry import answer
from pipelines.known_groups import extend_known
from stages.download import run as download_run
from stages.download.folder import source_files
from stages.download.run import pinned_content
from stages.errors import FetchError, InputError
from stages.metrics.inception_weights import DOWNLOAD, STANDARD_FILE, STANDARD_SHA256
from stages.packages import cache_folder, check_sha256
from stages.process import WORK, stage_lock
from stages.progress import progress_bar
from stages.settings import DataSettings, Settings, load_settings
from stages.storage import CHUNK, check_free, sha256_file, sha256_json, write_json

SOURCE_LOCK = Path("data/source.lock.json")
WEIGHTS_LOCK = Path("data/weights.lock.json")
GROUPS_LOCK = Path("data/groups.lock.json")
IMAGES, DVC_LOCK = Path("data/images"), Path("dvc.lock")
SEEN = WORK / "refresh.json"
FETCH_SECONDS = 60
LOOKERS = sorted(Path(download_run.__file__).parent.glob("*.py"))  # other code may find otherwise

INCEPTION_URL = f"https://github.com/toshas/torch-fidelity/releases/download/v0.2.0/{STANDARD_FILE}"


def refresh(settings: Settings, thorough: bool = False) -> list[Path]:
    """Bring both lock files up to date and return those that were rewritten.

    Files whose names, sizes and times are as at the last look are not read again, and what is pinned of an archive
    behind the network is believed, unless `thorough`.

    Raises:
        InputError: the selected source or weights file is not there, holds nothing or cannot be read.
        FetchError: what is to be fetched could not be had.
    """
    seen = {} if thorough else _read_object(SEEN)
    contents = {
        SOURCE_LOCK: _source(settings.data, seen, thorough),
        WEIGHTS_LOCK: {"inception": _inception(settings.evaluate.inception, seen)},
    }
    if seen != _read_json(SEEN):
        write_json(SEEN, seen)
    changed = [path for path, content in contents.items() if _read_json(path) != content]
    if SOURCE_LOCK in changed:  # before other pictures take the place of those so far
        _keep_known()
    for path in changed:
        write_json(path, contents[path])
    return changed


def _keep_known() -> None:
    """Record classes and groups of the pictures so far, or say that they are not here to be recorded."""
    if extend_known(IMAGES, GROUPS_LOCK):
        print(f"{GROUPS_LOCK}: the groups of the pictures so far are kept", flush=True)
    elif not IMAGES.exists() and DVC_LOCK.exists() and IMAGES.as_posix() in DVC_LOCK.read_text():
        print(
            f"warning: {IMAGES} of {DVC_LOCK} is not here, so that groups and labels of what was added last are not "
            f"kept; to keep them, `git checkout {SOURCE_LOCK}`, `dvc checkout {IMAGES}` and run again",
            flush=True,
        )


def _source(data: DataSettings, seen: dict[str, Any], poll: bool) -> dict[str, Any]:
    if data.source == "folder":
        folder = Path(data.folder.path or "")
        with _readable("data.folder.path", folder):
            return _remember(seen, str(folder), source_files(folder).files, lambda: pinned_content(data))
    if data.source == "stylegan":
        path = Path(data.stylegan.path or "")
        with _readable("data.stylegan.path", path):
            return _remember(seen, str(path), [path], lambda: pinned_content(data))
    return pinned_content(data, _read_object(SOURCE_LOCK), poll)


def _inception(setting: str | None, seen: dict[str, Any]) -> dict[str, Any] | None:
    if setting is None:
        return None
    path = fetch_inception() if setting == DOWNLOAD else Path(setting).expanduser()
    if not path.is_file():
        raise InputError(f"evaluate.inception is {setting}: there is no such file; allowed: null, a path, download")
    with _readable("evaluate.inception", path):
        found = _remember(seen, str(path), [path], lambda: _describe(path))
    if setting == DOWNLOAD and found["sha256"] != STANDARD_SHA256:
        check_sha256(path, STANDARD_SHA256)
    return found


@contextlib.contextmanager
def _readable(setting: str, path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise InputError(f"{setting} is {path}: {error.filename or path} cannot be read: {error.strerror}") from error


def _describe(path: Path) -> dict[str, Any]:
    return {"sha256": sha256_file(path), "bytes": path.stat().st_size}


def _remember(seen: dict[str, Any], name: str, files: list[Path], look: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """Return what an earlier look found if names, sizes and times of the files are the same, else look."""
    traces = [(path.as_posix(), path.stat().st_size, path.stat().st_mtime_ns) for path in files]
    stamp = sha256_json([*traces, *map(sha256_file, LOOKERS)])
    last = seen.get(name)
    if isinstance(last, dict) and last.get("stamp") == stamp and isinstance(last.get("found"), dict):
        return dict(last["found"])
    found = look()
    seen[name] = {"stamp": stamp, "found": found}
    return found


def fetch_inception(url: str = INCEPTION_URL) -> Path:
    """Return the path of the pinned Inception weights in the user's cache, downloaded if they are not there.

    Raises:
        FetchError: the download failed.
        InputError: what arrived has another sha256.
    """
    path = cache_folder() / STANDARD_FILE
    if path.exists():
        return path
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.partial")
    try:
        _download(url, partial)
        check_sha256(partial, STANDARD_SHA256)
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)
    return path


def _download(url: str, path: Path) -> None:
    try:
        with urllib.request.urlopen(url, timeout=FETCH_SECONDS) as answer, path.open("wb") as stream:
            total = int(answer.headers.get("Content-Length") or 0)
            check_free(path.parent, total, "evaluate.inception")
            with progress_bar(f"fetching {Path(url).name}", total, "bytes") as bar:
                while block := answer.read(CHUNK):
                    bar.update(stream.write(block))
        if bar.n < total:
            raise http.client.HTTPException(f"the answer ended after {bar.n} of {total} bytes")
    except (OSError, http.client.HTTPException) as error:
        reason = " ".join(str(error).split())
        raise FetchError(f"evaluate.inception is download, but {url} could not be fetched: {reason}") from error


def _read_json(path: Path) -> Any:
    """Return a file's JSON, or an empty mapping where it is absent or damaged: it is then written anew."""
    try:
        return json.loads(path.read_text())
    except (OSError, ValueError):
        return {}


def _read_object(path: Path) -> dict[str, Any]:
    found = _read_json(path)
    return found if isinstance(found, dict) else {}


def main() -> int:
    """Look at all sources thoroughly, rewrite the locks that differ, and return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m pipelines.refresh", description=__doc__)
    parser.parse_args()
    return answer("refresh", _refresh_thoroughly)


def _refresh_thoroughly() -> int:
    with stage_lock("pipeline"):
        changed = refresh(load_settings(), thorough=True)
    print("\n".join(f"{path} rewritten" for path in changed) or "sources and weights are as pinned")
    return 0


if __name__ == "__main__":
    sys.exit(main())
