"""Archives for the tests: made in memory from names and bytes, honest ones and others."""

import io
import tarfile
import zipfile

from PIL import Image

from stages.storage import sha256_bytes


def picture(name: str, side: int = 24) -> bytes:
    """A PNG of a coloured square on white; each name has its own colour."""
    drawn = Image.new("RGB", (side, side), "white")
    drawn.paste(f"#{sha256_bytes(name.encode())[:6]}", (4, 4, side - 4, side - 4))
    stream = io.BytesIO()
    drawn.save(stream, "PNG")
    return stream.getvalue()


def pictures(count: int = 40, prefix: str = "") -> dict[str, bytes]:
    """Pictures of the classes `cat` and `dog`, by name."""
    names = [f"{prefix}{'cat' if number % 2 else 'dog'}/{number:03d}.png" for number in range(count)]
    return {name: picture(name) for name in names}


def as_zip(members: dict[str, bytes], method: int = zipfile.ZIP_DEFLATED) -> bytes:
    """A zip of members in their order."""
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", method) as archive:
        for name, data in members.items():
            archive.writestr(zipfile.ZipInfo(name), data, method)
    return stream.getvalue()


def as_tar(members: dict[str, bytes], mode: str = "w", extra: list[tarfile.TarInfo] | None = None) -> bytes:
    """A tar of members in their order, then of members without content."""
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode=mode) as archive:  # type: ignore[call-overload]
        for name, data in members.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
        for member in extra or []:
            archive.addfile(member)
    return stream.getvalue()
