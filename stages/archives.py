"""Reads members of archives one by one, in memory; nothing is ever extracted by name."""

import tarfile
import zlib
from collections.abc import Iterator
from pathlib import Path

from stages.errors import InputError

MAX_MEMBER_BYTES = 256 * 1024 * 1024
DAMAGE = (tarfile.TarError, EOFError, OSError, zlib.error)


def read_members(archive: Path, wanted: set[str]) -> Iterator[tuple[str, bytes]]:
    """Yield (name, bytes) of the wanted regular files of a tar archive, in the archive's order.

    Raises:
        InputError: the archive is damaged, or a member is larger than 256 MiB.
    """
    try:
        with tarfile.open(archive) as tar:
            for member in tar:
                if member.isfile() and member.name in wanted:
                    yield member.name, _content(tar, member, archive)
    except DAMAGE as error:
        raise InputError(f"{archive} is damaged ({error}); delete it and run `python -m stages.download`") from error


def member_names(archive: Path) -> list[str]:
    """Return the names of an archive's regular files, in the archive's order.

    Raises:
        InputError: the archive is damaged.
    """
    try:
        with tarfile.open(archive) as tar:
            return [member.name for member in tar if member.isfile()]
    except DAMAGE as error:
        raise InputError(f"{archive} is damaged ({error}); delete it and run `python -m stages.download`") from error


def _content(tar: tarfile.TarFile, member: tarfile.TarInfo, archive: Path) -> bytes:
    if member.size > MAX_MEMBER_BYTES:
        raise InputError(f"{archive}: {member.name} has {member.size} bytes, more than {MAX_MEMBER_BYTES}")
    stream = tar.extractfile(member)
    if stream is None:
        raise InputError(f"{archive}: {member.name} is not a regular file")
    return stream.read()
