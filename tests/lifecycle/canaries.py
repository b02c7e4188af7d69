"""Made-up secrets, and a search for them in every file: as they are, as addresses write them, and in base64."""

import base64
import gzip
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote, quote_plus

ENVIRONMENT = {
    "AWS_ACCESS_KEY_ID": "canary0AKIA+id/one",
    "AWS_SECRET_ACCESS_KEY": "canary1/aws+secret",
    "MLFLOW_TRACKING_PASSWORD": "canary3/mlflow+password",
    "MLFLOW_TRACKING_TOKEN": "canary4/mlflow+token",
    "HF_TOKEN": "canary5/hub+token",
    "TOKEN": "canary6/archive+token",
    "PATH_TOKEN": "canary7/path+token",
}
QUERY, USERINFO = "canary8-query-token", "canary9-userinfo"
CANARIES = [*ENVIRONMENT.values(), QUERY, USERINFO]


def forms(secret: str) -> set[bytes]:
    """Return how a secret may stand in a file: plain, quoted for an address, in base64 at any of three offsets."""
    plain = {secret, quote(secret, safe=""), quote(secret), quote_plus(secret), quote(quote(secret, safe=""), safe="")}
    return {form.encode() for form in plain} | set(_base64(secret.encode()))


def _base64(secret: bytes) -> Iterator[bytes]:
    for offset in range(3):
        encoded = base64.b64encode(bytes(offset) + secret)
        first = -(-offset * 8 // 6)  # digits that also hold bits of what stands before
        whole = (offset + len(secret)) * 8 // 6
        yield encoded[first:whole]
        yield encoded[first:whole].translate(bytes.maketrans(b"+/", b"-_"))


def leaks(data: bytes) -> list[str]:
    """Return the names of the secrets that bytes hold in any form."""
    return [secret.partition("/")[0] for secret in CANARIES if any(form in data for form in forms(secret))]


def leaking_files(*roots: Path) -> dict[str, list[str]]:
    """Return the files below folders that hold a secret, also within zip, gzip and Git's own compression."""
    found = {}
    for path in (path for root in roots for path in root.rglob("*") if path.is_file() and not path.is_symlink()):
        for data in _contents(path):
            if held := leaks(data):
                found[path.as_posix()] = held
    return found


def _contents(path: Path) -> Iterator[bytes]:
    data = path.read_bytes()
    yield data
    yield str(path).encode()
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            yield from (archive.read(name) for name in archive.namelist())
    elif data[:2] == b"\x1f\x8b":
        yield gzip.decompress(data)
    elif data[:1] == b"\x78":  # zlib: Git's objects
        try:
            yield zlib.decompress(data)
        except zlib.error:
            return
