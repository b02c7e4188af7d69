"""The whole road in a copy of the project: real stages, own pictures at 16 px, two models, every front door.

The tests share one project and follow one another, since a whole run takes a minute.
"""

import json
import re
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from pipelines.release.locked import OF_MODEL
from stages.storage import read_json, sha256_file
from tests.conftest import tiny_params
from tests.lifecycle.project import RUN_SECONDS, Run, assert_current, make_project, processes_of, runner_in, set_params
from tests.lifecycle.project import environment as environment

MODELS = ("dcgan", "dcgan_bilinear")
NO_OP_SECONDS = 5.0

pytestmark = pytest.mark.timeout(RUN_SECONDS * 2)


def two_models() -> dict[str, Any]:
    """Return the tests' settings with a second model beside the first."""
    params = tiny_params()
    params["select"]["dcgan_bilinear"] = dict(params["select"]["dcgan"])
    params["models"]["dcgan_bilinear"] = params["models"]["dcgan"] | {"upsample": "bilinear"}
    return params


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the project with two tiny models."""
    return make_project(tmp_path_factory.mktemp("lifecycle") / "project", two_models())


@pytest.fixture(scope="module")
def module(project: Path) -> Run:
    """Run `python -m MODULE ARGUMENTS` in the project; stdout and stderr are captured."""
    return runner_in(project)


@pytest.fixture(scope="module")
def finished(module: Run) -> subprocess.CompletedProcess:
    """The first run of the whole pipeline."""
    done = module("pipelines.run")
    assert done.returncode == 0, done.stdout + done.stderr
    return done


@pytest.fixture
def changed_params(project: Path) -> Iterator[Callable[..., None]]:
    """Change params.yaml for one test."""
    path = project / "params.yaml"
    before = path.read_bytes()

    def change(**dotted: Any) -> None:
        set_params(project, **dotted)

    yield change
    path.write_bytes(before)


def rows(project: Path, query: str) -> list[tuple]:
    with sqlite3.connect(project / "mlflow.db") as database:
        return database.execute(query).fetchall()


def runs_of(project: Path, model: str) -> list[str]:
    query = f"SELECT run_uuid FROM tags WHERE key = 'training.model' AND value = '{model}'"
    return [run for (run,) in rows(project, query)]


def test_unknown_setting_is_refused_before_any_work(module: Run, project: Path, changed_params) -> None:
    changed_params(**{"normalize.resolutoin": 16})
    for front_door in (["pipelines.run"], ["pipelines.flows", "lifecycle"]):
        done = module(*front_door)
        assert done.returncode == 2
        assert done.stderr.count("\n") == 1
        assert "normalize.resolutoin: unknown setting; allowed: resolution" in done.stderr
    assert [path.name for path in (project / "data").iterdir()] == ["groups.lock.json"]


def test_whole_run_ends_with_a_table_of_both_models(finished: subprocess.CompletedProcess) -> None:
    table = finished.stdout[finished.stdout.index("Models;") :]
    for name in MODELS:
        assert f" {name} " in table
        assert f"models/{name}/evaluation/samples.png" in table
    assert "make ui" in table


def test_status_is_empty_and_dvc_repro_agrees(finished: subprocess.CompletedProcess, module: Run) -> None:
    assert_current(module)
    again = module("dvc", "repro")
    assert again.returncode == 0
    assert "Running stage" not in again.stdout


def test_second_run_finds_nothing_stale_in_seconds(finished: subprocess.CompletedProcess, module: Run) -> None:
    started = time.monotonic()
    done = module("pipelines.run")
    assert time.monotonic() - started < NO_OP_SECONDS
    assert done.returncode == 0
    assert done.stdout.startswith("nothing is stale\n")
    assert "Models;" in done.stdout


def test_mlflow_shows_the_run_of_each_model(finished: subprocess.CompletedProcess, project: Path) -> None:
    for name in MODELS:
        (run,) = runs_of(project, name)
        curve = read_json(project / f"models/{name}/training/curve.json")
        points = rows(project, f"SELECT step FROM metrics WHERE run_uuid = '{run}' AND key = 'loss_generator'")
        assert sorted(step for (step,) in points) == sorted({round(row["kimg"] * 1000) for row in curve})
        latest = dict(rows(project, f"SELECT key, value FROM latest_metrics WHERE run_uuid = '{run}'"))
        scores = read_json(project / f"models/{name}/evaluation/scores.json")
        for score, value in scores["scores"].items():
            assert latest[score] == pytest.approx(value)
        for score, value in scores["floor"].items():
            assert latest[f"floor_{score}"] == pytest.approx(value)
        artifacts = project / "mlartifacts" / run / "artifacts"
        for shown in (f"models/{name}/evaluation/report.html", ".work/reports/comparison.html"):
            assert (artifacts / Path(shown).name).read_bytes() == (project / shown).read_bytes()
        assert latest["onnx_cpu_batch1_p50_ms"] > 0
        logged = {sha256_file(path) for path in (project / "mlartifacts").rglob("model.onnx")}
        assert sha256_file(project / f"models/{name}/onnx/model.onnx") in logged


def test_a_release_names_the_run_and_is_traced_to_dvc_and_git(
    finished: subprocess.CompletedProcess, module: Run, project: Path
) -> None:
    done = module("pipelines.release", "dcgan")
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("releases/dcgan/1.0.0: whole; ")
    record = read_json(project / "releases/dcgan/1.0.0/release.json")
    (run,) = runs_of(project, "dcgan")
    assert record["mlflow"]["run_id"] == run
    models = rows(project, f"SELECT model_id FROM logged_models WHERE source_run_id = '{run}'")
    assert models == [(record["mlflow"]["model_id"],)]
    stages = ["download", "align", "normalize", "augment", *(f"{stage}@dcgan" for stage in OF_MODEL)]
    assert list(record["dvc"]) == stages
    assert record["training"]["git"]["commit"] == record["commit"]["commit"]
    traced = module("pipelines.trace", "releases/dcgan/1.0.0/model.onnx", "--json")
    outcomes = [(check["claim"], check["outcome"]) for check in json.loads(traced.stdout)["checks"]]
    assert [claim for claim, _ in outcomes] == ["release", "release", "models", "dvc", "dvc", "git", "git"]
    # DVC wrote dvc.lock after the commit, so the commit has none
    assert [outcome for _, outcome in outcomes] == ["agrees"] * 4 + ["unknown"] + ["agrees"] * 2
    assert module("pipelines.verify", "releases/dcgan/1.0.0").returncode == 0
    assert_current(module)
    line = ["git", "status", "--porcelain"]
    assert "releases" not in subprocess.run(line, cwd=project, capture_output=True, text=True).stdout


def test_dead_prefect_server_is_one_line(finished: subprocess.CompletedProcess, module: Run) -> None:
    done = module("pipelines.flows", "lifecycle", PREFECT_API_URL="http://127.0.0.1:1/api")
    assert done.returncode == 2
    assert "lifecycle: Prefect: Failed to reach API at http://127.0.0.1:1/api/" in done.stderr
    assert "Traceback" not in done.stderr


def test_second_runner_leaves_with_one_line(finished: subprocess.CompletedProcess, module: Run, project: Path) -> None:
    hold = "import sys; from stages.process import stage_lock\nwith stage_lock('pipeline'): print(flush=True); input()"
    first = subprocess.Popen(
        [sys.executable, "-c", hold], cwd=project, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert first.stdout is not None
    first.stdout.readline()
    done = module("pipelines.run")
    first.communicate("\n")
    assert done.returncode == 2
    holder = rf"\(process {first.pid} since [-0-9]+ [:0-9]+: python.* -c import sys; .*\)"
    assert re.fullmatch(
        rf"run: pipeline is already running in this workspace {holder}; wait for it\n", done.stderr, re.S
    )


def test_flow_runs_just_the_changed_model_and_dvc_agrees(
    finished: subprocess.CompletedProcess, module: Run, project: Path
) -> None:
    set_params(project, **{"models.dcgan.generator_lr": 0.0005, "models.dcgan.budget_kimg": 0.512})
    before = {name: sha256_file(project / f"models/{name}/onnx/model.onnx") for name in MODELS[1:]}
    done = module("pipelines.flows", "lifecycle")
    assert done.returncode == 0, done.stdout + done.stderr
    log = done.stdout + done.stderr
    for stage in ("train", "evaluate", "export", "certify", "benchmark"):
        assert f"Task run '{stage}@dcgan' - Finished in state Completed" in log
    assert "Task run 'train@dcgan_bilinear'" not in log
    assert {name: sha256_file(project / f"models/{name}/onnx/model.onnx") for name in MODELS[1:]} == before
    assert_current(module)
    assert len(runs_of(project, "dcgan")) == 2
    assert len(runs_of(project, "dcgan_bilinear")) == 1
    assert processes_of(project) == []


def last_flow_state(project: Path) -> str:
    with sqlite3.connect(project.parent / "prefect" / "prefect.db") as database:
        return str(database.execute("SELECT state_type FROM flow_run ORDER BY created DESC").fetchone()[0])


@pytest.mark.parametrize(
    ("setting", "value", "code", "reason"),
    [
        ("data.folder.path", "nowhere", 2, "data.folder.path is nowhere, which is not a folder"),
        ("export.tolerance", 1e-12, 3, "export@dcgan: exit code 3: "),
    ],
)
def test_flow_tells_what_the_user_can_mend_in_one_line(
    finished, module: Run, project: Path, changed_params, setting: str, value: Any, code: int, reason: str
) -> None:
    changed_params(**{setting: value})
    done = module("pipelines.flows", "lifecycle", "--no-publish")
    assert done.returncode == code
    ours = [line for line in done.stderr.splitlines() if line.startswith("lifecycle: ")]
    assert [line.startswith(f"lifecycle: {reason}") for line in ours] == [True]
    assert "Traceback" not in done.stdout + done.stderr
    assert last_flow_state(project) == "FAILED"
