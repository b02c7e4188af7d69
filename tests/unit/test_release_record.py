"""Parts of release.json that are worked out, and what dvc.lock says of a model."""

import subprocess
from pathlib import Path

import pytest
import yaml

from pipelines.release.locked import check_locked, locked_outputs, md5_of, outputs_in
from pipelines.release.record import describe_commit, sources, without_places
from stages.errors import InputError
from stages.storage import write_json


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def test_no_text_names_a_folder_of_this_machine(monkeypatch):
    monkeypatch.setenv("HOME", "/home/someone")
    texts = [f"see {Path.cwd()}/models", ("~ is /home/someone/x", 1.5, None)]
    value = {"transfer": "/data/weights/old", "note": texts}
    assert without_places(value) == {"transfer": "old", "note": ["see ./models", ["~ is ~/x", 1.5, None]]}


def test_pictures_are_counted_by_file_licence_and_split():
    package = {"file": "a", "name": "one", "version": "1.0", "licence": "MIT", "sha256": "a" * 64}
    archives = [{"file": name, "sha256": name * 9} for name in ("a", "b")]
    write_json(Path("data/source.lock.json"), {"packages": [package]})
    write_json(Path("data/raw/origin.json"), {"archives": archives})
    keys = [("a!x", "MIT", "train"), ("a!y", "MIT", "train"), ("a!z", "MIT", "holdout"), ("b!x", "own", "train")]
    rows = [dict(zip(("source", "licence", "split"), key, strict=True)) for key in keys]
    assert sources(rows) == [
        {"file": "a", "name": "one", "version": "1.0", "sha256": "a" * 9, "licence": "MIT", "holdout": 1, "train": 2},
        {"file": "b", "sha256": "b" * 9, "licence": "own", "train": 1},
    ]


def test_the_commit_of_now_and_whether_anything_differs():
    assert describe_commit() == {"commit": None, "dirty": None}
    for line in ("init --quiet", "-c user.name=t -c user.email=t@example.org commit --quiet --allow-empty -m state"):
        subprocess.run(["git", *line.split()], check=True)
    assert describe_commit()["dirty"] is False
    assert len(describe_commit()["commit"]) == 40
    Path("new.py").write_text("x")
    assert describe_commit()["dirty"] is True


def locked(**exported: str) -> str:
    stages = {
        "normalize": {"outs": [{"path": "data/images", "hash": "md5", "md5": "1.dir", "size": 2, "nfiles": 3}]},
        "autoencoder@kl": {"outs": [{"path": "data/latents/kl", "md5": "2.dir"}]},
        "train@ldm": {"deps": [{"path": "data/latents/kl"}], "outs": [{"path": "w", "md5": "3"}]},
        "train@gan": {"deps": [{"path": "data/images"}], "outs": [{"path": "v", "md5": "4"}]},
    }
    for name, md5 in exported.items():
        stages[f"export@{name}"] = {"outs": [{"path": f"models/{name}/onnx", "md5": md5}]}
    return yaml.safe_dump({"stages": stages})


def test_a_models_stages_and_those_before_it_are_kept():
    text = locked(ldm="5.dir", gan="6.dir")
    assert list(outputs_in(text, "ldm", "dvc.lock")) == ["normalize", "autoencoder@kl", "train@ldm", "export@ldm"]
    found = outputs_in(text, "gan", "dvc.lock")
    assert list(found) == ["normalize", "train@gan", "export@gan"]
    assert found["normalize"] == [{"path": "data/images", "md5": "1.dir", "size": 2, "nfiles": 3}]
    assert locked_outputs(Path("dvc.lock"), "gan") == {}


@pytest.mark.parametrize("text", ["[1, 2]", "stages: [}", "stages: {export@gan: {}}"])
def test_a_damaged_lock_is_one_line(text):
    with pytest.raises(InputError, match=r"dvc.lock cannot be read .*; run `dvc repro`"):
        outputs_in(text, "gan", "dvc.lock")


def test_contents_are_named_as_dvc_names_them():
    """The values are what `dvc add` wrote for these files."""
    Path("folder/deep").mkdir(parents=True)
    Path("folder/b.txt").write_text("b")
    Path("folder/deep/a.txt").write_text("a")
    Path("folder/.b.txt.1.partial").write_text("half")
    assert md5_of(Path("folder/b.txt")) == "92eb5ffee6ae2fec3ad71c777531578f"
    assert md5_of(Path("folder")) == "4e58b00c567a5d5b9c15ce097fcb0921.dir"
    assert md5_of(Path("none")) is None


def test_other_outputs_than_those_of_the_lock_are_refused():
    Path("models/gan/onnx").mkdir(parents=True)
    Path("models/gan/onnx/model.onnx").write_text("model")
    good = md5_of(Path("models/gan/onnx"))
    check_locked({"export@gan": [{"path": "models/gan/onnx", "md5": good}], "align": [{"path": "data", "md5": "1"}]})
    with pytest.raises(InputError, match=rf"has md5 {good}, dvc.lock names 5.dir; run `dvc repro export@gan`"):
        check_locked({"export@gan": [{"path": "models/gan/onnx", "md5": "5.dir"}]})
    with pytest.raises(InputError, match=r"has md5 none, since it is not there, dvc.lock names 5.dir"):
        check_locked({"export@gan": [{"path": "models/gan/other", "md5": "5.dir"}]})
