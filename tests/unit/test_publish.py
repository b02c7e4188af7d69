"""MLflow holds what the stages wrote, once, and a tracking server that is down stops nothing."""

import json
import re
import shutil
import sqlite3
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pipelines.curves import curve_metrics, figures_of
from pipelines.publish import (
    _publish_trained,
    is_published,
    publish_all,
    publish_changed,
    tracking_uri,
)
from pipelines.report import print_report
from pipelines.results import read_results
from pipelines.training import chosen_grids
from stages.errors import GateError, InputError
from stages.settings import Settings, load_settings
from stages.storage import sha256_file, write_json
from tests.unit.published_model import (
    FINGERPRINT,
    FOLDER,
    NAME,
    write_benchmark,
    write_certificate,
    write_onnx,
    write_scores,
    write_training,
)


@pytest.fixture
def finished(empty_workspace: Path, empty_database: None, monkeypatch: pytest.MonkeyPatch) -> Settings:
    """A project whose one model has passed all stages; no tracking address is set."""
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    write_training()
    write_scores()
    write_onnx()
    write_certificate()
    write_benchmark()
    return load_settings()


def rows(query: str) -> list[tuple]:
    with sqlite3.connect("mlflow.db") as database:
        return database.execute(query).fetchall()


def counts() -> dict[str, int]:
    tables = ("runs", "metrics", "params", "tags", "logged_models")
    files = [path for path in Path("mlartifacts").rglob("*") if path.is_file()]
    return {table: rows(f"SELECT count(*) FROM {table}")[0][0] for table in tables} | {"files": len(files)}


def points(key: str) -> list[tuple[int, float]]:
    found = rows(f"SELECT step, value FROM metrics WHERE key = '{key}' ORDER BY step, timestamp")
    return [(int(step), float(value)) for step, value in found]


def test_run_holds_curve_scores_and_identity(finished: Settings) -> None:
    assert publish_all(finished, print) == [NAME]
    assert rows("SELECT name, status FROM runs") == [(f"{NAME}-ffffffff", "FINISHED")]
    assert points("loss_generator") == [(k, 1 / k) for k in (10, 20, 30, 40)]
    assert points("diversity") == []
    assert points("fd_efficientnet_lite0") == [(40, 12.5)]
    assert points("floor_fd_efficientnet_lite0") == [(40, 2.5)]
    assert points("onnx_cpu_batch1_p50_ms") == [(40, 1.5)]
    assert points("torch_eager_batch1_p50_ms") == [(40, 1.5)]
    assert points("onnx_max_abs_difference") == [(40, 3e-6)]
    params = dict(rows("SELECT key, value FROM params"))
    assert params == {"generator_lr": "0.0002", "augment.kind": "none"}
    tags = dict(rows("SELECT key, value FROM tags"))
    expected = {"training.fingerprint": FINGERPRINT, "git.commit": "abc", "git.dirty": "True", "budget_kimg": "40.0"}
    expected |= {"recipe.efficientnet_lite0": "abcd", "hardware.hash": "hh", "dataset.sha256": "d" * 64}
    assert expected.items() <= tags.items()


def test_publishing_twice_changes_nothing(finished: Settings) -> None:
    publish_all(finished, print)
    before = counts()
    assert before["runs"] == before["logged_models"] == 1
    assert publish_changed(finished, print) == []
    assert publish_all(finished, print) == [NAME]
    assert counts() == before


