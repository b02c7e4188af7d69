"""Reads members of zip and tar archives one by one, in memory; nothing is ever extracted by name.

Each guard is a function of its own. What may come out of an archive is limited before it is decompressed: every read
of a tar goes through `_Limited`, and of a zip's directory nothing is believed that the file's size contradicts.
"""

import bz2
import contextlib
import gzip
import io
import lzma
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import IO, Any

from stages.errors import InputError

MAX_MEMBERS = 150_000
MAX_MEMBER_BYTES = 256 << 20
MAX_TOTAL_BYTES = 256 << 30
MAX_RATIO = 200  # pictures are compressed already; flat BMPs reach a hundred
FREE_BYTES = 64 << 20  # of any ratio: too little to hurt
MAX_DIRECTORY_BYTES = 32 << 20  # of a zip: it is read at once
DAMAGE = (tarfile.TarError, zipfile.BadZipFile, EOFError, OSError, zlib.error, lzma.LZMAError, ValueError)
UNREADABLE = (*DAMAGE, NotImplementedError, RuntimeError)  # zipfile's for other compressions and passwords
HINT = "; delete it and run `python -m stages.download`"
LOCAL_HEADER_BYTES = 30
ENCRYPTED, UTF8_NAME = 0x1, 0x800
ZIP_MAGIC = (b"PK\x03\x04", b"PK\x05\x06")
OPENERS: dict[bytes, Callable[[Path], Any]] = {
    b"\x1f\x8b": gzip.open,
    b"BZh": bz2.open,
    b"\xfd7zXZ\x00": lzma.open,
}


@dataclass(frozen=True)
class Member:
    """A member of an archive other than a folder; `kind` is empty for a regular file and else says what it is."""

    name: str
    bytes: int
    kind: str = ""


def members(archive: Path, hint: str = HINT) -> list[Member]:
    """Return all members but folders, in the archive's order, after the guards over the whole archive.

    Raises:
        InputError: the archive is damaged, encrypted, or would take more space than an honest one; `hint` is said
            where it is damaged.
    """
    with _undamaged(archive, hint):
        return _zip_members(archive) if _is_zip(archive) else _tar_members(archive)


def member_names(archive: Path) -> list[str]:
    """Return the names of an archive's regular files, in the archive's order.

    Raises:
        InputError: the archive is damaged.
    """
    return [member.name for member in members(archive) if not member.kind]


def read_members(archive: Path, wanted: Iterable[str], hint: str = HINT) -> Iterator[tuple[str, bytes]]:
    """Yield (name, bytes) of the wanted regular files of an archive, in its order; of equal names the first.

    Raises:
        InputError: the archive is damaged, or a member is larger than 256 MiB.
    """
    remaining = set(wanted)
    with _undamaged(archive, hint):
        yield from _read_zip(archive, remaining) if _is_zip(archive) else _read_tar(archive, remaining)


def unreadable_members(archive: Path, wanted: Iterable[str]) -> Iterator[tuple[str, str]]:
    """Yield for each wanted member of a zip its name and why it cannot be read, or nothing where it can.

    A tar keeps no checksums of its members, so its iteration has told all that there is to know.
    """
    if not _is_zip(archive):
        return
    remaining = set(wanted)
    with zipfile.ZipFile(archive) as opened:
        for name, info in _zip_files(opened):
            if name in remaining:
                remaining.remove(name)
                yield name, _why_unreadable(opened, info)


def _why_unreadable(opened: zipfile.ZipFile, info: zipfile.ZipInfo) -> str:
    try:
        with opened.open(info) as stream:
            while stream.read(1 << 20):
                pass
    except UNREADABLE as error:
        return f"damaged: {' '.join(str(error).split())}"
    return ""


