"""Five interruptions of a training, each of another kind, end as an undisturbed run."""

from pathlib import Path

import pytest

from tests.conftest import tiny_params
from tests.drill.interruptions import DOORS, drill
from tests.drill.project import MODEL, prepare_project

SEED = 4


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_five_interruptions_change_nothing(tmp_path: Path) -> None:
    params = tiny_params()
    params["models"][MODEL] |= {"budget_kimg": 6, "tick_kimg": 0.5, "checkpoint_kimg": 1}
    trials = drill(prepare_project(tmp_path, params, (f"train@{MODEL}",)), 5, SEED, DOORS)
    assert {trial.kind for trial in trials} == {"SIGKILL", "SIGTERM", "SIGINT", "full disk"}
    assert {trial.door for trial in trials} == set(DOORS)
    assert [trial.problems for trial in trials] == [[]] * 5
    assert all(trial.first_code for trial in trials)
