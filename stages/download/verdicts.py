"""What a source's names and members are judged by: each verdict is a function of its own.

What tries to leave the source's folder is refused with the whole source, for nothing honest does. What is only unusable
is set aside with its reason, and the rest is used, up to `data.max_reject_share`.
"""

import re
import unicodedata
from collections.abc import Iterable
from urllib.parse import unquote

from stages.archives import MAX_MEMBER_BYTES, Member
from stages.errors import InputError

MAX_NAME_BYTES = 255  # of one part, as in file systems
MAX_PATH_BYTES = 1024
SHOWN = 120
DRIVE = re.compile(r"[A-Za-z]:")
ARCHIVES = (".zip", ".tar", ".tgz", ".tar.gz", ".tar.bz2", ".tar.xz", ".tbz2", ".txz", ".7z", ".rar", ".gz", ".xz")
UNQUOTINGS = 3  # %25252e is a dot after three


def judge(source: str, members: Iterable[Member]) -> tuple[list[Member], dict[str, str]]:
    """Return the members that may be used, and for the others their reason by shown name.

    Raises:
        InputError: a name leads out of the folder.
    """
    usable: list[Member] = []
    set_aside: dict[str, str] = {}
    names: dict[str, str] = {}
    for member in members:
        check_inside(source, member.name)
        reason = refusal(member) or taken(member.name, names)
        if reason:
            set_aside[_unused(shown(member.name), set_aside)] = reason
        else:
            usable.append(member)
    return usable, set_aside


def refusal(member: Member) -> str:
    """Return why a member cannot be used, or nothing."""
    by_name = (undecodable, control_character, backslash, percent_escape, too_long, nested)
    reason = next((found for verdict in by_name if (found := verdict(member.name))), "")
    return reason or not_a_file(member) or too_large(member)


def leaves(name: str) -> bool:
    """Tell whether a name, on any system, leads out of the folder that it is relative to."""
    parts = name.replace("\\", "/").split("/")
    return ".." in parts or not parts[0] or DRIVE.match(name) is not None


def check_inside(source: str, name: str) -> None:
    """Refuse a source that reaches for files outside of itself.

    Raises:
        InputError: a name is absolute, has a drive letter or goes up by `..`.
    """
    if leaves(name):
        raise InputError(f"{source}: the name {shown(name)!r} leads out of its folder; nothing of it is used")


def undecodable(name: str) -> str:
    """Refuse bytes that are not UTF-8, which arrive as surrogates."""
    return "its name is not UTF-8" if any(0xD800 <= ord(letter) <= 0xDFFF for letter in name) else ""


def control_character(name: str) -> str:
    """Refuse control characters: NUL, line breaks, terminal codes."""
    return "its name holds a control character" if any(unicodedata.category(c) == "Cc" for c in name) else ""


def backslash(name: str) -> str:
    """Refuse backslashes, which one system reads as folders and the other does not."""
    return "its name holds a backslash" if "\\" in name else ""


def percent_escape(name: str) -> str:
    """Refuse names that lead out of the folder once %2e is read as a dot."""
    for _ in range(UNQUOTINGS):
        name = unquote(name)
    return "its name hides a way out of the folder in %-escapes" if leaves(name) else ""


def too_long(name: str) -> str:
    """Refuse names that a file system could not hold."""
    data = name.encode("utf-8", "surrogateescape")
    if len(data) > MAX_PATH_BYTES or any(len(part) > MAX_NAME_BYTES for part in data.split(b"/")):
        return f"its name is longer than {MAX_NAME_BYTES} bytes a part or {MAX_PATH_BYTES} in all"
    return ""


def nested(name: str) -> str:
    """Refuse archives inside of an archive, which could go on for ever."""
    return "an archive inside of the archive is not opened" if name.lower().endswith(ARCHIVES) else ""


def not_a_file(member: Member) -> str:
    """Refuse links, devices and pipes."""
    return f"it is {member.kind}, not a regular file" if member.kind else ""


def too_large(member: Member) -> str:
    """Refuse what no picture is as large as."""
    if member.bytes > MAX_MEMBER_BYTES:
        return f"{member.bytes:,} bytes are more than {MAX_MEMBER_BYTES:,}"
    return ""


def taken(name: str, names: dict[str, str]) -> str:
    """Refuse a name that is another's but for case or Unicode form, and note it where it is new."""
    key = unicodedata.normalize("NFKC", plain(name)).casefold()
    if key in names:
        return f"its name is that of {shown(names[key])}, but for case or Unicode form"
    names[key] = name
    return ""


def plain(name: str) -> str:
    """Return a name without empty and `.` parts."""
    return "/".join(part for part in name.split("/") if part not in ("", "."))


def check_share(source: str, set_aside: dict[str, str], pictures: int, share: float) -> None:
    """Refuse a source of which too much had to be set aside.

    Raises:
        InputError: more than data.max_reject_share; the first one is named with its reason.
    """
    if len(set_aside) > share * (len(set_aside) + pictures):
        name, reason = next(iter(set_aside.items()))
        raise InputError(
            f"{source}: {len(set_aside)} of {len(set_aside) + pictures} cannot be used, more than "
            f"data.max_reject_share {share}; the first is {name}: {reason}"
        )


def shown(name: str) -> str:
    """Return a foreign name as one short line of printable text."""
    text = name if name.isprintable() else ascii(name)[1:-1]
    return text if len(text) <= SHOWN else f"{text[:SHOWN]}..."


def _unused(name: str, names: dict[str, str]) -> str:
    """Return the name, numbered where another is shown in the same way."""
    number = 2
    candidate = name
    while candidate in names:
        candidate, number = f"{name} ({number})", number + 1
    return candidate