def check_is_archive(archive: Path, what: str) -> None:
    """Tell an archive by its first bytes; a page that says that something went wrong is no data set.

    Raises:
        InputError: it is neither zip nor tar; the message says what it looks like.
    """
    head = _head(archive)
    if head.startswith((*ZIP_MAGIC, *OPENERS)):
        return
    if head.lstrip()[:1] == b"<":
        raise InputError(f"{what} is a page of HTML or XML, not a zip or tar; does the address want a login?")
    if head.count(0) == tarfile.BLOCKSIZE:
        return  # a tar without members
    try:
        tarfile.TarInfo.frombuf(head, "utf-8", "surrogateescape")
    except tarfile.TarError as error:
        raise InputError(f"{what} is neither zip nor tar (plain, gz, bz2, xz): it begins with {head[:16]!r}") from error


def _plain(archive: Path) -> IO[bytes]:
    return archive.open("rb")


def _head(archive: Path) -> bytes:
    with archive.open("rb") as stream:
        return stream.read(tarfile.BLOCKSIZE)


def _is_zip(archive: Path) -> bool:
    return _head(archive).startswith(ZIP_MAGIC)


@contextlib.contextmanager
def _undamaged(archive: Path, hint: str) -> Iterator[None]:
    try:
        yield
    except DAMAGE as error:
        raise InputError(f"{archive} is damaged ({' '.join(str(error).split())}){hint}") from error


def check_count(archive: Path, count: int) -> None:
    """Refuse more members than memory and time were planned for.

    Raises:
        InputError: more than 150,000.
    """
    if count > MAX_MEMBERS:
        raise InputError(f"{archive} holds more than {MAX_MEMBERS:,} members; split it")


def check_total(archive: Path, total: int) -> None:
    """Refuse more content than any data set of pictures has.

    Raises:
        InputError: more than 256 GiB.
    """
    if total > MAX_TOTAL_BYTES:
        raise InputError(f"{archive} unpacks to more than {MAX_TOTAL_BYTES:,} bytes")


def check_ratio(archive: Path, total: int, packed: int) -> None:
    """Refuse a decompression bomb before it is decompressed.

    Raises:
        InputError: more than 200 times the archive's own size, beyond 64 MiB.
    """
    if total > FREE_BYTES + MAX_RATIO * packed:
        raise InputError(f"{archive} has {packed:,} bytes and unpacks to more than {MAX_RATIO} times that: a bomb")


def check_overlap(archive: Path, infos: list[zipfile.ZipInfo]) -> None:
    """Refuse a zip whose members share bytes, the way by which a few kilobytes become petabytes.

    Raises:
        InputError: a member starts before the one in front of it ends; both are named.
    """
    ordered = sorted(infos, key=lambda info: info.header_offset)
    for one, other in pairwise(ordered):
        if one.header_offset + LOCAL_HEADER_BYTES + one.compress_size > other.header_offset:
            raise InputError(f"{archive}: {one.filename!r} and {other.filename!r} overlap; no honest zip does that")


def check_encrypted(archive: Path, infos: list[zipfile.ZipInfo]) -> None:
    """Refuse a zip with a password.

    Raises:
        InputError: a member is encrypted; it is named.
    """
    for info in infos:
        if info.flag_bits & ENCRYPTED:
            raise InputError(f"{archive} is encrypted ({info.filename!r}); give one without a password")


def check_end(archive: Path, block: bytes) -> None:
    """Notice a tar that was cut off between two members, which looks whole up to there.

    Raises:
        InputError: no empty block follows the last member.
    """
    if block.count(0) < tarfile.BLOCKSIZE:
        raise InputError(f"{archive} is cut off or damaged: its end mark is missing")


def check_read(archive: Path, size: int, limit: int) -> None:
    """Refuse to read a header or directory into memory that has no honest use for its size.

    Raises:
        InputError: more than the limit.
    """
    if size > limit:
        raise InputError(f"{archive} wants {size:,} bytes read at once, more than {limit:,}: a bomb")


class _Limited:
    """A stream in which nothing beyond the limits is reached: of one read, in all, and per byte of the archive."""

    def __init__(self, archive: Path, stream: IO[bytes], limit: int) -> None:
        self.archive, self.stream, self.limit = archive, stream, limit
        self.packed = archive.stat().st_size
        self.last = b""  # what was read last: a tar's end mark, which no compressed stream could go back to cheaply

    def read(self, size: int = -1) -> bytes:
        check_read(self.archive, size, self.limit)
        self.last = self.stream.read(size)
        return self.last

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        if whence == io.SEEK_SET:
            check_total(self.archive, offset)
            check_ratio(self.archive, offset, self.packed)
        return self.stream.seek(offset, whence)

    def tell(self) -> int:
        return self.stream.tell()

    def seekable(self) -> bool:
        return True


