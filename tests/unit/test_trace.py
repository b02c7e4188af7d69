"""Where an ONNX file comes from: by itself, by the record beside it, by the repository."""

import json
import shutil
import subprocess
from pathlib import Path

import onnx
import pytest
import yaml

from pipelines.release.shipped.verify import RECORD
from pipelines.trace import AGREES, DIFFERS, UNKNOWN, trace, work
from stages.errors import InputError
from stages.storage import write_json
from tests.unit.release_folder import make_release, read_record, tiny_model

OUTS = {"export@tiny": [{"path": "models/tiny/onnx", "md5": "a" * 32 + ".dir"}]}


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_release(tmp_path_factory.mktemp("release") / "1.0.0", dvc=OUTS)


@pytest.fixture
def release(whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A release outside of any project, which is the current folder."""
    shutil.copytree(whole, tmp_path / "got")
    (tmp_path / "project").mkdir()
    monkeypatch.chdir(tmp_path / "project")
    return tmp_path / "got"


@pytest.fixture
def project(release: Path) -> Path:
    """The current folder as a project under Git with the released model, whose commit the release names."""
    Path("dvc.yaml").write_text("stages: {}\n")
    Path("dvc.lock").write_text(yaml.safe_dump({"stages": {name: {"outs": outs} for name, outs in OUTS.items()}}))
    Path("models/tiny/onnx").mkdir(parents=True)
    shutil.copy(release / "model.onnx", "models/tiny/onnx")
    git("init", "--quiet")
    git("add", "dvc.yaml", "dvc.lock")
    git("-c", "user.name=test", "-c", "user.email=test@example.org", "commit", "--quiet", "-m", "state")
    record = read_record(release)
    claim = {"commit": git("rev-parse", "HEAD").strip(), "dirty": False}
    record["commit"], record["training"]["git"] = claim, claim
    write_json(release / RECORD, record)
    return Path.cwd()


def git(*arguments: str) -> str:
    return subprocess.run(["git", *arguments], check=True, capture_output=True, text=True).stdout


def outcomes(path: Path) -> list[tuple[str, str]]:
    return [(one.claim, one.outcome) for one in trace(path).checks]


def detail(path: Path, claim: str) -> str:
    return next(one.detail for one in trace(path).checks if one.claim == claim)


def test_a_file_alone_tells_its_content(release: Path):
    path = shutil.move(release / "model.onnx", release.parent / "alone.onnx")
    found = trace(Path(path))
    assert found.identity == {"weights": "1" * 64, "dataset": "b" * 64, "settings": "c" * 64}
    assert found.release is None
    assert [(one.claim, one.outcome) for one in found.checks] == [("release", UNKNOWN), ("repository", UNKNOWN)]


def test_the_record_beside_it_tells_scores_commit_and_run(release: Path, capsys):
    assert work(release / "model.onnx", as_json=False) == 0
    told = capsys.readouterr().out
    assert "release: tiny 1.0.0, 2026-01-02T03:04:05Z" in told
    assert "scores: fd_domain 12.5\n" in told
    assert "trained: 1.5 kimg, fingerprint ffffffffffffffff" in told
    assert "MLflow: not published" in told
    assert f"release: agrees: {release / RECORD} is of this file: tiny 1.0.0" in told
    assert "release: agrees: release.json is the one that SHA256SUMS names" in told
    assert "repository: unknown: no dvc.yaml here" in told


def test_json_holds_the_same(release: Path, capsys):
    work(release / "model.onnx", as_json=True)
    found = json.loads(capsys.readouterr().out)
    assert found["release"]["scores"] == {"fd_domain": 12.5, "kid_se_domain": 0.001}
    assert found["checks"][0]["outcome"] == AGREES
    assert found["bytes"] == (release / "model.onnx").stat().st_size


def test_an_altered_record_is_told(release: Path):
    path = release / RECORD
    path.write_text(path.read_text().replace("12.5", "2.5"))
    assert outcomes(release / "model.onnx")[1] == ("release", DIFFERS)
    (release / "SHA256SUMS").unlink()
    assert outcomes(release / "model.onnx")[1] == ("release", UNKNOWN)


def test_a_record_of_another_file_says_nothing_of_this_one(release: Path):
    (release / "model.onnx").write_bytes(tiny_model(seed=2)[0])
    found = trace(release / "model.onnx")
    assert found.release is None
    assert found.identity["weights"] == "2" * 64
    assert found.checks[0].outcome == DIFFERS
    assert "not of this one" in found.checks[0].detail


def test_in_the_project_every_claim_is_compared(project: Path, release: Path):
    checks = [("models", AGREES), ("dvc", AGREES), ("dvc", AGREES), ("git", AGREES), ("git", AGREES)]
    assert outcomes(release / "model.onnx")[2:] == checks
    assert "models/tiny/onnx/model.onnx is this file, to the byte" in detail(release / "model.onnx", "models")


def test_a_project_that_went_on_is_told(project: Path, release: Path):
    Path("models/tiny/onnx/model.onnx").write_bytes(tiny_model(seed=2)[0])
    lock = yaml.safe_load(Path("dvc.lock").read_text())
    lock["stages"]["export@tiny"]["outs"][0]["md5"] = "b" * 32 + ".dir"
    Path("dvc.lock").write_text(yaml.safe_dump(lock))
    checks = [("models", DIFFERS), ("dvc", DIFFERS), ("dvc", AGREES), ("git", AGREES), ("git", AGREES)]
    assert outcomes(release / "model.onnx")[2:] == checks
    assert detail(release / "model.onnx", "dvc") == "dvc.lock now names other outputs of export@tiny"
    shutil.rmtree("models")
    Path("dvc.lock").unlink()
    assert outcomes(release / "model.onnx")[2:4] == [("models", UNKNOWN), ("dvc", UNKNOWN)]


def test_a_commit_that_git_does_not_know_is_unknown(project: Path, release: Path):
    record = read_record(release)
    record["commit"] = {"commit": "d" * 40, "dirty": True}
    write_json(release / RECORD, record)
    found = trace(release / "model.onnx").checks
    assert next(one.detail for one in found if one.claim == "git") == (
        "commit dddddddddddd of the release is not known here, with changes that were not committed"
    )
    assert ("dvc", UNKNOWN) in [(one.claim, one.outcome) for one in found]


def test_a_file_without_a_record_is_found_among_the_models(project: Path, release: Path):
    path = Path(shutil.move(release / "model.onnx", release.parent / "alone.onnx"))
    assert outcomes(path)[1] == ("models", AGREES)
    model = onnx.load(path)
    model.producer_version = "2"
    onnx.save(model, path)
    assert detail(path, "models") == "models/tiny/onnx/model.onnx is of the same weights, exported otherwise"
    path.write_bytes(tiny_model(seed=2)[0])
    assert detail(path, "models") == "none of 1 models here is this file or has its weights"


def test_foreign_and_unreadable_files_are_one_line(release: Path):
    foreign = onnx.helper.make_model(onnx.helper.make_graph([], "none", [], []))
    onnx.save(foreign, release / "foreign.onnx")
    (release / "text.onnx").write_text("not a model")
    for name, message in {
        "foreign.onnx": "names no weights, data or settings in its metadata",
        "text.onnx": "names no weights, data or settings in its metadata",
        "none.onnx": "cannot be read: No such file or directory",
        ".": "cannot be read: Is a directory",
    }.items():
        with pytest.raises(InputError, match=message):
            trace(release / name)
    (release / RECORD).write_text("{}")
    with pytest.raises(InputError, match=r"release.json is no release's record \(KeyError: 'model'\)"):
        trace(release / "model.onnx")