def test_logged_onnx_is_the_exported_file_byte_for_byte(finished: Settings) -> None:
    import mlflow

    publish_all(finished, print)
    run_id = rows("SELECT run_uuid FROM runs")[0][0]
    mlflow.set_tracking_uri(tracking_uri())
    folder = Path(mlflow.artifacts.download_artifacts(f"runs:/{run_id}/generator"))
    assert sha256_file(folder / "model.onnx") == sha256_file(FOLDER / "onnx" / "model.onnx")
    signature = mlflow.models.get_model_info(f"runs:/{run_id}/generator").signature
    assert [(i.name, i.shape) for i in signature.inputs.inputs] == [("noise", (-1, 4))]
    assert [(o.name, o.shape) for o in signature.outputs.inputs] == [("pictures", (-1, 12))]
    loaded = mlflow.pyfunc.load_model(f"runs:/{run_id}/generator")
    drawn = loaded.predict({"noise": np.eye(4, dtype=np.float32)})["pictures"]
    np.testing.assert_array_equal(drawn, np.arange(48, dtype=np.float32).reshape(4, 12))


def test_larger_budget_goes_on_in_the_same_run(finished: Settings) -> None:
    publish_all(finished, print)
    write_training(kimg=60)
    assert publish_changed(finished, print) == [NAME]
    assert len(rows("SELECT 1 FROM runs")) == 1
    assert points("loss_generator") == [(k, 1 / k) for k in (10, 20, 30, 40, 50, 60)]
    assert dict(rows("SELECT key, value FROM tags"))["budget_kimg"] == "60.0"


def test_training_that_came_out_otherwise_gets_its_own_run(finished: Settings) -> None:
    publish_all(finished, print)
    write_training(curve_rows=[{"kimg": 10.0, "loss_generator": 7.0}, {"kimg": 40.0, "loss_generator": 6.0}])
    publish_changed(finished, print)
    assert len(rows("SELECT 1 FROM runs")) == 2
    old, new = (run for (run,) in rows("SELECT run_uuid FROM runs ORDER BY rowid"))
    assert rows("SELECT run_uuid, value FROM tags WHERE key = 'superseded.by'") in ([(old, new)], [(new, old)])
    before = counts()
    publish_all(finished, print)
    assert counts() == before


def test_other_settings_are_another_run(finished: Settings) -> None:
    publish_all(finished, print)
    write_training(fingerprint="a" * 64)
    publish_changed(finished, print)
    assert sorted(name for (name,) in rows("SELECT name FROM runs")) == [f"{NAME}-aaaaaaaa", f"{NAME}-ffffffff"]


def test_new_score_is_added_and_shown(finished: Settings) -> None:
    publish_all(finished, print)
    write_scores(distance=11.0)
    publish_changed(finished, print)
    assert points("fd_efficientnet_lite0") == [(40, 12.5), (40, 11.0)]
    assert rows("SELECT value FROM latest_metrics WHERE key = 'fd_efficientnet_lite0'") == [(11.0,)]


WRITERS: dict[str, Callable[..., None]] = {
    "scores": write_scores,
    "parity": write_onnx,
    "certificate": write_certificate,
    "benchmark": write_benchmark,
}
FIGURES = {
    "scores": "fd_efficientnet_lite0",
    "parity": "onnx_max_abs_difference",
    "certificate": "certificate_fp16_fd",
    "benchmark": "onnx_cpu_batch1_p50_ms",
}
FILES = {
    "scores": {"scores.json", "samples.png", "report.html", "walk.mp4"},
    "parity": {"parity.json", "model.onnx"},
    "certificate": {"certificate.json", "differences.png"},
    "benchmark": {"benchmark.json", "latency.png"},
}


def test_forms_that_passed_are_a_tag(finished: Settings) -> None:
    publish_all(finished, print)
    assert rows("SELECT value FROM tags WHERE key = 'onnx.certified'") == [("model, fp16",)]


@pytest.mark.parametrize("piece", list(WRITERS))
def test_piece_of_other_weights_is_not_published(finished: Settings, piece: str) -> None:
    told: list[str] = []
    WRITERS[piece](weights="w0")
    publish_all(finished, told.append)
    assert {name: bool(points(key)) for name, key in FIGURES.items()} == {name: name != piece for name in FIGURES}
    assert not FILES[piece] & {path.name for path in Path("mlartifacts").rglob("*")}
    assert told[0].startswith(f"WARNING: {NAME}: {piece} of other weights than models/{NAME} holds now are left out")