@contextlib.contextmanager
def _tar(archive: Path) -> Iterator[tuple[tarfile.TarFile, _Limited]]:
    start = _head(archive)
    opener = next((opener for magic, opener in OPENERS.items() if start.startswith(magic)), _plain)
    with opener(archive) as stream:
        limited: Any = _Limited(archive, stream, MAX_MEMBER_BYTES)
        with tarfile.open(fileobj=limited, mode="r:") as tar:
            yield tar, limited


def _tar_members(archive: Path) -> list[Member]:
    found: list[Member] = []
    with _tar(archive) as (tar, stream):
        for count, member in enumerate(tar, start=1):
            check_count(archive, count)
            if not member.isdir():
                found.append(Member(member.name, member.size, _tar_kind(member)))
        check_end(archive, stream.last)
    return found


def _tar_kind(member: tarfile.TarInfo) -> str:
    if member.issym():
        return "a link"
    if member.islnk():
        return "a hard link"
    if member.isfifo():
        return "a pipe"
    if member.isdev():
        return "a device"
    return "" if member.isreg() and not member.issparse() else "no plain file"


def _read_tar(archive: Path, remaining: set[str]) -> Iterator[tuple[str, bytes]]:
    with _tar(archive) as (tar, _):
        while remaining and (member := tar.next()):
            if member.name in remaining and not _tar_kind(member):
                remaining.remove(member.name)
                _check_size(archive, member.name, member.size)
                stream = tar.extractfile(member)
                yield member.name, stream.read() if stream else b""


def _zip_members(archive: Path) -> list[Member]:
    with archive.open("rb") as stream:
        limited: Any = _Limited(archive, stream, MAX_DIRECTORY_BYTES)
        with zipfile.ZipFile(limited) as opened:
            infos = opened.infolist()
    check_count(archive, len(infos))
    total = sum(info.file_size for info in infos)
    check_total(archive, total)
    check_ratio(archive, total, archive.stat().st_size)
    check_encrypted(archive, infos)
    check_overlap(archive, infos)
    return [Member(_zip_name(info), info.file_size, _zip_kind(info)) for info in infos if not info.is_dir()]


def _zip_name(info: zipfile.ZipInfo) -> str:
    """Return a member's name as it is stored, where zipfile's own ends at a NUL and guesses code page 437.

    Bytes that are not UTF-8 become surrogates, as in a tar.
    """
    if info.flag_bits & UTF8_NAME:
        return info.orig_filename
    return info.orig_filename.encode("cp437").decode("utf-8", "surrogateescape")


def _zip_kind(info: zipfile.ZipInfo) -> str:
    mode = info.external_attr >> 16
    if stat.S_ISLNK(mode):
        return "a link"
    if stat.S_ISFIFO(mode):
        return "a pipe"
    if stat.S_ISCHR(mode) or stat.S_ISBLK(mode):
        return "a device"
    return "" if stat.S_IFMT(mode) in (0, stat.S_IFREG) else "no plain file"


def _zip_files(opened: zipfile.ZipFile) -> Iterator[tuple[str, zipfile.ZipInfo]]:
    for info in opened.infolist():
        if not info.is_dir() and not _zip_kind(info):
            yield _zip_name(info), info


def _read_zip(archive: Path, remaining: set[str]) -> Iterator[tuple[str, bytes]]:
    with zipfile.ZipFile(archive) as opened:
        for name, info in _zip_files(opened):
            if name in remaining:
                remaining.remove(name)
                _check_size(archive, name, info.file_size)
                yield name, opened.read(info)


def _check_size(archive: Path, name: str, size: int) -> None:
    if size > MAX_MEMBER_BYTES:
        raise InputError(f"{archive}: {name} has {size} bytes, more than {MAX_MEMBER_BYTES}")
