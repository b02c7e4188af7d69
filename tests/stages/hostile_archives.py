"""Archives that nobody honest makes, byte by byte where libraries refuse to write them."""

import io
import struct
import tarfile
import warnings
import zipfile

from tests.stages.archive_files import as_tar, as_zip, picture, pictures

GOOD = pictures()
ONE = next(iter(GOOD))
BAD = picture("bad")
ZEROS = bytes(1 << 20)


def zip_named(name: str, mode: int = 0) -> bytes:
    """Forty good pictures and one of any name, or with a Unix mode, which zipfile's own constructor would tidy."""
    stream = io.BytesIO(as_zip(GOOD))
    with zipfile.ZipFile(stream, "a") as archive, warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # that a name is there already is the point of it
        info = zipfile.ZipInfo()
        info.filename, info.external_attr, info.create_system = name, mode << 16, 3
        archive.writestr(info, BAD)
    return stream.getvalue()


def zip_name_bytes(name: bytes, flag: int = 0) -> bytes:
    """The same with the name's bytes as they are, and a flag in both headers."""
    marker = b"Q" * len(name)
    data = zip_named(marker.decode()).replace(marker, name)
    return with_flag(data, name, flag)


def with_flag(data: bytes, name: bytes, flag: int) -> bytes:
    """Set a general purpose flag of one member in its local and its central header."""
    changed = bytearray(data)
    for offset, distance in ((data.index(name), 30 - 6), (data.rindex(name), 46 - 8)):
        changed[offset - distance : offset - distance + 2] = struct.pack("<H", flag)
    return bytes(changed)


def with_method(data: bytes, name: bytes, method: int) -> bytes:
    """Claim another compression of one member in both headers."""
    changed = bytearray(data)
    for offset, distance in ((data.index(name), 30 - 8), (data.rindex(name), 46 - 10)):
        changed[offset - distance : offset - distance + 2] = struct.pack("<H", method)
    return bytes(changed)


def encrypted() -> bytes:
    """A member that claims a password."""
    return with_flag(as_zip(GOOD), ONE.encode(), 1)


def overlapping() -> bytes:
    """Two names in the directory for the bytes of one member."""
    data = as_zip(GOOD)
    start, end = data.index(b"PK\x01\x02"), data.index(b"PK\x05\x06")
    first = data[start : start + 46 + len(ONE)]
    again = first.replace(ONE.encode(), b"dog/999.png")
    return _zip_of(data[:start], data[start:end] + again, len(GOOD) + 1)


def crowded(count: int = 200_000) -> bytes:
    """As many names in the directory for one member."""
    data = as_zip({ONE: BAD})
    start, end = data.index(b"PK\x01\x02"), data.index(b"PK\x05\x06")
    return _zip_of(data[:start], data[start:end] * count, count)


def _zip_of(members: bytes, directory: bytes, count: int) -> bytes:
    end = struct.pack("<4s4H2LH", b"PK\x05\x06", 0, 0, *(2 * [count % 65536]), len(directory), len(members), 0)
    return members + directory + end


def wrong_crc() -> bytes:
    """One stored member of which a byte was changed."""
    data = as_zip(GOOD, zipfile.ZIP_STORED)
    return data.replace(GOOD[ONE], GOOD[ONE][:-20] + b"\1" + GOOD[ONE][-19:], 1)


def tar_named(name: str, form: int = tarfile.PAX_FORMAT, pax: dict[str, str] | None = None) -> bytes:
    """Forty good pictures and one of any name."""
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w", format=form, errors="surrogateescape") as archive:
        for good, data in GOOD.items():
            _add(archive, tarfile.TarInfo(good), data)
        member = tarfile.TarInfo(name)
        member.pax_headers = pax or {}
        _add(archive, member, BAD)
    return stream.getvalue()


def _add(archive: tarfile.TarFile, member: tarfile.TarInfo, data: bytes) -> None:
    member.size = len(data)
    archive.addfile(member, io.BytesIO(data))


def tar_with(kind: bytes, target: str = "") -> bytes:
    """Forty good pictures and a member that is no regular file."""
    member = tarfile.TarInfo("cat/special.png")
    member.type, member.linkname, member.devmajor, member.devminor = kind, target, 1, 3
    return as_tar(GOOD, extra=[member])


def cut_between_members() -> bytes:
    """A tar that ends where a member ends, without its end mark."""
    data = as_tar(GOOD)
    with tarfile.open(fileobj=io.BytesIO(data)) as archive:
        last = archive.getmembers()[-1]
    return data[: last.offset]


def tar_of_header(claimed: int) -> bytes:
    """A tar whose extended header claims to be of any size, and which is read at once."""
    member = tarfile.TarInfo("header")
    member.type, member.size = tarfile.XHDTYPE, claimed
    return member.tobuf(tarfile.GNU_FORMAT) + bytes(10240)
