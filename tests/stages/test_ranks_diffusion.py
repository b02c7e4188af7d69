"""Two processes that train one diffusion model: what one with the whole batch learns."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.stages.test_train_diffusion import TRAINING, select_ddpm, train

TWO = {"WORLD_SIZE": "2", "OMP_NUM_THREADS": "1"}


def learned() -> tuple[list[dict[str, float]], np.ndarray, int]:
    """Return the curve, the last grid and how many processes trained."""
    curve = json.loads((TRAINING / "curve.json").read_text())
    record = json.loads((TRAINING / "record.json").read_text())
    (machine,) = record["machines"]
    last = sorted((TRAINING / "samples").iterdir())[-1]
    return curve, np.asarray(Image.open(last), np.int16), machine["processes"]


@pytest.mark.slow
def test_two_processes_learn_what_one_does(workspace, run_stage, monkeypatch: pytest.MonkeyPatch):
    """Sums of floats in another order: the same curve and pictures, as far as they are written."""
    select_ddpm(Path.cwd(), dropout=0, condition="class", budget_kimg=0.256)
    train(run_stage)
    curve, grid, processes = learned()
    assert processes == 1
    shutil.rmtree(".work")
    for name, value in TWO.items():
        monkeypatch.setenv(name, value)
    train(run_stage)
    two_curve, two_grid, processes = learned()
    assert processes == 2
    assert [row["kimg"] for row in curve] == [0.128, 0.256]
    for row, other in zip(curve, two_curve, strict=True):
        assert row == pytest.approx(other, rel=1e-4)
    assert np.abs(grid - two_grid).max() <= 1
    assert grid.std() > 30
