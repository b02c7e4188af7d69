"""The archive source behind a loopback https server: pinned, resumed, retried, and never with a secret on disk."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from pipelines.refresh import SOURCE_LOCK, refresh
from stages import storage
from stages.catalogue import read_catalogue
from stages.dataset import ImageDataset
from stages.download import fetching
from stages.download.run import run
from stages.errors import FetchError, InputError, ResourceError
from stages.settings import load_settings
from stages.storage import sha256_bytes
from tests.stages.archive_files import as_tar, as_zip, pictures
from tests.stages.https_server import Server, https_server

CAPTIONS = b'{"file_name": "dog/000.png", "text": "a dog"}\n'
RAW = Path("data/raw")


@pytest.fixture
def server(empty_workspace: Path, tmp_path_factory, monkeypatch):
    """The server, trusted by this process and its stages; the user's cache is empty and pauses are short."""
    outside = tmp_path_factory.mktemp("server")
    monkeypatch.setenv("IMAGE_FOUNDRY_CACHE", str(empty_workspace / "cache"))
    monkeypatch.setattr(fetching, "PAUSES", (0.01, 0.01))
    with https_server(outside) as (found, trusted):
        monkeypatch.setenv("SSL_CERT_FILE", str(trusted))
        yield found


@pytest.fixture
def select(edit_params):
    """Select an address as the source, with what else `data.archive` is to hold."""

    def edit(url: str, **settings) -> None:
        edit_params(
            **{
                "data.source": "archive",
                "data.archive": {"url": url, "sha256": None, "bytes": None, "licence": "CC0-1.0", **settings},
            }
        )

    return edit


def locked() -> dict:
    found: dict = json.loads(SOURCE_LOCK.read_text())
    return found


def gets(server: Server) -> list[str | None]:
    return [ranged for method, _, ranged in server.requests if method == "GET"]


FORMS: dict[str, Callable[[dict[str, bytes]], bytes]] = {
    "pictures.zip": as_zip,
    "pictures.tar": as_tar,
    "pictures.tar.gz": lambda members: as_tar(members, "w:gz"),
    "pictures.tar.bz2": lambda members: as_tar(members, "w:bz2"),
    "pictures.tar.xz": lambda members: as_tar(members, "w:xz"),
}


@pytest.mark.parametrize("name", FORMS)
@pytest.mark.parametrize("top", ["", "set/", "./set/"])
def test_every_form_becomes_the_same_pictures(server, select, name, top):
    members = {f"{top}{key}": data for key, data in {**pictures(), "metadata.jsonl": CAPTIONS}.items()}
    select(server.put(name, FORMS[name]({**members, f"{top}README.md": b"read me"})))
    assert refresh(load_settings()) == [SOURCE_LOCK]
    run(load_settings().data, SOURCE_LOCK, RAW)
    found = {picture.key: picture for picture in read_catalogue(RAW)}
    assert set(found) == set(pictures())
    assert {picture.class_name for picture in found.values()} == {"cat", "dog"}
    assert {key: p.caption for key, p in found.items() if p.caption} == {"dog/000.png": "a dog"}
    assert {picture.licence for picture in found.values()} == {"CC0-1.0"}
    assert (RAW / name).read_bytes() == server.files[f"/{name}"].data


def test_the_road_goes_on_from_a_zip_as_processes(server, select, run_stage):
    select(server.put("pictures.zip", as_zip(pictures())))
    assert refresh(load_settings()) == [SOURCE_LOCK]
    for name in ("download", "align", "normalize"):
        done = run_stage(name)
        assert done.returncode == 0, done.stdout + done.stderr
    assert {row["key"] for row in ImageDataset(Path("data/images")).rows} == set(pictures())


