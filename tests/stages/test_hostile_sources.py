"""Hostile sources: each is refused or set aside in one line, nothing around it is touched, and each guard is needed."""

import contextlib
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from pipelines.refresh import refresh
from stages import process
from stages.catalogue import read_catalogue
from stages.download import fetching
from stages.download.run import run
from stages.settings import load_settings
from stages.storage import sha256_file, sha256_tree
from tests.conftest import tiny_params, write_locks
from tests.stages.hostile_case import GOOD, REFUSED, Case
from tests.stages.hostile_cases import CASES
from tests.stages.https_server import Server, https_server

LOCK, RAW, NOTE = Path("data/source.lock.json"), Path("data/raw"), Path(".work/last/download.json")
AS_PROCESSES = ("zip: up", "a link to nothing", "labels of some")
by_name = pytest.mark.parametrize("case", CASES, ids=lambda case: case.name.replace(" ", "-"))


@dataclass(frozen=True)
class Outcome:
    """How a run of the stage ended: its exit code or the name of what it raised, and what it said."""

    code: int | str
    told: str
    errors: list[str]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Server, Path]]:
    with https_server(tmp_path_factory.mktemp("server")) as found:
        yield found


@pytest.fixture
def place(tmp_path: Path, tmp_path_factory, monkeypatch, server) -> Path:
    """A folder with a workspace in it, the current one, with data/raw of an earlier run; the cache is elsewhere."""
    workspace = tmp_path / "workspace"
    (workspace / "data/raw").mkdir(parents=True)
    (workspace / "data/raw/earlier").write_text("as it was")
    (tmp_path / "neighbour.png").write_text("not to be touched")
    monkeypatch.chdir(workspace)
    monkeypatch.setenv("IMAGE_FOUNDRY_CACHE", str(tmp_path_factory.mktemp("cache")))
    monkeypatch.setenv("SSL_CERT_FILE", str(server[1]))
    monkeypatch.setattr(fetching, "PAUSES", ())
    monkeypatch.setattr(process, "die_with_parent", lambda: None)
    monkeypatch.setattr(process.STOP, "install", lambda: None)
    return tmp_path


def prepare(case: Case, place: Path, server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """Build the source beside the workspace and write params.yaml."""
    outside = place / "outside"
    outside.mkdir()
    data = case.build(outside)
    if "served" in data:
        moved = "http://127.0.0.1:1/set.zip" if data["archive"]["url"] == "moved.zip" else None
        data["archive"]["url"] = server.put(data["archive"]["url"], data.pop("served"), moved_to=moved)
    params = tiny_params()
    params["data"] |= data
    Path("params.yaml").write_text(yaml.safe_dump(params))
    for name, value in case.limits.items():
        monkeypatch.setattr(name, value)


def work() -> None:
    """The road from the source to data/raw: pin, then the stage."""
    refresh(load_settings())
    run(load_settings().data, LOCK, RAW)


def outcome_of(capfd: pytest.CaptureFixture[str]) -> Outcome:
    """Run the road as the stage would, and return how it ended."""
    code: int | str
    try:
        code = process.run_stage("download", work)
    except Exception as error:  # a defect, which is what taking a guard out may bring to light
        code = type(error).__name__
    out, err = capfd.readouterr()
    return Outcome(code, out + err + _quarantined(), err.splitlines())


def _quarantined() -> str:
    origin = RAW / "origin.json"
    return "".join(f"{name}: {why}\n" for name, why in _json(origin)["quarantined"].items()) if origin.exists() else ""


def _json(path: Path) -> Any:
    return json.loads(path.read_text())


def around(place: Path) -> dict[str, str]:
    """The content of everything beside what the stage may write; links and pipes by what they are."""
    own = (RAW.resolve(), Path(".work").resolve(), Path("data/weights.lock.json").resolve(), LOCK.resolve())
    paths = [p for p in place.rglob("*") if not any(p == one or p.is_relative_to(one) for one in own)]
    return {str(p): sha256_file(p) if p.is_file() and not p.is_symlink() else str(p.lstat().st_mode) for p in paths}


@by_name
def test_it_is_refused_or_set_aside_in_one_line(case, place, server, monkeypatch, capfd):
    prepare(case, place, server[0], monkeypatch)
    before, raw_before = around(place), sha256_tree(RAW)
    outcome = outcome_of(capfd)
    assert outcome.code == case.code, outcome.told
    for words in case.words:
        assert words in outcome.told
    note = _json(NOTE)
    assert note["code"] == case.code
    assert around(place) == before
    if case.code == REFUSED:
        assert len(outcome.errors) == 1
        assert outcome.errors[0] == f"download: {note['reason']}"
        assert sha256_tree(RAW) == raw_before
    else:
        assert outcome.errors == []
        assert len(read_catalogue(RAW)) >= len(GOOD) - 1


@by_name
def test_it_is_the_guard_that_does_it(case, place, server, monkeypatch, capfd):
    """Without its guard, the case must end in another way or without the words."""
    prepare(case, place, server[0], monkeypatch)
    monkeypatch.setattr(case.guard, no_guard(case.gone))
    outcome = outcome_of(capfd)
    assert (outcome.code, *(words in outcome.told for words in case.words)) != (case.code, *(True for _ in case.words))


def no_guard(gone: Any) -> Callable[..., Any]:
    """A function that lets everything pass."""
    if gone == "context":
        return lambda *arguments, **named: contextlib.nullcontext()
    return lambda *arguments, **named: gone


def test_there_are_enough_cases_with_names_of_their_own():
    assert len({case.name for case in CASES}) == len(CASES) >= 40


@pytest.mark.parametrize("name", AS_PROCESSES)
def test_a_process_says_the_same(name, place, server, monkeypatch, run_stage):
    case = next(case for case in CASES if case.name == name)
    prepare(case, place, server[0], monkeypatch)
    write_locks(Path.cwd())
    before = around(place)
    done = run_stage("download")
    assert done.returncode == case.code
    for words in case.words:
        assert words in done.stdout + done.stderr
    assert len(done.stderr.splitlines()) == (1 if case.code else 0)
    assert around(place) == before


@pytest.mark.parametrize("guarded", [True, False])
def test_a_file_that_may_not_be_read_is_one_line(guarded, place, server, monkeypatch, capfd):
    """The refusal is made here rather than by chmod, which does not bind root."""
    case = next(case for case in CASES if case.name == "a link to nothing")
    prepare(case, place, server[0], monkeypatch)

    def refuse(path: Path) -> str:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr("stages.download.folder.sha256_file", refuse)
    if not guarded:
        monkeypatch.setattr("stages.download.folder.reading", lambda path: contextlib.nullcontext())
        monkeypatch.setattr("pipelines.refresh._readable", lambda setting, path: contextlib.nullcontext())
    outcome = outcome_of(capfd)
    assert (outcome.code == REFUSED and "cannot be read: Permission denied" in outcome.told) == guarded
