"""The table of hostile sources: archives, what servers answer, captions, folders, StyleGAN sets."""

import os
import stat
from pathlib import Path

from tests.stages import hostile_archives as made
from tests.stages.archive_files import as_zip, picture
from tests.stages.hostile_archive_cases import DAMAGE, KINDS, NAMES, SIZES
from tests.stages.hostile_case import (
    CAPTIONS,
    FETCHING,
    FOLDER,
    GOOD,
    LAYOUT,
    SET_ASIDE,
    STYLEGAN,
    Case,
    a_file,
    archive,
    aside,
    folder,
    labels,
    leaves,
    links,
    served,
    stylegan,
    stylegan_zip,
    with_metadata,
)

FETCHED = [
    Case(
        "a page of HTML",
        served("set.zip", lambda: b"<!DOCTYPE html><title>Log in</title>"),
        "stages.download.archive.check_is_archive",
        ("is a page of HTML", "login"),
    ),
    Case(
        "no archive at all",
        served("set.tar", lambda: bytes(range(1, 256)) * 9),
        "stages.download.archive.check_is_archive",
        ("neither zip nor tar",),
    ),
    Case(
        "nothing at all",
        served("set.zip", lambda: b""),
        "stages.download.archive.check_is_archive",
        ("neither zip nor tar",),
    ),
    Case(
        "another sha256",
        served("set.zip", lambda: as_zip(GOOD), sha256="0" * 64),
        f"{FETCHING}.check_content",
        ("expected 0000", "not the pinned version"),
    ),
    Case(
        "another size",
        served("set.zip", lambda: as_zip(GOOD), bytes=77),
        f"{FETCHING}.check_length",
        ("bytes, expected 77",),
    ),
    Case(
        "a redirect to http",
        served("moved.zip", lambda: b""),
        f"{FETCHING}.check_https",
        ("leads to an address", "http is not allowed, only https"),
    ),
]

METADATA = [
    Case(
        "captions of a missing picture",
        with_metadata(b'{"file_name": "cat/absent.png", "text": "x"}'),
        f"{LAYOUT}.check_all_there",
        ("cat/absent.png, which is no picture there",),
    ),
    Case(
        "captions beyond the archive",
        with_metadata(b"file_name,text\n../../secret.png,x\n", "metadata.csv"),
        f"{LAYOUT}.check_all_there",
        ("../../secret.png, which is no picture there",),
    ),
    Case(
        "captions twice",
        with_metadata(b'{"file_name": "dog/000.png", "text": "x"}\n' * 2),
        f"{CAPTIONS}.check_named_once",
        ("row 2", "dog/000.png appears twice"),
    ),
    Case(
        "captions in two formats",
        archive(lambda: as_zip(GOOD | {"metadata.jsonl": b"", "metadata.csv": b"file_name,text\n"})),
        f"{CAPTIONS}.check_one_format",
        ("holds both metadata.jsonl and metadata.csv",),
    ),
    Case(
        "captions: no object",
        with_metadata(b'["dog/000.png"]'),
        f"{CAPTIONS}._object",
        ("line 1: not an object",),
        gone={},
    ),
    Case("captions: no JSON", with_metadata(b"{"), f"{CAPTIONS}._object", ("line 1: not JSON",), gone={}),
    Case(
        "captions: a million brackets", with_metadata(b"[" * 1_000_000), f"{CAPTIONS}._object", ("not JSON",), gone={}
    ),
    Case("captions: not UTF-8", with_metadata(b"caf\xe9"), f"{CAPTIONS}._text", ("is not UTF-8", "0xe9"), gone=""),
    Case(
        "captions for some",
        with_metadata(b'{"file_name": "dog/000.png", "text": "x"}'),
        f"{LAYOUT}.remarks",
        ("39 of 40 pictures have no caption",),
        SET_ASIDE,
        gone=[],
    ),
    Case(
        "a class of one picture",
        archive(lambda: as_zip(GOOD | {"bird/0.png": picture("bird")})),
        f"{LAYOUT}.remarks",
        ("1 of 3 classes have one picture, such as bird",),
        SET_ASIDE,
        gone=[],
    ),
]