def test_first_sight_is_pinned_and_said_and_the_network_left_alone(server, select, capsys):
    data = as_zip(pictures())
    url = server.put("pictures.zip", data)
    select(url)
    assert refresh(load_settings()) == [SOURCE_LOCK]
    assert locked() == {"source": "archive", "url": url, "sha256": sha256_bytes(data), "bytes": len(data)}
    assert f"pinned from now on as sha256 {sha256_bytes(data)}" in capsys.readouterr().out
    asked = len(server.requests)
    assert refresh(load_settings()) == []
    run(load_settings().data, SOURCE_LOCK, RAW)
    assert len(server.requests) == asked
    assert refresh(load_settings(), thorough=True) == []
    assert [method for method, _, _ in server.requests[asked:]] == ["HEAD"]


def test_a_changed_file_is_pinned_anew_only_when_asked(server, select):
    select(server.put("pictures.zip", as_zip(pictures())))
    refresh(load_settings())
    before = locked()
    server.put("pictures.zip", as_zip(pictures(50)), etag='"two"')
    assert refresh(load_settings()) == []
    assert refresh(load_settings(), thorough=True) == [SOURCE_LOCK]
    assert locked()["sha256"] != before["sha256"]


def test_the_settings_pins_are_not_changed_by_the_server(server, select):
    data = as_zip(pictures())
    url = server.put("pictures.zip", as_zip(pictures(50)))
    select(url, sha256=sha256_bytes(data), bytes=len(data))
    assert refresh(load_settings(), thorough=True) == [SOURCE_LOCK]
    assert (locked()["sha256"], server.requests) == (sha256_bytes(data), [])
    with pytest.raises(InputError, match=rf"has \d+ bytes, expected {len(data)}"):
        run(load_settings().data, SOURCE_LOCK, RAW)
    assert not RAW.exists()
    assert not list(Path("cache").rglob("data"))


def test_a_file_of_the_right_size_and_wrong_content_is_refused(server, select):
    data = as_zip(pictures())
    url = server.put("pictures.zip", data[:-1] + b"\1")
    select(url, sha256=sha256_bytes(data), bytes=len(data))
    refresh(load_settings())
    with pytest.raises(InputError, match=f"expected {sha256_bytes(data)}: it is damaged or not the pinned version"):
        run(load_settings().data, SOURCE_LOCK, RAW)
    assert not list(Path("cache").rglob("*.zip"))


def test_the_lock_of_another_address_is_refused_by_the_stage(server, select):
    select(server.put("pictures.zip", as_zip(pictures())))
    refresh(load_settings())
    select(server.put("others.zip", as_zip(pictures(50))))
    with pytest.raises(InputError, match=r"pins other url than the source has now; run `python -m pipelines.refresh`"):
        run(load_settings().data, SOURCE_LOCK, RAW)


def test_a_broken_transfer_goes_on_where_it_ended(server, select):
    data = as_tar(pictures(), "w")
    select(server.put("pictures.tar", data, break_after=[30_000, 10_000]))
    refresh(load_settings())
    assert gets(server) == [None, "bytes=30000-", "bytes=40000-"]
    assert locked()["sha256"] == sha256_bytes(data)


def test_a_server_without_ranges_starts_again(server, select):
    data = as_tar(pictures(), "w")
    select(server.put("pictures.tar", data, break_after=[30_000], ranges=False))
    refresh(load_settings())
    assert gets(server) == [None, "bytes=30000-"]
    assert locked()["sha256"] == sha256_bytes(data)


def test_a_partial_file_of_another_content_is_not_gone_on_from(server, select):
    old, new = as_tar(pictures(), "w"), as_tar(pictures(50), "w")
    select(server.put("pictures.tar", old, break_after=[30_000, 0, 0, 0]))
    with pytest.raises(FetchError, match="peer closed connection"):
        refresh(load_settings())
    server.put("pictures.tar", new, etag='"two"')
    refresh(load_settings())
    assert locked()["sha256"] == sha256_bytes(new)


def test_a_partial_file_that_a_crash_tore_is_not_gone_on_from(server, select):
    data = as_tar(pictures(), "w")
    select(server.put("pictures.tar", data, break_after=[30_000, 0, 0, 0]))
    with pytest.raises(FetchError):
        refresh(load_settings())
    partial = next(Path("cache").rglob("data"))
    partial.write_bytes(bytes(30_000))
    refresh(load_settings())
    assert locked()["sha256"] == sha256_bytes(data)


