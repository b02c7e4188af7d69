"""The plan names what is stale and why, in an order in which it can run."""

import contextlib
import json
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import yaml

from pipelines import execution, lifecycle, run
from pipelines.execution import Outcome, retries_of
from pipelines.lifecycle import choose, exit_code, run_steps, try_all
from pipelines.plan import Step, describe, explain, plan, plan_from, running_order
from stages.errors import GateError, InputError, Interrupted, StageError

GRAPH = {
    "download": set(),
    "train@a": {"download"},
    "train@b": {"download"},
    "evaluate@a": {"train@a"},
    "evaluate@b": {"train@b"},
}
PROJECT = """
stages:
  download:
    cmd: cp source.txt raw.txt
    deps: [source.txt]
    outs: [raw.txt]
  train:
    foreach: ${select}
    do:
      cmd: cp raw.txt ${key}.weights
      deps: [raw.txt]
      params: ["models.${key}"]
      outs: ["${key}.weights"]
"""


def dvc(*arguments: str) -> str:
    line = [sys.executable, "-m", "dvc", *arguments]
    return subprocess.run(line, capture_output=True, text=True, check=True).stdout


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A small DVC project with two models, up to date; it is the current folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DVC_NO_ANALYTICS", "1")
    (tmp_path / "dvc.yaml").write_text(PROJECT)
    (tmp_path / "source.txt").write_text("1")
    write_params({"zeta": {"lr": 1}, "alpha": {"lr": 2}})
    dvc("init", "--no-scm", "--quiet")
    dvc("repro", "--quiet")
    return tmp_path


def write_params(models: dict[str, dict]) -> None:
    select = {name: {"preset": "p"} for name in models}
    Path("params.yaml").write_text(yaml.safe_dump({"select": select, "models": models}, sort_keys=False))


def test_nothing_stale_is_an_empty_plan(project: Path) -> None:
    assert plan() == []
    assert describe([]) == "nothing is stale"
    assert describe([], ["download", "zeta"]) == "nothing is stale of: download, zeta"


def test_changed_setting_is_told_with_old_and_new_value(project: Path) -> None:
    write_params({"zeta": {"lr": 5}, "alpha": {"lr": 2}})
    steps = plan()
    assert [step.stage for step in steps] == ["train@zeta"]
    assert steps[0].reasons == ["models.zeta.lr: 1 -> 5"]


def test_changed_input_takes_all_that_follows_in_running_order(project: Path) -> None:
    (project / "source.txt").write_text("2")
    steps = plan()
    assert [step.stage for step in steps] == ["download", "train@zeta", "train@alpha"]
    assert steps[0].reasons == ["source.txt has changed"]
    assert steps[1].after == ["download"]


def test_missing_output_is_told(project: Path) -> None:
    (project / "alpha.weights").unlink()
    assert [(step.stage, step.reasons) for step in plan()] == [("train@alpha", ["alpha.weights is missing"])]


def test_command_prints_json_with_the_cost_of_the_last_time(project: Path) -> None:
    (project / "alpha.weights").unlink()
    notes = project / ".work" / "last"
    notes.mkdir(parents=True)
    (notes / "train@alpha.json").write_text(json.dumps({"code": 0, "seconds": 12.5}))
    line = [sys.executable, "-m", "pipelines.plan", "--json"]
    steps = json.loads(subprocess.run(line, capture_output=True, text=True, check=True).stdout)
    assert steps == [{"stage": "train@alpha", "reasons": ["alpha.weights is missing"], "after": [], "seconds": 12.5}]


def test_broken_project_is_one_line(project: Path) -> None:
    (project / "dvc.yaml").write_text("stages: [")
    done = subprocess.run([sys.executable, "-m", "pipelines.plan"], capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stderr.startswith("plan: dvc status failed: ")
    assert done.stderr.count("\n") == 1


def test_order_keeps_dvc_yaml_where_needs_allow_it() -> None:
    shuffled = {"evaluate@a": {"train@a"}, "train@b": {"download"}, "train@a": {"download"}, "download": set()}
    assert running_order(shuffled) == ["download", "train@b", "train@a", "evaluate@a"]


def test_stale_stage_takes_only_its_own_followers() -> None:
    steps = plan_from({"train@b": ["changed command"]}, GRAPH)
    assert [step.stage for step in steps] == ["train@b", "evaluate@b"]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        (["changed command"], ["its command has changed"]),
        ([{"changed deps": {"data/raw": "modified"}}], ["data/raw has changed"]),
        ([{"changed outs": {"data/raw": "deleted"}}], ["data/raw is missing"]),
    ],
)
def test_reasons_are_words(changes: list, words: list[str]) -> None:
    assert explain("train@a", changes, {"cmd": "x"}) == words


def test_first_run_is_told_once() -> None:
    assert explain("train@a", [{"changed deps": {"x": "modified", "y": "new"}}], None) == ["never ran here"]


