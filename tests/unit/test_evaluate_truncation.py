"""The truncation sweep: which values are tried of which generator, and what is drawn, shown and told of each."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from stages.errors import InputError
from stages.evaluate.table import sampling_table
from stages.evaluate.unseen.sampling import ROWS
from stages.generators.adversarial import untrained
from stages.generators.interface import Capabilities, Generator, Request
from tests.unit.stylegan2_networks import config as stylegan2
from tests.unit.test_evaluate_sampling import NAMES, SIZE, settings, trials

BIGGAN = {"family": "biggan", "latent": 8, "width": 4, "shared_embedding": 4, "attention": 0, "spectral_norm": False}


class Shrunk(Generator):
    """Draws the latent's first three numbers as colours, made smaller by truncation; notes each request."""

    identity: dict[str, str] = {}

    def __init__(self, log: list[Request], default: float = 1.0, **takes: Any) -> None:
        self.capabilities = Capabilities("s", (3,), SIZE, 3, truncation=True, default_truncation=default, **takes)
        self.log = log

    def generate(self, request: Request) -> np.ndarray:
        self.log.append(request)
        share = request.truncations(self.capabilities) / self.capabilities.default_truncation
        colours = np.clip(0.4 * share[:, None] * request.latent, -1, 1)
        return np.ones((len(colours), 3, SIZE, SIZE), np.float32) * colours[:, :, None, None]


def test_values_are_tried_in_order_up_to_the_model_s_own() -> None:
    log: list[Request] = []
    found = trials(Shrunk(log), truncation=[2, 0.5, 0, 1], count=20).all()
    assert [row["truncation"] for row in found.part["truncation"]] == [0.0, 0.5, 1.0]
    assert [request.truncation for request in log] == [0.0, 0.5, None]  # 1 is its own, 2 would truncate nothing
    assert found.part["default_truncation"] == 1.0
    assert "default_steps" not in found.part and "default_guidance" not in found.part


def test_bounds_of_latents_are_tried_up_to_one_that_bounds_nothing() -> None:
    found = trials(Shrunk([], default=10.0), truncation=[0, 0.5, 2], count=20).all()
    assert [row["truncation"] for row in found.part["truncation"]] == [0.0, 0.5, 2.0, 10.0]


def test_each_value_draws_the_same_seeds_and_classes() -> None:
    log: list[Request] = []
    trials(Shrunk(log, class_names=NAMES), truncation=[0.3, 0.7], count=20).all()
    swept = [request for request in log if len(request.latent) == 20]
    assert len(swept) == 3
    for request in swept:
        np.testing.assert_array_equal(request.latent, swept[0].latent)
        np.testing.assert_array_equal(request.extra["label"], swept[0].extra["label"])
    assert set(swept[0].extra["label"].tolist()) == {0, 1, 2}


def test_sheet_and_scores_go_from_one_picture_to_many() -> None:
    found = trials(Shrunk([]), truncation=[0, 0.5], count=40).all()
    sheet = found.sheets["truncation"]
    assert sheet.shape == (ROWS, 3, SIZE, SIZE, 3)
    assert (sheet[:, 0] == sheet[:1, 0]).all()  # nothing is left of the seeds
    spread = sheet.astype(float).std(axis=0).mean(axis=(1, 2, 3))
    assert spread[0] == 0 < spread[1] < spread[2]
    rows = found.part["truncation"]
    assert set(rows[0]) == {"truncation", "fd", "precision", "recall", "clipped"}
    assert rows[0]["recall"] == 0
    json.dumps(found.part, allow_nan=False)


def test_generators_without_truncation_and_empty_settings_have_no_sweep() -> None:
    log: list[Request] = []
    plain = Shrunk(log)
    plain.capabilities = Capabilities("plain", (3,), SIZE, 3)
    found = trials(plain, truncation=[0, 0.5], count=20).all()
    assert found.part == {} and found.sheets == {} and log == []
    found = trials(Shrunk(log), truncation=[], count=20).all()
    assert found.part == {} and found.sheets == {} and log == []


@pytest.mark.parametrize(
    ("config", "values"), [({"family": "stylegan2"}, [0.0, 0.5, 1.0]), (BIGGAN, [0.0, 0.5, 1.5, 10.0])]
)
def test_truncation_0_is_one_picture_of_a_class_in_networks_that_truncate(
    config: dict[str, Any], values: list[float]
) -> None:
    made = stylegan2(resolution=SIZE, class_names=["cat", "dog"]) | config
    found = trials(untrained(made, 0, Path()), truncation=[0, 0.5, 1.5], count=40).all()
    assert [row["truncation"] for row in found.part["truncation"]] == values
    first, *_, last = found.sheets["truncation"].swapaxes(0, 1)
    assert len(np.unique(first.reshape(ROWS, -1), axis=0)) <= 2 < len(np.unique(last.reshape(ROWS, -1), axis=0))


def test_times_are_told_by_truncation_alone() -> None:
    head = sampling_table(trials(Shrunk([]), truncation=[0], count=20).all().seconds).splitlines()[2]
    assert head.split() == ["truncation", "fd", "precision", "recall", "cpu_seconds"]


@pytest.mark.parametrize(
    ("value", "words"), [(-0.1, "evaluate.sampling.truncation.1 is -0.1"), (float("inf"), "truncation.1 is inf")]
)
def test_impossible_values_are_named(value: float, words: str) -> None:
    with pytest.raises(InputError, match=words):
        settings(truncation=[0.5, value])