def test_without_an_etag_nothing_is_gone_on_from(server, select):
    data = as_tar(pictures(), "w")
    select(server.put("pictures.tar", data, break_after=[30_000], etag=None))
    refresh(load_settings())
    assert gets(server) == [None, None]
    assert refresh(load_settings(), thorough=True) == []  # nothing vouches for the same file: it is fetched to see
    assert gets(server) == [None, None, None]


@pytest.mark.parametrize("status", [403, 405])  # a signed address may allow GET alone
def test_a_server_that_cannot_be_asked_is_fetched_from(server, select, status):
    select(server.put("pictures.zip", as_zip(pictures())))
    refresh(load_settings())
    server.put("pictures.zip", as_zip(pictures(50)), statuses=[status])
    assert refresh(load_settings(), thorough=True) == [SOURCE_LOCK]


@pytest.mark.parametrize("status", [429, 500, 503])
def test_a_busy_server_is_asked_again(server, select, status):
    select(server.put("pictures.zip", as_zip(pictures()), statuses=[status, status]))
    refresh(load_settings())
    assert len(server.requests) == 3


@pytest.mark.parametrize(
    ("statuses", "error", "words"),
    [([503] * 9, FetchError, "answered 503"), ([403], InputError, "answered 403.*token"), ([404], InputError, "404")],
)
def test_a_refusal_is_one_line(server, select, statuses, error, words):
    select(server.put("pictures.zip", b"", statuses=statuses))
    with pytest.raises(error, match=words) as caught:
        refresh(load_settings())
    assert "\n" not in str(caught.value)
    assert caught.value.retryable == (error is FetchError)


def test_a_server_that_is_not_trusted_is_refused(server, select, monkeypatch):
    monkeypatch.delenv("SSL_CERT_FILE")
    select(server.put("pictures.zip", as_zip(pictures())))
    with pytest.raises(FetchError, match="certificate verify failed"):
        refresh(load_settings())
    assert server.requests == []


@pytest.mark.parametrize("target", ["http://127.0.0.1/x.zip", "ftp://127.0.0.1/x.zip", "file:///etc/passwd"])
def test_a_redirect_to_another_scheme_is_refused(server, select, target):
    select(server.put("pictures.zip", b"", moved_to=target))
    with pytest.raises(InputError, match=r"leads to an address that .* not allowed, only https"):
        refresh(load_settings())


def test_a_redirect_is_followed_and_a_circle_is_not(server, select):
    data = as_zip(pictures())
    select(server.put("moved.zip", b"", moved_to=server.put("pictures.zip", data)))
    refresh(load_settings())
    assert locked()["url"].endswith("/moved.zip")
    select(server.put("circle.zip", b"", moved_to="/circle.zip"))
    with pytest.raises(InputError, match="leads on and on"):
        refresh(load_settings())


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("http://host/x.zip", "http is not allowed, only https"),
        ("file:///etc/passwd", "file is not allowed, only https"),
        ("ftp://host/x.zip", "ftp is not allowed"),
        ("pictures.zip", "no scheme is not allowed"),
        ("https:///x.zip", "names no host"),
        ("https://host:port/x.zip", "is no address"),
        ("https://host/\x01.zip", "holds a character that cannot be printed"),
        ("https://a..b/x.zip", "names a..b, which is no host"),
        ("https://user:geheim@host/x.zip?key=geheim", "with a user or password"),
    ],
)
def test_addresses_are_judged_before_anything_runs(empty_workspace, select, url, words):
    select(url)
    with pytest.raises(InputError, match=words) as caught:
        load_settings()
    assert "geheim" not in str(caught.value)


def test_a_token_written_out_stays_where_it_was_written(server, select, capfd):
    select(f"{server.put('pictures.zip', as_zip(pictures()))}?token=geheim")
    refresh(load_settings())
    run(load_settings().data, SOURCE_LOCK, RAW)
    assert {path for _, path, _ in server.requests} == {"/pictures.zip?token=geheim"}
    assert "geheim" not in "".join(capfd.readouterr())
    assert [path for path in holding(b"geheim") if path != Path.cwd() / "params.yaml"] == []