def test_piece_that_does_not_tell_its_weights_is_left_out(finished: Settings) -> None:
    path = FOLDER / "onnx" / "parity.json"
    write_json(path, {key: value for key, value in json.loads(path.read_text()).items() if key != "identity"})
    assert read_results(NAME).parity == {}
    assert read_results(NAME).foreign == ("parity",)


def test_table_shows_no_piece_of_other_weights(finished: Settings, capsys: pytest.CaptureFixture) -> None:
    print_report(finished)
    before = capsys.readouterr().out
    assert "certified  dcgan: model, fp16; not int8: too far" in before
    assert "12.50" in before
    assert "1.50" in before
    assert "model.onnx" in before
    for write in WRITERS.values():
        write(weights="w0")
    print_report(finished)
    after = capsys.readouterr().out
    assert "certified" not in after
    assert "12.50" not in after
    assert "1.50" not in after
    assert "model.onnx" not in after
    assert "samples.png" not in after
    assert "scores and parity and certificate and benchmark of other weights" in after


def test_model_that_is_refused_does_not_keep_others_from_being_published(finished: Settings, edit_params) -> None:
    shutil.copytree(FOLDER, FOLDER.with_name("second"))
    write_json(Path("models/second/training/record.json"), json.loads((FOLDER / "training/record.json").read_text()))
    params = load_settings().model_dump(mode="json")
    edit_params(**{"select.second": params["select"][NAME], "models.second": {"upsample": "nearest"}})
    (FOLDER / "onnx" / "model.onnx").write_bytes(b"another file")
    told: list[str] = []
    with pytest.raises(GateError, match=rf"models/{NAME}/onnx/model.onnx has sha256 .*, parity.json describes"):
        publish_changed(load_settings(), told.append)
    assert [line.split()[1] for line in told] == ["second"]
    assert is_published(read_results("second"))
    assert not is_published(read_results(NAME))


def test_absent_onnx_file_is_not_called_a_dead_server(finished: Settings) -> None:
    (FOLDER / "onnx" / "model.onnx").unlink()
    with pytest.raises(GateError, match=r"model\.onnx has sha256 none, since it is not there"):
        publish_all(finished, print)


def test_mlflow_prints_no_address(finished: Settings, capfd: pytest.CaptureFixture) -> None:
    import mlflow
    from mlflow.store.tracking.rest_store import RestStore
    from mlflow.tracking._tracking_service.client import TrackingServiceClient
    from mlflow.utils.rest_utils import MlflowHostCreds

    publish_all(finished, print)
    capfd.readouterr()
    service = TrackingServiceClient(tracking_uri())
    run = mlflow.MlflowClient(tracking_uri()).get_run(rows("SELECT run_uuid FROM runs")[0][0])
    with pytest.MonkeyPatch.context() as patch:  # MLflow prints for servers only; this is one that is never asked
        patch.setattr(TrackingServiceClient, "store", RestStore(lambda: MlflowHostCreds("http://user:secret@host")))
        patch.setattr(RestStore, "get_run", lambda self, run_id: run)
        service._log_url(run.info.run_id)
    assert capfd.readouterr().out == ""


def test_deleted_database_is_filled_again(finished: Settings, run_module: Callable) -> None:
    assert run_module("pipelines.publish").returncode == 0
    assert is_published(read_results(NAME))
    Path("mlflow.db").unlink()
    assert not is_published(read_results(NAME))
    assert publish_changed(finished, print) == [NAME]
    assert len(points("loss_generator")) == 4


