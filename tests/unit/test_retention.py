"""What retention drops and what it keeps: training states, half-written files, MLflow's runs."""

import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from mlflow import MlflowClient
from mlflow.entities import Run

from pipelines.retention import __main__ as command
from pipelines.retention.leftovers import find_leftovers
from pipelines.retention.runs import find_runs, read_registry
from pipelines.retention.states import find_states
from pipelines.tracking import EXPERIMENT, FINGERPRINT, SUPERSEDED
from stages.errors import FetchError, GateError
from stages.process import stage_lock
from stages.storage import write_json
from stages.trainer.state import StateFolder, TrainingState

FINISHED = "2026-01-02T00:00:00Z"
BEFORE, AFTER = 1767225600.0, 1767400000.0  # the day before, the day after
DATABASE = "mlflow.db"


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder is empty."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def train(name: str, fingerprint: str, moment: float = BEFORE, states: bool = True) -> Path:
    """Make a training's folder as it was at a moment."""
    training = Path(".work/train") / name / fingerprint
    training.mkdir(parents=True)
    write_json(training / "fingerprint.json", {})
    if states:
        StateFolder(training).save(TrainingState(1500, {"weights": torch.zeros(3)}))
    for path in [training, *training.rglob("*")]:
        os.utime(path, (moment, moment))
    return training


def finish(name: str, fingerprint: str, lineage: tuple[str, ...] = ()) -> None:
    """Make the record of a finished training."""
    steps = [{"adopted": adopted, "kimg": 1.5, "changed": []} for adopted in lineage]
    record = {"fingerprint": fingerprint, "finished": FINISHED, "lineage": steps}
    write_json(Path("models") / name / "training" / "record.json", record)


def going(selected: tuple[str, ...] = ("dcgan",), protected: tuple[str, ...] = ()) -> dict[str, str]:
    """Return the superseded states by name, with what is told."""
    return {item.name: item.detail for item in find_states(selected, protected).items}


def test_states_of_the_present_training_stay_and_older_ones_go() -> None:
    train("dcgan", "present")
    old = train("dcgan", "old")
    finish("dcgan", "present")
    assert list(going()) == ["dcgan old"]
    assert going()["dcgan old"].startswith("1.5 kimg, ")
    assert going()["dcgan old"].endswith("; superseded by present")
    (item,) = find_states(["dcgan"], []).items
    assert item.bytes == sum(path.stat().st_size for path in old.rglob("*") if path.is_file())
    assert item.drop() is None
    assert [path.name for path in Path(".work/train/dcgan").iterdir()] == ["present"]


def test_states_newer_than_the_record_stay() -> None:
    train("dcgan", "present")
    train("dcgan", "begun", AFTER)
    finish("dcgan", "present")
    assert going() == {}


def test_states_of_a_model_without_a_record_stay() -> None:
    train("dcgan", "one")
    train("dcgan", "two")
    assert going() == {}


def test_states_of_champions_stay_whatever_is_selected() -> None:
    train("dcgan", "old")
    train("gone", "other")
    finish("dcgan", "present")
    assert going(protected=("old", "other")) == {}
    assert list(going(protected=("old",))) == ["gone other"]


def test_states_of_a_model_that_is_not_selected_go_and_it_is_said() -> None:
    train("gone", "present")
    finish("gone", "present")
    assert going()["gone present"].endswith("the model is not selected any more")


def test_states_of_an_autoencoder_that_pretrained_weights_replaced_go() -> None:
    train("autoencoder-kl", "trained")
    write_json(Path("models/autoencoders/kl/training/record.json"), {"pretrained": "somewhere", "weights": "0"})
    found = going(selected=("autoencoder-kl",))
    assert found["autoencoder-kl trained"].endswith("pretrained weights have taken its place")


def test_adopted_states_stay_until_the_heir_has_its_own() -> None:
    train("dcgan", "old")
    heir = train("dcgan", "heir", states=False)
    finish("dcgan", "heir", lineage=("old",))
    assert going() == {}
    StateFolder(heir).save(TrainingState(2000, {"weights": torch.zeros(3)}))
    assert list(going()) == ["dcgan old"]