def steps() -> list[Step]:
    return plan_from({"download": ["changed command"]}, GRAPH)


def outcome(stage: str, code: int) -> Outcome:
    return Outcome(stage, code, "why", False, 0.0)


def test_failed_model_does_not_stop_the_other() -> None:
    told: list[str] = []
    outcomes = run_steps(steps(), lambda step: outcome(step.stage, 3 * (step.stage == "train@a")), told.append)
    assert [o.stage for o in outcomes] == ["download", "train@a", "train@b", "evaluate@b"]
    assert exit_code(outcomes) == 3
    assert told == ["train@a: failed with exit code 3: why", "evaluate@a: left out, since train@a failed"]


@pytest.mark.parametrize(
    ("targets", "chosen"),
    [
        (["train@b"], ["download", "train@b"]),
        (["train"], ["download", "train@a", "train@b"]),
        (["a"], ["download", "train@a", "evaluate@a"]),
        ([], ["download", "train@a", "train@b", "evaluate@a", "evaluate@b"]),
    ],
)
def test_targets_bring_what_they_need(targets: list[str], chosen: list[str]) -> None:
    assert [step.stage for step in choose(steps(), targets)] == chosen


@pytest.mark.parametrize(
    ("stage", "retries"), [("download", 3), ("evaluate@a", 3), ("export@a", 3), ("train@a", 1), ("train", 1)]
)
def test_stage_is_repeated_at_most_so_often(stage: str, retries: int) -> None:
    assert retries_of(stage) == retries


@pytest.mark.parametrize(("retryable", "runs"), [(True, 4), (False, 1)])
def test_only_what_calls_itself_retryable_is_repeated(
    monkeypatch: pytest.MonkeyPatch, retryable: bool, runs: int
) -> None:
    ran: list[str] = []
    paused: list[float] = []

    def fail(stage: str, read_line: object, force: bool) -> Outcome:
        ran.append(stage)
        return Outcome(stage, 2, "the package could not be fetched", retryable, 0.0)

    monkeypatch.setattr(execution, "repro", fail)
    monkeypatch.setattr(execution.time, "sleep", paused.append)
    assert execution.repro_with_retries("evaluate@a").code == 2
    assert len(ran) == runs
    assert paused == list(execution.BACKOFF_SECONDS[: runs - 1])


def test_refusal_of_dvc_itself_is_the_reason(project: Path) -> None:
    subprocess.run(["git", "init", "--quiet"], check=True)
    dvc("config", "--local", "core.no_scm", "false")
    (project / "raw.txt").write_text("kept in Git")
    subprocess.run(["git", "add", "--force", "raw.txt"], check=True)
    (project / "source.txt").write_text("2")
    ended = execution.repro("download")
    assert (ended.code, ended.retryable) == (1, False)
    assert "output 'raw.txt' is already tracked by SCM" in ended.reason
    assert ended.reason.startswith("dvc: ")
    assert "\n" not in ended.reason


def test_work_that_fails_keeps_no_other_from_its_turn() -> None:
    done: list[str] = []

    def refuse() -> None:
        raise GateError("not fit")

    assert [str(e) for e in try_all([refuse, lambda: done.append("table"), refuse])] == ["not fit", "not fit"]
    assert done == ["table"]

    def stop() -> None:
        raise Interrupted("stopped")

    with pytest.raises(Interrupted):
        try_all([stop, lambda: done.append("more")])
    assert done == ["table"]


def test_results_are_shown_before_the_closing_check(monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    told: list[str] = []

    def refuse(settings: object, tell: object) -> None:
        told.append("publish")
        raise GateError("the ONNX file is another")

    def stale() -> None:
        told.append("check")
        raise StageError("after the run dvc status still names download")

    monkeypatch.setattr(run, "opened_project", lambda wait: contextlib.nullcontext(SimpleNamespace(select={})))
    monkeypatch.setattr(run, "plan", lambda: steps()[:1])
    monkeypatch.setattr(run, "repro_with_retries", lambda stage: outcome(stage, 0))
    monkeypatch.setattr(run, "publish_changed", refuse)
    monkeypatch.setattr(lifecycle, "print_report", lambda settings: told.append("table"))
    monkeypatch.setattr(lifecycle, "check_current", stale)
    assert run.run([]) == GateError.code
    assert told == ["publish", "table", "check"]
    errors = capsys.readouterr().err
    assert errors == "run: the ONNX file is another\nrun: after the run dvc status still names download\n"


def test_unknown_target_is_refused_with_the_allowed_ones(project: Path) -> None:
    from pipelines.run import check_targets

    with pytest.raises(InputError, match=r"^tarin is no target; allowed: download, train, zeta, alpha"):
        check_targets(["tarin"], ["zeta", "alpha"])
