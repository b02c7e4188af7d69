"""Fetches files over https into the user's cache: resumed where it broke, retried, verified before it is used."""

import contextlib
import hashlib
import json
import logging
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stages.addresses import check_https, file_name, origin, public
from stages.errors import FetchError, InputError
from stages.packages import cache_folder
from stages.progress import progress_bar
from stages.storage import check_free, sha256_bytes, sha256_file, write_json

if TYPE_CHECKING:
    import httpx

CONNECT_SECONDS = 20.0
SILENT_SECONDS = 60.0
PAUSES = (1.0, 2.0, 4.0, 8.0)  # seconds before another try; each step forward starts them anew
MAX_REDIRECTS = 10
TRANSIENT = {408, 425, 429, 500, 502, 503, 504}
NO_HEAD = {403, 405, 501}
VALIDATORS = {"etag": "ETag", "modified": "Last-Modified"}


@dataclass(frozen=True)
class Remote:
    """A file on the web: its address with secrets in it, the setting that names it, what it must be where known.

    `written` is the address as the settings have it, where secrets are still `${NAME}`: it alone is shown.
    """

    url: str = field(repr=False)
    what: str
    sha256: str | None = None
    bytes: int | None = None
    md5: str | None = None
    written: str = ""

    @property
    def name(self) -> str:
        """The plain name under which the file is kept."""
        return file_name(self.written or self.url)

    @property
    def address(self) -> str:
        """The address without secrets."""
        return public(self.written or self.url)

    @property
    def shown(self) -> str:
        """The setting and the address without secrets, for messages."""
        return f"{self.what} {self.address}"


@dataclass(frozen=True)
class Local:
    """A fetched and verified file in the user's cache."""

    path: Path
    sha256: str
    bytes: int


class _Transient(Exception):  # noqa: N818 - a reason to try again, never told as it is
    """The server or the way to it failed; another try may do."""


def cached(sha256: str, name: str) -> Path:
    """Return where the user's cache keeps a file of this content and name, whether or not it is there."""
    return cache_folder() / sha256[:16] / name


def fetch(remote: Remote, check: Callable[[Path, str], None] = lambda path, what: None) -> Local:
    """Return a file from the user's cache, or fetch it there; `check(path, what)` refuses what is of no use.

    A broken transfer goes on where it ended if the server can and its file is still the same one.

    Raises:
        FetchError: the server could not be reached, or broke off again and again.
        InputError: another scheme than https, a refusal by the server, another sha256, md5 or size than expected.
        ResourceError: the disk is too small.
    """
    if found := _in_cache(remote):
        return found
    check_https(remote.url, remote.what)
    from filelock import FileLock

    partial = _Partial(cache_folder() / "partial" / sha256_bytes(f"{remote.address}\0{remote.sha256}".encode())[:16])
    partial.folder.mkdir(parents=True, exist_ok=True)
    with FileLock(partial.folder.with_suffix(".lock")):
        if found := _in_cache(remote):  # fetched by another process meanwhile
            return found
        _complete(remote, partial)
        return _keep(remote, partial, check)


def _in_cache(remote: Remote) -> Local | None:
    if remote.sha256 is None:
        return None
    path = cached(remote.sha256, remote.name)
    if not path.exists() or sha256_file(path) != remote.sha256:
        return None
    check_md5(path, remote)
    return Local(path, remote.sha256, path.stat().st_size)


def changed(remote: Remote, locked_sha256: str, locked_bytes: int) -> bool:
    """Ask the server whether a file is another one than the pinned; where it cannot tell, it may be.

    Raises:
        FetchError: the server could not be reached.
        InputError: another scheme than https, or a refusal by the server.
    """
    import httpx

    check_https(remote.url, remote.what)
    try:
        with _client() as client, _answer(client, remote, "HEAD", {}) as answer:
            if answer.status_code in NO_HEAD:
                return True
            headers = answer.headers
            _check_status(remote, answer)
    except (_Transient, httpx.HTTPError) as error:
        raise FetchError(f"{remote.shown} could not be reached: {_line(error)}") from error
    if headers.get("Content-Length", str(locked_bytes)) != str(locked_bytes):
        return True
    known = _read_about(_about_of(cached(locked_sha256, remote.name)))
    stamps = [name for name, header in VALIDATORS.items() if known.get(name) and header in headers]
    return not stamps or any(known[name] != headers[VALIDATORS[name]] for name in stamps)