def test_dead_server_is_told_and_the_next_time_fills_in(finished: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://user:secret@127.0.0.1:1/?token=secret")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    told: list[str] = []
    assert publish_changed(finished, told.append) == []
    assert told[0].startswith(f"WARNING: {NAME} not published, MLflow at http://127.0.0.1:1/ says: no answer (")
    assert not is_published(read_results(NAME))
    assert "secret" not in "\n".join(told)
    monkeypatch.delenv("MLFLOW_TRACKING_URI")
    assert publish_changed(finished, told.append) == [NAME]


def test_page_that_cannot_be_made_costs_no_publication(finished: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(settings: Settings) -> None:
        raise InputError("samples.png is no sheet")

    monkeypatch.setattr("pipelines.publish.bring_up_to_date", fail)
    monkeypatch.setattr("pipelines.publish.load_settings", lambda: finished)
    with pytest.raises(InputError, match="is no sheet"):
        _publish_trained()
    assert points("fd_efficientnet_lite0")


def test_note_holds_no_address(finished: Settings) -> None:
    publish_all(finished, print)
    assert set(json.loads(Path(f".work/published/{NAME}.json").read_text())) == {
        "digest",
        "tracking",
        "run",
        "comparison",
    }
    assert "mlflow.db" not in Path(f".work/published/{NAME}.json").read_text()


@pytest.mark.parametrize(("count", "expected"), [(1, 1), (10, 10), (11, 6), (40, 10), (100, 7)])
def test_few_grids_are_shown_and_the_last_is_among_them(tmp_path: Path, count: int, expected: int) -> None:
    for kimg in range(1, count + 1):
        (tmp_path / f"kimg-{kimg:06d}.png").touch()
    chosen = chosen_grids(tmp_path)
    assert len(chosen) == expected
    assert max(chosen) == count


def test_rows_of_one_kimg_give_one_point(finished: Settings) -> None:
    write_training(curve_rows=[{"kimg": 39.9, "loss_generator": 2.0}, {"kimg": 40.0, "loss_generator": 1.0}])
    assert [(m.step, m.value) for m in curve_metrics(read_results(NAME).training)] == [(40, 2.0)]


def test_ticks_below_one_kimg_are_steps_in_pictures(finished: Settings) -> None:
    fine = [{"kimg": kimg, "loss_generator": kimg} for kimg in (0.128, 0.256, 0.5)]
    write_training(curve_rows=fine, kimg=0, settings={"tick_kimg": 0.128})
    for kimg in ("000000.128", "000000.500"):
        Image.new("RGB", (16, 16)).save(FOLDER / f"training/samples/kimg-{kimg}.png")
    record = json.loads((FOLDER / "training/record.json").read_text())
    write_json(FOLDER / "training/record.json", record | {"kimg": 0.5})
    publish_all(finished, print)
    assert points("loss_generator") == [(128, 0.128), (256, 0.256), (500, 0.5)]
    assert points("fd_efficientnet_lite0") == [(500, 12.5)]
    assert dict(rows("SELECT key, value FROM tags"))["training.step"] == "pictures"
    files = [path.name for path in Path("mlartifacts").rglob("images/samples*")]
    assert {"128", "500"} <= {re.split(r"\D+", name)[1] for name in files}
    before = counts()
    publish_all(finished, print)
    assert counts() == before


def test_only_finite_numbers_become_figures(finished: Settings) -> None:
    result = read_results(NAME)
    result.scores["scores"] |= {"broken": float("nan"), "text": "n/a", "absent": None, "flag": True}
    assert not {"broken", "text", "absent", "flag"} & set(figures_of(result))


def test_command_needs_something_trained(empty_workspace: Path, run_module: Callable) -> None:
    done = run_module("pipelines.publish")
    assert done.returncode == 2
    assert done.stderr == "publish: none of dcgan is trained; run `dvc repro` first\n"


@pytest.fixture
def run_module() -> Callable:
    """Run `python -m MODULE` in the current folder; text output is captured."""
    import subprocess
    import sys

    def run(module: str) -> subprocess.CompletedProcess:
        return subprocess.run([sys.executable, "-m", module], capture_output=True, text=True, timeout=120)

    return run
