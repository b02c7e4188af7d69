"""Two processes that train one diffusion model: what one with the whole batch learns."""

import json
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

from tests.stages.test_train_diffusion import TRAINING, select_ddpm, train

TWO = {"WORLD_SIZE": "2", "OMP_NUM_THREADS": "1"}


def learned() -> tuple[list[dict[str, float]], dict[str, np.ndarray]]:
    curve = json.loads((TRAINING / "curve.json").read_text())
    return curve, load_file(TRAINING / "weights/unet/diffusion_pytorch_model.safetensors")


@pytest.mark.parametrize("condition", ["none", "class"])
def test_two_processes_learn_what_one_does(workspace, run_stage, monkeypatch: pytest.MonkeyPatch, condition: str):
    select_ddpm(Path.cwd(), dropout=0, condition=condition, budget_kimg=0.256)
    train(run_stage)
    curve, weights = learned()
    for name, value in TWO.items():
        monkeypatch.setenv(name, value)
    select_ddpm(Path.cwd(), dropout=0, condition=condition, budget_kimg=0.256, seed=0, tick_kimg=0.064)
    train(run_stage)
    record = json.loads((TRAINING / "record.json").read_text())
    assert [machine["processes"] for machine in record["machines"]] == [2]
    two_curve, two_weights = learned()
    by_kimg = {row["kimg"]: row for row in two_curve}
    for row in curve:
        print(row, by_kimg[row["kimg"]])
    print(max(np.abs(weights[name] - two_weights[name]).max() for name in weights))