def test_states_adopted_by_a_training_under_way_stay() -> None:
    train("dcgan", "present")
    train("dcgan", "old")
    heir = train("dcgan", "heir", AFTER, states=False)
    write_json(heir / "lineage.json", [{"adopted": "old", "kimg": 1.5, "changed": []}])
    finish("dcgan", "present")
    assert going() == {}


def test_states_of_a_model_that_is_being_trained_stay() -> None:
    train("dcgan", "old")
    finish("dcgan", "present")
    with stage_lock("train@dcgan"):
        finding = find_states(["dcgan"], [])
    assert finding.items == []
    assert finding.notes == ["dcgan: all states stay, since it is being trained now"]


def test_states_that_changed_since_they_were_shown_stay() -> None:
    old = train("dcgan", "old")
    finish("dcgan", "present")
    (item,) = find_states(["dcgan"], []).items
    with stage_lock("train@dcgan"):
        told = item.drop()
    assert told is not None and "train@dcgan is already running" in told
    (old / "samples").mkdir()
    told = item.drop()
    assert told is not None and told.endswith("stays: it was written to meanwhile")
    assert old.exists()


def test_half_written_files_go_after_an_hour() -> None:
    ages = {
        "releases/gan/.1.0.0.partial": 7200,
        "data/.images.partial/0.npy": 7200,
        "models/.a.json.1.partial": 7200,
        ".work/train/.x.partial": 60,
    }
    for name, seconds in ages.items():
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        Path(name).write_bytes(bytes(10))
        os.utime(name, (time.time() - seconds,) * 2)
    os.utime("data/.images.partial", (time.time() - 7200,) * 2)
    Path("data/kept.json").write_text("{}")
    finding = find_leftovers()
    assert [item.name for item in finding.items] == [
        "data/.images.partial",
        "models/.a.json.1.partial",
        "releases/gan/.1.0.0.partial",
    ]
    assert finding.bytes == 30
    for item in finding.items:
        item.drop()
    assert not Path("data/.images.partial").exists()
    assert Path("data/kept.json").exists()
    assert Path(".work/train/.x.partial").exists()


