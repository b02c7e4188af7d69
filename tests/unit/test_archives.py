"""Archives are read member by member, the same from a zip as from a tar; names and addresses are judged and shown."""

import io
import tarfile
from pathlib import Path

import pytest

from stages import archives
from stages.addresses import file_name, filled, public
from stages.archives import check_is_archive, member_names, members, read_members, unreadable_members
from stages.download.layout import is_picture, shared_top
from stages.download.verdicts import leaves, shown
from stages.errors import InputError
from tests.stages.archive_files import as_tar, as_zip
from tests.stages.hostile_archives import wrong_crc, zip_named

CONTENT = {"b/1.png": b"one", "a.png": b"two" * 1000, "empty": b"", "caf\u00e9/\u2603.png": b"three"}
FORMS = {
    "zip": as_zip(CONTENT),
    "stored.zip": as_zip(CONTENT, 0),
    **{f"tar{kind}": as_tar(CONTENT, f"w:{kind}") for kind in ("", "gz", "bz2", "xz")},
}


@pytest.fixture(params=FORMS)
def archive(request, tmp_path: Path) -> Path:
    path = tmp_path / f"archive.{request.param}"
    path.write_bytes(FORMS[request.param])
    return path


def test_names_and_contents_are_those_put_in(archive):
    check_is_archive(archive, "it")
    assert member_names(archive) == list(CONTENT)
    assert [(member.name, member.bytes) for member in members(archive)] == [(n, len(d)) for n, d in CONTENT.items()]
    assert dict(read_members(archive, CONTENT)) == CONTENT
    assert list(read_members(archive, {"a.png", "absent"})) == [("a.png", CONTENT["a.png"])]
    assert [reason for _, reason in unreadable_members(archive, CONTENT) if reason] == []


def test_folders_are_no_members(tmp_path):
    folder = tarfile.TarInfo("folder")
    folder.type = tarfile.DIRTYPE
    path = tmp_path / "a.tar"
    path.write_bytes(as_tar({"folder/a.png": b"x"}, extra=[folder]))
    assert member_names(path) == ["folder/a.png"]
    path.write_bytes(as_zip({"folder/": b"", "folder/a.png": b"x"}))
    assert member_names(path) == ["folder/a.png"]


def test_of_equal_names_the_first_is_read(tmp_path):
    path = tmp_path / "a.tar"
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as tar:
        for data in (b"first", b"again"):
            member = tarfile.TarInfo("a.png")
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    path.write_bytes(stream.getvalue())
    assert list(read_members(path, {"a.png"})) == [("a.png", b"first")]


def test_a_tar_that_ends_in_a_zip_is_a_tar(tmp_path):
    path = tmp_path / "a.tar"
    path.write_bytes(as_tar({"a.png": b"x", "inner.zip": as_zip({"evil.png": b"y"})}))
    assert member_names(path) == ["a.png", "inner.zip"]


def test_a_damaged_member_is_named_and_not_read(tmp_path):
    path = tmp_path / "a.zip"
    path.write_bytes(wrong_crc())
    names = member_names(path)
    found = [(name, reason) for name, reason in unreadable_members(path, names) if reason]
    assert [name for name, _ in found] == names[:1]
    with pytest.raises(InputError, match=r"a\.zip is damaged \(Bad CRC-32.*stages\.download"):
        list(read_members(path, names))


def test_nothing_is_decompressed_beyond_the_limit(tmp_path, monkeypatch):
    """A gigabyte in a megabyte is refused before its end is reached."""
    path = tmp_path / "a.tar.gz"
    path.write_bytes(as_tar({"bomb.png": bytes(20 << 20), "a.png": b"x"}, "w:gz"))
    monkeypatch.setattr(archives, "FREE_BYTES", 1 << 20)
    reached: list[int] = []
    seek = archives._Limited.seek

    def noted(self, offset, whence=0):
        found = seek(self, offset, whence)
        reached.append(found)
        return found

    monkeypatch.setattr(archives._Limited, "seek", noted)
    with pytest.raises(InputError, match="a bomb"):
        members(path)
    assert max(reached, default=0) < 1 << 20


def test_a_name_is_read_as_it_is_stored(tmp_path):
    path = tmp_path / "a.zip"
    path.write_bytes(zip_named("cat/x.png\0.exe"))
    assert member_names(path)[-1] == "cat/x.png\0.exe"


@pytest.mark.parametrize(
    ("name", "out"),
    [
        ("a/b.png", False),
        ("a..b/..c.png", False),
        ("../a", True),
        ("a/..", True),
        ("/a", True),
        ("\\a", True),
        ("C:a", True),
    ],
)
def test_names_that_leave(name, out):
    assert leaves(name) == out


def test_the_folder_that_all_share_is_left_out():
    assert shared_top(["set/a/1.png", "./set/2.png"]) == "set/"
    assert shared_top(["set/1.png", "2.png"]) == ""
    assert shared_top(["1.png"]) == shared_top([]) == ""


@pytest.mark.parametrize("name", [".a.png", "__MACOSX/a.png", "a/.b/c.png", "a.txt"])
def test_hidden_files_and_others_are_no_pictures(name):
    assert not is_picture(name)
    assert is_picture("./a/B.PNG")


def test_foreign_names_are_shown_in_one_line():
    assert shown("caf\u00e9.png") == "caf\u00e9.png"
    assert shown("a\n\x1b[31m\udcff") == r"a\n\x1b[31m\udcff"
    assert len(shown("x" * 999)) < 130


def test_addresses_are_shown_without_secrets(monkeypatch):
    assert public("https://me:word@host:8443/a/b.zip?token=word#word") == "https://host:8443/a/b.zip"
    assert file_name("https://host/a%2Fb/..%2Fpic tures.tar.gz?x=y") == "pic-tures.tar.gz"
    assert file_name("https://host/") == "archive"
    monkeypatch.setenv("TOKEN", "a&b/c")
    assert filled("https://host/x?t=${TOKEN}", "url") == "https://host/x?t=a%26b%2Fc"