class _Partial:
    """What a broken transfer left: the bytes so far, and which file of the server they are of."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.data = folder / "data"
        self.about = folder / "about.json"

    @property
    def size(self) -> int:
        return self.data.stat().st_size if self.data.exists() else 0

    @property
    def validator(self) -> str:
        """What If-Range can name: a strong ETag or a date; a weak one does not vouch for each byte."""
        known = _read_about(self.about)
        etag = str(known.get("etag") or "")
        return etag if etag and not etag.startswith("W/") else str(known.get("modified") or "")

    def remember(self) -> None:
        """Note what is there when a transfer breaks, so that bytes lost by a crash of the machine are noticed."""
        if self.data.exists():
            write_json(self.about, _read_about(self.about) | {"sha256": sha256_file(self.data)})

    def resumable(self) -> int:
        """Return how many bytes are there to go on from."""
        if not self.size or not self.validator or _read_about(self.about).get("sha256") != sha256_file(self.data):
            return 0
        return self.size

    def drop(self) -> None:
        self.data.unlink(missing_ok=True)
        self.about.unlink(missing_ok=True)


def _complete(remote: Remote, partial: _Partial) -> None:
    """Transfer until the file is whole; each further byte than ever before starts the pauses anew."""
    import httpx

    farthest, pauses = 0, iter(PAUSES)
    print(f"fetching {remote.address}", flush=True)
    with _client() as client:
        while True:
            try:
                return _transfer(client, remote, partial)
            except (_Transient, httpx.TransportError) as error:
                if partial.size > farthest:
                    farthest, pauses = partial.size, iter(PAUSES)
                pause = next(pauses, None)
                if pause is None:
                    raise FetchError(f"{remote.shown} could not be fetched: {_line(error)}") from error
                print(f"{remote.name}: {_line(error)}; trying again in {pause:g} s", flush=True)
                time.sleep(pause)


def _transfer(client: "httpx.Client", remote: Remote, partial: _Partial) -> None:
    start = partial.resumable()
    headers = {"Range": f"bytes={start}-", "If-Range": partial.validator} if start else {}
    with _answer(client, remote, "GET", headers) as answer:
        if start and answer.status_code == 416:
            partial.drop()
            raise _Transient("the partial file is longer than the server's")
        _check_status(remote, answer)
        if answer.status_code == 206:
            _check_continuation(answer, start, partial)
        else:
            start = 0
            partial.drop()
            write_json(partial.about, _stamps(answer))
        try:
            _write(remote, answer, partial, start)
        except BaseException:
            partial.remember()
            raise


def _check_continuation(answer: "httpx.Response", start: int, partial: _Partial) -> None:
    """Notice a server that goes on with another file or from another place than was asked for."""
    known = _read_about(partial.about)
    other = any(known.get(name) and stamp and stamp != known[name] for name, stamp in _stamps(answer).items())
    if other or not answer.headers.get("Content-Range", "").startswith(f"bytes {start}-"):
        partial.drop()
        raise _Transient("the server's file is another one than the partial file is of")


def _write(remote: Remote, answer: "httpx.Response", partial: _Partial, start: int) -> None:
    length = int(answer.headers.get("Content-Length") or 0)
    total = start + length if length else remote.bytes or 0
    check_length(remote, total or None)
    check_free(partial.folder, total - start, remote.shown)
    with partial.data.open("ab") as stream, progress_bar(f"fetching {remote.name}", total, "bytes", start) as bar:
        for block in answer.iter_raw():
            bar.update(stream.write(block))
            if remote.bytes is not None and bar.n > remote.bytes:
                check_length(remote, int(bar.n))


def check_length(remote: Remote, found: int | None) -> None:
    """Compare a size with the expected one where both are known.

    Raises:
        InputError: they differ.
    """
    if None not in (remote.bytes, found) and found != remote.bytes:
        raise InputError(f"{remote.shown} has {found} bytes, expected {remote.bytes}: it is not the pinned version")


def check_content(remote: Remote, found: str) -> None:
    """Compare a sha256 with the pinned one, where one is.

    Raises:
        InputError: they differ; both are named.
    """
    if remote.sha256 and found != remote.sha256:
        raise InputError(
            f"{remote.shown} has sha256 {found}, expected {remote.sha256}: it is damaged or not the pinned version"
        )


def check_md5(path: Path, remote: Remote) -> None:
    """Compare a file with the md5 that its publisher tells, where it does.

    Raises:
        InputError: they differ; both are named.
    """
    if remote.md5 is None:
        return
    with path.open("rb") as stream:
        found = hashlib.file_digest(stream, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()
    if found != remote.md5:
        raise InputError(f"{remote.shown} has md5 {found}, its publisher says {remote.md5}: it is damaged or replaced")


def _keep(remote: Remote, partial: _Partial, check: Callable[[Path, str], None]) -> Local:
    """Verify what arrived and move it to its place; what is refused is not kept."""
    try:
        check(partial.data, remote.shown)
        check_length(remote, partial.size)
        check_md5(partial.data, remote)
        sha256 = sha256_file(partial.data)
        check_content(remote, sha256)
    except InputError:
        partial.drop()
        raise
    path, size = cached(sha256, remote.name), partial.size
    path.parent.mkdir(parents=True, exist_ok=True)
    partial.data.replace(path)
    partial.about.replace(_about_of(path))
    return Local(path, sha256, size)


def _client() -> "httpx.Client":
    import httpx

    for name in ("httpx", "httpcore"):  # they would log addresses with their secrets
        logging.getLogger(name).setLevel(logging.WARNING)
    return httpx.Client(timeout=httpx.Timeout(SILENT_SECONDS, connect=CONNECT_SECONDS), follow_redirects=False)


@contextlib.contextmanager
def _answer(client: "httpx.Client", remote: Remote, method: str, headers: dict[str, str]) -> Iterator["httpx.Response"]:
    """Yield the answer at the end of the redirects, each of which must be https too."""
    request = client.build_request(method, remote.url, headers={"Accept-Encoding": "identity", **headers})
    for _ in range(MAX_REDIRECTS):
        answer = client.send(request, stream=True)
        try:
            if answer.next_request is None:
                yield answer
                return
            request = answer.next_request
        finally:
            answer.close()
        check_https(str(request.url), f"{remote.shown} leads to an address that", origin)
    raise InputError(f"{remote.shown} leads on and on, more than {MAX_REDIRECTS} times")


def _check_status(remote: Remote, answer: "httpx.Response") -> None:
    code = answer.status_code
    if code in TRANSIENT:
        raise _Transient(f"the server answered {code} {answer.reason_phrase}")
    if code not in (200, 206):
        hint = "; does it want a token?" if code in (401, 403) else ""
        raise InputError(f"{remote.shown} was refused: the server answered {code} {answer.reason_phrase}{hint}")


def _stamps(answer: "httpx.Response") -> dict[str, str | None]:
    return {name: answer.headers.get(header) for name, header in VALIDATORS.items()}


def _about_of(path: Path) -> Path:
    return path.with_name(f"{path.name}.about.json")


def _read_about(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text())
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _line(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__
