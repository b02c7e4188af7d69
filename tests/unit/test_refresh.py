"""The lock files say what is outside, are written only when that changed, and never believe a wrong file."""

import http.server
import json
import shutil
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from pipelines import refresh as module
from pipelines.refresh import SOURCE_LOCK, WEIGHTS_LOCK, fetch_inception, refresh
from stages.download.run import check_pinned
from stages.errors import FetchError, InputError
from stages.settings import Settings, load_settings
from tests.conftest import PICTURES


@pytest.fixture
def own_pictures(empty_workspace: Path, edit_params) -> Path:
    """A copy of the tests' pictures that a test may change, selected in params.yaml, with fresh locks."""
    folder = shutil.copytree(PICTURES, empty_workspace / "pictures")
    edit_params(**{"data.folder.path": "pictures"})
    refresh(load_settings())
    return folder


def locked(path: Path) -> dict:
    content: dict = json.loads(path.read_text())
    return content


def test_emoji_packages_are_those_of_the_styles(empty_workspace: Path, edit_params) -> None:
    edit_params(**{"data.source": "emoji", "data.emoji.styles": ["twemoji"]})
    assert refresh(load_settings()) == [SOURCE_LOCK]
    content = locked(SOURCE_LOCK)
    assert [package["name"] for package in content["packages"]] == ["@discordapp/twemoji", "openmoji"]
    assert all(len(package["sha256"]) == 64 for package in content["packages"])


def test_equal_content_is_not_written_again(own_pictures: Path) -> None:
    before = SOURCE_LOCK.stat().st_mtime_ns
    assert refresh(load_settings()) == []
    assert refresh(load_settings(), thorough=True) == []
    assert SOURCE_LOCK.stat().st_mtime_ns == before


def test_added_picture_changes_the_lock(own_pictures: Path) -> None:
    before = locked(SOURCE_LOCK)
    shutil.copy(own_pictures / "sad" / "1f610.webp", own_pictures / "sad" / "again.webp")
    assert refresh(load_settings()) == [SOURCE_LOCK]
    after = locked(SOURCE_LOCK)
    assert after["files"] == before["files"] + 1
    assert after["sha256"] != before["sha256"]


