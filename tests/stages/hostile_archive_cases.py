"""The table of hostile archives: names, kinds of members, sizes, damage."""

import tarfile
from functools import partial

from tests.stages import hostile_archives as made
from tests.stages.archive_files import as_tar, as_zip, pictures
from tests.stages.hostile_case import (
    ARCHIVES,
    GOOD,
    LAYOUT,
    SET_ASIDE,
    VERDICTS,
    Case,
    archive,
    aside,
    half,
    leaves,
    tbz,
    tgz,
    txz,
)

NAMES = [
    leaves("zip: up", archive(lambda: made.zip_named("../evil.png"))),
    leaves("tar: up from below", archive(lambda: made.tar_named("cat/../../evil.png"), "tar")),
    leaves("zip: absolute", archive(lambda: made.zip_named("/etc/evil.png"))),
    leaves("tar: absolute", archive(lambda: made.tar_named("/etc/evil.png"), "tar")),
    leaves("zip: drive letter", archive(lambda: made.zip_named("C:evil.png"))),
    leaves("zip: up by backslashes", archive(lambda: made.zip_named("..\\..\\evil.png"))),
    leaves("zip: network share", archive(lambda: made.zip_named("\\\\host\\share\\evil.png"))),
    leaves("zip: up, and no picture", archive(lambda: made.zip_named("../../.bashrc"))),
    aside(
        "zip: percent-encoded",
        archive(lambda: made.zip_named("%2e%2e%2fx.png")),
        f"{VERDICTS}.percent_escape",
        "%-escapes",
    ),
    aside(
        "tar: encoded twice",
        archive(lambda: made.tar_named("%252e%252e%252fx.png"), "tar"),
        f"{VERDICTS}.percent_escape",
        "%-escapes",
    ),
    aside(
        "zip: backslash", archive(lambda: made.zip_named("cat\\x.png")), f"{VERDICTS}.backslash", "holds a backslash"
    ),
    *(
        aside(name, archive(make, suffix), f"{VERDICTS}.control_character", "control character")
        for name, make, suffix in (
            ("zip: line break", lambda: made.zip_named("cat/a\nb.png"), "zip"),
            ("zip: terminal code", lambda: made.zip_named("cat/\x1b[31mx.png"), "zip"),
            ("zip: NUL", lambda: made.zip_named("cat/x.png\0.png"), "zip"),
            ("tar: NUL", lambda: made.tar_named("x", pax={"path": "cat/x\0.png"}), "tar"),
        )
    ),
    aside(
        "zip: long part", archive(lambda: made.zip_named(f"{'x' * 300}.png")), f"{VERDICTS}.too_long", "longer than 255"
    ),
    aside(
        "tar: long path",
        archive(lambda: made.tar_named("abcdefg/" * 200 + "x.png"), "tar"),
        f"{VERDICTS}.too_long",
        "1024 in all",
    ),
    aside(
        "zip: not UTF-8",
        archive(lambda: made.zip_name_bytes(b"cat/\xff\xfe.png")),
        f"{VERDICTS}.undecodable",
        "is not UTF-8",
    ),
    aside(
        "tar: not UTF-8",
        archive(lambda: made.tar_named("cat/\udcff\udcfe.png", tarfile.GNU_FORMAT), "tar"),
        f"{VERDICTS}.undecodable",
        "is not UTF-8",
    ),
    Case(
        "zip: not the UTF-8 that it claims",
        archive(lambda: made.zip_name_bytes(b"cat/\xff\xfe.png", 0x800)),
        f"{ARCHIVES}._undamaged",
        ("set.zip is damaged", "can't decode byte"),
        gone="context",
    ),
    *(
        aside(name, archive(partial(as_zip, GOOD | {other: made.BAD})), f"{VERDICTS}.taken", "but for case or")
        for name, other in (
            ("zip: the same name but for case", made.ONE.upper()),
            ("zip: the same name but for Unicode form", made.ONE.replace("dog", "d\uff4fg")),
            ("zip: the same name but for a dot", f"./{made.ONE}"),
        )
    ),
    aside("zip: a name twice", archive(lambda: made.zip_named(made.ONE)), f"{VERDICTS}.taken", "its name is that of"),
]

KINDS = [
    *(
        aside(f"tar: {what}", archive(partial(made.tar_with, kind, target), "tar"), f"{VERDICTS}.not_a_file", what)
        for what, kind, target in (
            ("a link", tarfile.SYMTYPE, "/etc/passwd"),
            ("a hard link", tarfile.LNKTYPE, "../../outside.png"),
            ("a device", tarfile.CHRTYPE, ""),
            ("a pipe", tarfile.FIFOTYPE, ""),
        )
    ),
    *(
        aside(f"zip: {what}", archive(partial(made.zip_named, "cat/x.png", mode)), f"{VERDICTS}.not_a_file", what)
        for what, mode in (
            ("a link", 0o120777),
            ("a device", 0o060666),
            ("a pipe", 0o010666),
            ("no plain file", 0o140666),
        )
    ),
    aside(
        "zip: an archive inside",
        archive(lambda: as_zip(GOOD | {"more.zip": as_zip(GOOD)})),
        f"{VERDICTS}.nested",
        "an archive inside of the archive is not opened",
    ),
    Case(
        "zip: nothing but an archive inside",
        archive(lambda: as_zip({"more.tar.gz": as_tar(GOOD, "w:gz")})),
        f"{LAYOUT}.check_any",
        ("holds no picture", "set aside: 1", "more.tar.gz: an archive inside"),
    ),
]