def test_half_written_files_stay_while_a_stage_is_at_work() -> None:
    Path("data/.images.partial").mkdir(parents=True)
    os.utime("data/.images.partial", (BEFORE, BEFORE))
    hold = "from stages.process import stage_lock\nwith stage_lock('normalize'): print(flush=True); input()"
    line = [sys.executable, "-c", hold]
    with subprocess.Popen(line, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout is not None
        other.stdout.readline()
        finding = find_leftovers()
        other.communicate("\n")
    assert finding.items == []
    assert "normalize is at work" in finding.notes[0]
    assert [item.name for item in find_leftovers().items] == ["data/.images.partial"]


@pytest.fixture
def client(empty_database: None) -> MlflowClient:
    """A client of a registry that is empty but for the project's experiment."""
    client = MlflowClient(f"sqlite:///{Path(DATABASE).resolve()}")
    client.create_experiment(EXPERIMENT, artifact_location=Path("mlartifacts").resolve().as_uri())
    return client


def add_run(client: MlflowClient, name: str, status: str = "FINISHED", **tags: str) -> Run:
    experiment = client.get_experiment_by_name(EXPERIMENT)
    assert experiment is not None
    run = client.create_run(experiment.experiment_id, run_name=name, tags={FINGERPRINT: name, **tags})
    client.log_text(run.info.run_id, "12345", "file.txt")
    if status != "RUNNING":
        client.set_terminated(run.info.run_id, status)
    return run


def register(client: MlflowClient, run: Run, alias: str | None) -> None:
    name = f"model-{run.info.run_name}"
    client.create_registered_model(name)
    client.create_model_version(name, f"runs:/{run.info.run_id}/model", run_id=run.info.run_id)
    if alias:
        client.set_registered_model_alias(name, alias, "1")


def found(releases: list[Path] | None = None, with_states: tuple[str, ...] = ()) -> Any:
    registry = read_registry(f"sqlite:///{Path(DATABASE).resolve()}", releases or [])
    assert registry is not None
    return find_runs(registry, with_states)


def test_superseded_and_dead_runs_go_for_good(client: MlflowClient) -> None:
    add_run(client, "finished")
    add_run(client, "under-way", "RUNNING")
    gone = [add_run(client, "repeated", **{SUPERSEDED: "x"}), add_run(client, "killed", "KILLED")]
    add_run(client, "resumable", "FAILED")
    finding = found(with_states=("resumable",))
    assert {item.name for item in finding.items} == {"repeated", "killed"}
    assert finding.bytes == 10
    for item in finding.items:
        item.drop()
    left = {path.parts[1] for path in Path("mlartifacts").rglob("file.txt")}
    assert left.isdisjoint(run.info.run_id for run in gone)
    assert len(left) == 3
    experiment = client.get_experiment_by_name(EXPERIMENT)
    assert experiment is not None
    names = {run.info.run_name for run in client.search_runs([experiment.experiment_id])}
    assert names == {"finished", "under-way", "resumable"}


def test_runs_of_aliases_releases_and_versions_stay(client: MlflowClient, folder: Path) -> None:
    dead = {name: add_run(client, name, "KILLED") for name in ("champion", "any-alias", "version", "released", "print")}
    register(client, dead["champion"], "champion")
    register(client, dead["any-alias"], "night-shift")
    register(client, dead["version"], None)
    releases = [folder / "one.json", folder / "two.json"]
    write_json(releases[0], {"lineage": [{"run": dead["released"].info.run_id}]})
    write_json(releases[1], {"files": [], "training": {"fingerprint": "print"}})
    finding = found(releases)
    assert finding.items == []
    assert {note.partition(" ")[0] for note in finding.notes} == set(dead)
    registry = read_registry(f"sqlite:///{Path(DATABASE).resolve()}", releases)
    assert registry is not None
    assert registry.kept_fingerprints == {"champion", "any-alias", "released", "print"}


def test_nothing_of_the_users_bin_is_purged(client: MlflowClient) -> None:
    add_run(client, "killed", "KILLED")
    client.delete_experiment(client.create_experiment("thrown away"))
    finding = found()
    assert finding.items == []
    assert "would empty the registry's bin, too (1 experiments)" in finding.notes[0]


def test_champion_without_its_onnx_file_keeps_the_cache(client: MlflowClient) -> None:
    run = add_run(client, "champion", **{"onnx.sha256": "0" * 64})
    register(client, run, "champion")
    registry = read_registry(f"sqlite:///{Path(DATABASE).resolve()}", [])
    assert registry is not None
    with pytest.raises(GateError, match="model-champion version 1 is champion, but MLflow does not hold its"):
        registry.check_files()


def test_silent_server_keeps_everything(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    with pytest.raises(FetchError, match=r"MLflow at http://127\.0\.0\.1:1 does not say what are champions") as failure:
        read_registry("http://user:secret@127.0.0.1:1", [])
    assert "secret" not in str(failure.value)
    assert read_registry(f"sqlite:///{Path('absent.db').resolve()}", []) is None


def test_without_a_terminal_nothing_is_dropped_unless_told(
    capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stdin", open(os.devnull))  # noqa: SIM115, PTH123 - closed with the process
    assert not command.wanted(yes=False)
    assert "nothing was dropped; --yes drops it" in capsys.readouterr().out
    assert command.wanted(yes=True)


@pytest.mark.parametrize(("answer", "expected"), [("y", True), ("YES", True), ("", False), ("no", False)])
def test_on_a_terminal_it_asks(monkeypatch: pytest.MonkeyPatch, answer: str, expected: bool) -> None:
    monkeypatch.setattr("sys.stdin.isatty", lambda: True)
    monkeypatch.setattr("builtins.input", lambda prompt: answer)
    assert command.wanted(yes=False) is expected