def holding(secret: bytes) -> list[Path]:
    """The files below the current folder that hold a secret, or are called so."""
    found = [path for path in Path.cwd().rglob("*") if path.is_file()]
    return [path for path in found if secret in path.read_bytes() or secret in bytes(path)]


def test_secrets_are_used_and_stay_out_of_files_and_messages(server, select, monkeypatch, capfd, caplog):
    """The query's token and the user's password, from the environment: the server gets them, nothing keeps them."""
    caplog.set_level("DEBUG")
    monkeypatch.setenv("WORD", "geheim")
    server.put("pictures.zip", as_zip(pictures()), break_after=[500], statuses=[503])
    host = server.address.removeprefix("https://")
    select(f"https://${{WORD}}:${{WORD}}@{host}/pictures.zip?token=${{WORD}}")
    refresh(load_settings())
    run(load_settings().data, SOURCE_LOCK, RAW)
    assert {path for _, path, _ in server.requests} == {"/pictures.zip?token=geheim"}
    assert locked()["url"] == f"{server.address}/pictures.zip"
    server.files.clear()
    with pytest.raises(InputError) as caught:
        refresh(load_settings(), thorough=True)
    told = "".join([*capfd.readouterr(), caplog.text, str(caught.value)])
    assert "geheim" not in told
    assert holding(b"geheim") == []
    monkeypatch.delenv("WORD")
    with pytest.raises(InputError, match=r"names \$\{WORD\}, which the environment does not have"):
        refresh(load_settings(), thorough=True)


def test_a_secret_in_the_path_is_neither_shown_nor_part_of_a_name(server, select, monkeypatch, capfd):
    monkeypatch.setenv("WORD", "geheim")
    server.put("geheim/photos-geheim.zip", as_zip(pictures()), statuses=[503])
    select(f"{server.address}/${{WORD}}/photos-${{WORD}}.zip")
    refresh(load_settings())
    run(load_settings().data, SOURCE_LOCK, RAW)
    server.files.clear()
    with pytest.raises(InputError) as caught:
        refresh(load_settings(), thorough=True)
    assert "404" in str(caught.value)
    assert "geheim" not in "".join([*capfd.readouterr(), str(caught.value)])
    assert holding(b"geheim") == []


def test_the_address_is_no_param_of_the_stage():
    """dvc.lock would keep it with its token."""
    import yaml

    from tests.conftest import ROOT

    params = yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"]["download"]["params"]
    assert not {"data", "data.archive", "data.archive.url"} & set(params)


def test_a_disk_too_small_is_noticed_before_the_transfer(server, select, monkeypatch):
    data = as_zip(pictures())
    select(server.put("pictures.zip", data))
    usage = shutil.disk_usage(".")
    monkeypatch.setattr(storage.shutil, "disk_usage", lambda path: usage._replace(free=len(data) - 1))
    with pytest.raises(ResourceError, match=r"data.archive.url .*pictures.zip: 0 MB are needed"):
        refresh(load_settings())
    assert not list(Path("cache").rglob("data"))
    monkeypatch.setattr(storage.shutil, "disk_usage", lambda path: usage._replace(free=len(data)))
    refresh(load_settings())
    monkeypatch.setattr(storage.shutil, "disk_usage", lambda path: usage._replace(free=len(data) - 1))
    with pytest.raises(ResourceError):
        run(load_settings().data, SOURCE_LOCK, RAW)
    assert not RAW.exists()


def test_what_the_cache_holds_is_verified_before_use(server, select):
    select(server.put("pictures.zip", as_zip(pictures())))
    refresh(load_settings())
    kept = next(Path("cache").rglob("*.zip"))
    kept.write_bytes(b"rotten")
    run(load_settings().data, SOURCE_LOCK, RAW)
    assert (RAW / "pictures.zip").read_bytes() == server.files["/pictures.zip"].data