SIZES = [
    Case("zip: 200,000 members", archive(made.crowded), f"{ARCHIVES}.check_count", ("more than 150,000 members",)),
    Case(
        "tar: too many members",
        archive(lambda: as_tar(GOOD), "tar"),
        f"{ARCHIVES}.check_count",
        ("more than 30 members",),
        limits={f"{ARCHIVES}.MAX_MEMBERS": 30},
    ),
    Case(
        "zip: a bomb",
        archive(lambda: as_zip(GOOD | {"cat/bomb.png": made.ZEROS * 8})),
        f"{ARCHIVES}.check_ratio",
        ("unpacks to more than 200 times that: a bomb",),
        limits={f"{ARCHIVES}.FREE_BYTES": 1 << 20},
    ),
    Case(
        "tar.gz: a bomb",
        archive(lambda: as_tar({"cat/bomb.png": made.ZEROS * 8} | GOOD, "w:gz"), "tar.gz"),
        f"{ARCHIVES}.check_ratio",
        ("unpacks to more than 200 times that: a bomb",),
        limits={f"{ARCHIVES}.FREE_BYTES": 1 << 20},
    ),
    Case("zip: members that overlap", archive(made.overlapping), f"{ARCHIVES}.check_overlap", ("overlap",)),
    *(
        Case(
            f"{suffix}: too much in all",
            archive(partial(make, GOOD), suffix),
            f"{ARCHIVES}.check_total",
            ("unpacks to more than 3,000 bytes",),
            limits={f"{ARCHIVES}.MAX_TOTAL_BYTES": 3000},
        )
        for suffix, make in (("zip", as_zip), ("tar", as_tar))
    ),
    Case(
        "tar: a header of 300 MB",
        archive(lambda: made.tar_of_header(300 << 20), "tar"),
        f"{ARCHIVES}.check_read",
        ("wants 314,572,800 bytes read at once",),
    ),
    Case(
        "zip: a directory beyond the limit",
        archive(lambda: as_zip(GOOD)),
        f"{ARCHIVES}.check_read",
        ("bytes read at once, more than 500",),
        limits={f"{ARCHIVES}.MAX_DIRECTORY_BYTES": 500},
    ),
    aside(
        "zip: a picture of 300 MB",
        archive(lambda: as_zip(GOOD | {"cat/large.png": made.ZEROS * 3})),
        f"{VERDICTS}.too_large",
        "bytes are more than 2,000,000",
    ),
]
SIZES[-1].limits[f"{VERDICTS}.MAX_MEMBER_BYTES"] = 2_000_000

DAMAGE = [
    *(
        Case(
            f"{suffix}: cut in half",
            archive(partial(half, make(GOOD)), suffix),
            f"{ARCHIVES}._undamaged",
            (f"set.{suffix} is damaged",),
            gone="context",
        )
        for suffix, make in (
            ("zip", as_zip),
            ("tar.gz", tgz),
            ("tar.xz", txz),
            ("tar.bz2", tbz),
        )
    ),
    Case("tar: cut between members", archive(made.cut_between_members, "tar"), f"{ARCHIVES}.check_end", ("end mark",)),
    Case("zip: empty", archive(lambda: as_zip({})), f"{LAYOUT}.check_any", ("set.zip holds no picture",)),
    Case("tar: empty", archive(lambda: as_tar({}), "tar"), f"{LAYOUT}.check_any", ("set.tar holds no picture",)),
    Case(
        "zip: no picture in it",
        archive(lambda: as_zip({"a.txt": b"text"})),
        f"{LAYOUT}.check_any",
        ("set.zip holds no picture",),
    ),
    Case("zip: encrypted", archive(made.encrypted), f"{ARCHIVES}.check_encrypted", ("is encrypted", made.ONE)),
    Case(
        "zip: wrong checksum",
        archive(made.wrong_crc),
        "stages.download.archive.damaged",
        (made.ONE, "damaged: Bad CRC-32"),
        SET_ASIDE,
        gone={},
    ),
    Case(
        "zip: unknown compression",
        archive(lambda: made.with_method(as_zip(GOOD), made.ONE.encode(), 97)),
        "stages.download.archive.damaged",
        (made.ONE, "compression"),
        SET_ASIDE,
        gone={},
    ),
    Case(
        "tar: too much of it is bad",
        archive(lambda: as_tar(pictures(10) | {f"cat/{n}\n.png": made.BAD for n in range(3)}), "tar"),
        "stages.download.run.check_share",
        ("3 of 13 cannot be used", "max_reject_share 0.05", "control character"),
    ),
]
