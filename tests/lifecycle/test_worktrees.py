"""Two trainings at the same time: two Git worktrees of one project, one DVC cache, one MLflow database."""

import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from tests.lifecycle.project import (
    RUN_SECONDS,
    assert_current,
    assert_nothing_left,
    commit,
    environment,
    git,
    runner_in,
)

MODELS = ("dcgan", "dcgan_bilinear")
pytestmark = [pytest.mark.timeout(RUN_SECONDS * 3), pytest.mark.slow]


@pytest.fixture
def worktrees(data_project: Path) -> list[Path]:
    """A project with two models and its data, and a second worktree of it that shares its cache."""
    second = data_project.parent / "second"
    params = yaml.safe_load((data_project / "params.yaml").read_text())
    params["select"]["dcgan_bilinear"] = dict(params["select"]["dcgan"])
    params["models"]["dcgan_bilinear"] = params["models"]["dcgan"] | {"upsample": "bilinear"}
    (data_project / "params.yaml").write_text(yaml.safe_dump(params, sort_keys=False))
    commit(data_project)
    git(data_project, "worktree", "add", "--quiet", "--detach", str(second))
    done = runner_in(second)("dvc", "cache", "dir", "--local", str(data_project / ".dvc/cache"))
    assert done.returncode == 0, done.stderr
    return [data_project, second]


def test_two_models_train_at_once_and_each_worktree_ends_with_both(worktrees: list[Path]) -> None:
    tracking = f"sqlite:///{worktrees[0].parent / 'mlflow.db'}"
    runs = [
        subprocess.Popen(
            [sys.executable, "-m", "pipelines.run", model],
            cwd=worktree,
            env=environment(worktree, MLFLOW_TRACKING_URI=tracking, CUDA_VISIBLE_DEVICES=str(number)),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for number, (worktree, model) in enumerate(zip(worktrees, MODELS, strict=True))
    ]
    told = [run.communicate(timeout=RUN_SECONDS)[0] for run in runs]
    assert [run.returncode for run in runs] == [0, 0], "\n".join(told)
    for text, model in zip(told, MODELS, strict=True):
        trained = [line for line in text.splitlines() if line.startswith("> exec python -m stages.")]
        assert trained[0] == f"> exec python -m stages.train {model}"  # the data came from the cache
        assert {line.split()[-1] for line in trained} == {model}

    for worktree in worktrees:  # each takes the other's results from the cache
        done = runner_in(worktree)("pipelines.run", MLFLOW_TRACKING_URI=tracking)
        assert done.returncode == 0, done.stdout + done.stderr
        assert "> exec python -m stages." not in done.stdout
        assert_current(runner_in(worktree))
        assert_nothing_left(worktree)
    locks = [yaml.safe_load((worktree / "dvc.lock").read_text()) for worktree in worktrees]
    assert locks[0] == locks[1]
    with sqlite3.connect(worktrees[0].parent / "mlflow.db") as database:
        query = "SELECT value FROM tags WHERE key = 'training.model'"
        assert sorted(name for (name,) in database.execute(query)) == sorted(MODELS)