FOLDERS = [
    aside(
        "a link out",
        folder(lambda own: (own / "x.png").symlink_to("/etc/passwd")),
        f"{FOLDER}.link_out",
        "out of the folder",
    ),
    aside(
        "a link to its own folder",
        folder(lambda own: (own / "cat/loop").symlink_to("..")),
        f"{FOLDER}.link_to_folder",
        "not followed",
    ),
    aside(
        "a link to nothing",
        folder(lambda own: (own / "x.png").symlink_to("absent.png")),
        f"{FOLDER}.dangling",
        "to nothing",
    ),
    aside(
        "a link to itself",
        folder(lambda own: (own / "x.png").symlink_to("x.png")),
        f"{FOLDER}.dangling",
        "or to itself",
    ),
    aside(
        "a socket",
        folder(lambda own: os.mknod(own / "x.png", stat.S_IFSOCK | 0o600)),
        f"{FOLDER}.not_regular",
        "not a regular file",
    ),
    aside(
        "a line break",
        folder(lambda own: (own / "x\ny.png").write_bytes(made.BAD)),
        f"{FOLDER}.control_character",
        "control",
    ),
    Case(
        "a folder of links",
        folder(links, good=False),
        f"{FOLDER}.dangling",
        ("holds no picture", "set aside: 5", "a link to nothing"),
        gone="",
    ),
    Case(
        "a folder that is a file",
        folder(a_file, good=False),
        f"{FOLDER}.check_folder",
        ("which is not a folder",),
    ),
    Case(
        "a name that is not UTF-8",
        folder(lambda own: Path(os.fsdecode(bytes(own) + b"/\xff.png")).write_bytes(made.BAD)),
        f"{FOLDER}.check_name",
        (r"\xff.png: the file's name is not UTF-8",),
    ),
]

LABELS = [
    Case(
        "labels of some",
        stylegan({"labels": labels()["labels"][:-3]}),
        f"{STYLEGAN}.check_complete",
        ("3 of 40 pictures have no label",),
    ),
    Case("a label of nothing", stylegan(labels(["x.png", 0])), f"{STYLEGAN}.check_known", ("label 41 names x.png",)),
    Case("a label twice", stylegan(labels([made.ONE, 1])), f"{STYLEGAN}.check_once", ("label 41 is a second one",)),
    *(
        Case(
            f"a label of {value}",
            stylegan({"labels": [[n, value] for n in GOOD]}),
            f"{STYLEGAN}.check_entry",
            (str(value), words),
        )
        for value, words in (
            (-1, "whole number"),
            (0.5, "whole number"),
            (True, "whole number"),
            ([0.1, 0.2], "whole number"),
        )
    ),
    Case("labels of no pairs", stylegan({"labels": [0] * 40}), f"{STYLEGAN}.check_entry", ("expected [name, class]",)),
    Case(
        "labels of another kind",
        stylegan({"labels": 5}),
        f"{STYLEGAN}.read_labels",
        ("neither null nor a list",),
        gone={},
    ),
    Case(
        "no JSON", stylegan(b"{"), f"{STYLEGAN}.read_description", ("dataset.json is not JSON",), gone={"labels": None}
    ),
    Case(
        "no labels",
        stylegan({}),
        f"{STYLEGAN}.read_description",
        ("not an object with `labels`",),
        gone={"labels": None},
    ),
    Case(
        "no dataset.json",
        stylegan(b""),
        f"{STYLEGAN}.read_description",
        ("holds no dataset.json",),
        gone={"labels": None},
    ),
    Case(
        "names of classes that do not suffice",
        stylegan({"labels": [[n, 1] for n in GOOD], "class_names": ["one"]}),
        f"{STYLEGAN}.class_names",
        ("class_names must be different texts, one for each of 2 labels",),
        gone={1: "one"},
    ),
    Case(
        "a StyleGAN set that is a folder",
        lambda outside: {"source": "stylegan", "stylegan": {"path": str(outside)}},
        f"{STYLEGAN}.check_file",
        ("which is not a file",),
    ),
    leaves(
        "a StyleGAN set that reaches out",
        stylegan_zip(made.zip_named("../x.png")),
    ),
]

CASES = [*NAMES, *KINDS, *SIZES, *DAMAGE, *FETCHED, *METADATA, *FOLDERS, *LABELS]