def test_unchanged_folder_is_not_read_again(own_pictures: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def forbidden(settings: object) -> None:
        raise AssertionError("the pictures were read again")

    monkeypatch.setattr(module, "pinned_content", forbidden)
    assert refresh(load_settings()) == []
    with pytest.raises(AssertionError):
        refresh(load_settings(), thorough=True)


@pytest.mark.parametrize("content", ["[]", "{", '{"pictures": 3}', '{"pictures": {"stamp": 1}}'])
def test_a_damaged_note_of_the_last_look_is_written_anew(own_pictures: Path, content: str) -> None:
    module.SEEN.write_text(content)
    assert refresh(load_settings()) == []
    assert locked(module.SEEN)["pictures"]["found"] == locked(SOURCE_LOCK)


def test_absent_folder_is_named(own_pictures: Path, edit_params) -> None:
    edit_params(**{"data.folder.path": "nowhere"})
    with pytest.raises(InputError, match=r"data\.folder\.path is nowhere"):
        refresh(load_settings())


def test_spelling_of_the_folder_changes_nothing(own_pictures: Path, edit_params) -> None:
    before = locked(SOURCE_LOCK)
    for spelling in ("./pictures", "pictures/"):
        edit_params(**{"data.folder.path": spelling})
        settings = load_settings()
        assert refresh(settings) == []
        assert refresh(settings, thorough=True) == []
        check_pinned(settings.data, before, SOURCE_LOCK)


def test_lock_of_older_code_is_written_anew(own_pictures: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    older = own_pictures.parent / "older.py"
    older.write_text("# found something else")
    with monkeypatch.context() as patch:
        patch.setattr(module, "LOOKERS", [older])
        patch.setattr(module, "pinned_content", lambda data: {"source": "folder", "path": "./pictures"})
        assert refresh(load_settings()) == [SOURCE_LOCK]
    assert refresh(load_settings()) == [SOURCE_LOCK]
    check_pinned(load_settings().data, locked(SOURCE_LOCK), SOURCE_LOCK)


def test_unreadable_picture_is_one_line(own_pictures: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(data: object) -> None:  # root may read anything, so no mode of a file would do
        raise PermissionError(13, "Permission denied", "pictures/sad/1f610.webp")

    monkeypatch.setattr(module, "pinned_content", refuse)
    with pytest.raises(InputError) as caught:
        refresh(load_settings(), thorough=True)
    line = "data.folder.path is pictures: pictures/sad/1f610.webp cannot be read: Permission denied"
    assert str(caught.value) == line


def with_inception(setting: str) -> Settings:
    settings = load_settings()
    return settings.model_copy(update={"evaluate": settings.evaluate.model_copy(update={"inception": setting})})


def test_weights_by_path_are_locked(own_pictures: Path) -> None:
    Path("weights.pth").write_bytes(b"weights")
    assert refresh(with_inception("weights.pth")) == [WEIGHTS_LOCK]
    assert locked(WEIGHTS_LOCK)["inception"]["bytes"] == 7
    assert refresh(load_settings()) == [WEIGHTS_LOCK]
    assert locked(WEIGHTS_LOCK) == {"inception": None}


def test_absent_weights_are_named(own_pictures: Path) -> None:
    with pytest.raises(InputError, match=r"evaluate\.inception is nothing\.pth: there is no such file"):
        refresh(with_inception("nothing.pth"))


TORN = {
    "/torn.pth": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nff\r\nabc",
    "/short.pth": b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nabc",
    "/strange.pth": b"nonsense\r\n\r\n",
}


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A web server on the loopback that serves tmp_path/served, and an empty user's cache."""
    served = tmp_path / "served"
    served.mkdir()
    (served / "weights.pth").write_bytes(b"not the weights")
    monkeypatch.setenv("IMAGE_FOUNDRY_CACHE", str(tmp_path / "cache"))

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def __init__(self, *arguments: object) -> None:
            super().__init__(*arguments, directory=str(served))  # type: ignore[arg-type]

        def do_GET(self) -> None:
            if self.path not in TORN:
                return super().do_GET()
            self.wfile.write(TORN[self.path])
            self.close_connection = True
            return None

        def log_message(self, *arguments: object) -> None:
            return

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Quiet) as found:
        threading.Thread(target=found.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{found.server_port}"
        found.shutdown()


def test_wrong_download_is_refused_and_not_kept(server: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"has sha256 .*, expected 6726825d"):
        fetch_inception(f"{server}/weights.pth")
    assert list((tmp_path / "cache").iterdir()) == []


def test_right_download_is_kept(server: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from stages.storage import sha256_bytes

    monkeypatch.setattr(module, "STANDARD_SHA256", sha256_bytes(b"not the weights"))
    path = fetch_inception(f"{server}/weights.pth")
    assert path.read_bytes() == b"not the weights"
    assert fetch_inception("http://127.0.0.1:1/not-asked-again") == path


FAILING = ["{server}/absent.pth", "http://127.0.0.1:1/weights.pth", *("{server}" + path for path in TORN)]


@pytest.mark.parametrize("address", FAILING)
def test_failed_download_is_one_line_and_may_be_repeated(server: str, tmp_path: Path, address: str) -> None:
    with pytest.raises(FetchError, match=r"evaluate\.inception is download, but .* could not be fetched") as caught:
        fetch_inception(address.format(server=server))
    assert caught.value.retryable
    assert "\n" not in str(caught.value)
    assert list((tmp_path / "cache").iterdir()) == []


def test_a_changed_stylegan_zip_is_noticed(own_pictures: Path, edit_params) -> None:
    Path("set.zip").write_bytes(b"PK one")
    edit_params(**{"data.source": "stylegan", "data.stylegan": {"path": "set.zip"}})
    assert refresh(load_settings()) == [SOURCE_LOCK]
    assert refresh(load_settings()) == []
    Path("set.zip").write_bytes(b"PK two")
    assert refresh(load_settings()) == [SOURCE_LOCK]
    edit_params(**{"data.stylegan.path": "absent.zip"})
    with pytest.raises(InputError, match=r"data\.stylegan\.path is absent\.zip"):
        refresh(load_settings())


def test_groups_are_kept_when_the_source_changes_and_only_then(
    own_pictures: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept: list[tuple[Path, Path]] = []
    before = SOURCE_LOCK.read_bytes()

    def extend(images: Path, lock: Path) -> bool:
        assert SOURCE_LOCK.read_bytes() == before  # the groups come first: a crash between loses nothing
        kept.append((images, lock))
        return True

    monkeypatch.setattr(module, "extend_known", extend)
    refresh(load_settings())
    assert kept == []
    shutil.copy(own_pictures / "sad" / "1f610.webp", own_pictures / "sad" / "again.webp")
    refresh(load_settings())
    assert kept == [(Path("data/images"), Path("data/groups.lock.json"))]
