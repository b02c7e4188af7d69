"""Other ways to sample: what a generator that takes guidance, steps or conditions is asked for, and what is told."""

import json
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
import torch

from stages.errors import InputError
from stages.evaluate.inputs import Pictures
from stages.evaluate.scoring import Measured, asked_for_the_data, held
from stages.evaluate.table import sampling_table
from stages.evaluate.unseen.sampling import ROWS, Sampling, Trials, clipped, evaluations
from stages.generators.interface import Capabilities, Generator, Request
from stages.metrics.features import Extracted, PictureSet
from stages.settings.base import validated
from stages.settings.results import EvaluateSettings, SamplingSettings
from tests.conftest import tiny_params

SIZE = 8
NAMES = ("cat", "dog", "owl")


@dataclass
class Split:
    """A split of made-up pictures with labels and captions."""

    pixels: np.ndarray
    rows: list[dict[str, Any]]
    description: dict[str, Any] = field(default_factory=lambda: {"class_names": list(NAMES)})

    def __len__(self) -> int:
        return len(self.rows)


class Pixels:
    """A feature network whose features are 12 block means."""

    label, dimension, device, recipe = "blocks", 12, torch.device("cpu"), {"features": "blocks"}

    def classify(self, pictures: np.ndarray) -> tuple[np.ndarray, None]:
        blocks = pictures.astype(np.float32).reshape(len(pictures), 3, 2, 4, 2, 4).mean(axis=(3, 5))
        return blocks.reshape(len(pictures), 12), None


class Stepped(Generator):
    """Draws noise times guidance around the label's grey; notes each request with its steps."""

    identity: dict[str, str] = {}

    def __init__(self, log: list[tuple[int | None, Request]], **takes: Any) -> None:
        self.stochastic = takes.pop("stochastic", False)
        shape = (takes["steps"], 3) if self.stochastic else (3,)
        self.capabilities = Capabilities("stepped", shape, SIZE, 3, **takes)
        self.log = log

    def generate(self, request: Request) -> np.ndarray:
        takes = self.capabilities
        assert request.latent.shape[1:] == takes.latent_shape
        self.log.append((takes.steps, request))
        guidance = takes.default_guidance if request.guidance is None else request.guidance
        label = request.extra.get("label", np.zeros(len(request.latent)))[:, None, None, None]
        noise = request.latent.reshape(len(request.latent), -1)[:, :3, None, None]
        rough = np.random.default_rng(0).normal(0, 0.05, (len(noise), 3, SIZE, SIZE))
        return np.clip(0.3 * label - 0.3 + 0.2 * guidance * noise + rough, -1, 1).astype(np.float32)

    def resampled(self, steps: int | None, sampler: str | None) -> "Stepped":
        if steps == 7:
            raise InputError("steps: found 7, expected a divisor of 1000")
        known = {"class_names": self.capabilities.class_names, "guidance": self.capabilities.guidance}
        known |= {"prompt": self.capabilities.prompt, "default_guidance": self.capabilities.default_guidance}
        return Stepped(self.log, **known, steps=steps, stochastic=self.stochastic)


def split(count: int, seed: int, captions: bool = True) -> Any:
    pixels = np.random.default_rng(seed).integers(0, 256, (count, SIZE, SIZE, 3), np.uint8)
    rows = [{"label": n % 3, "caption": f"picture {n}" if captions else None} for n in range(count)]
    return Split(pixels, rows)


def settings(**sampling: Any) -> EvaluateSettings:
    raw = tiny_params()["evaluate"] | {"sampling": sampling}
    return validated(EvaluateSettings, raw, "evaluate")


def trials(generator: Generator, captions: bool = True, **sampling: Any) -> Trials:
    train, holdout = split(40, 0, captions), split(30, 1, captions)
    network: Any = Pixels()
    found: Any = {
        role: Extracted(network.classify(one.pixels.transpose(0, 3, 1, 2))[0], None)
        for role, one in (("train", train), ("holdout", holdout))
    }
    measured = Measured({}, PictureSet("m", 0, lambda: iter(())), {network.label: found}, {})
    return Trials(settings(**sampling), Pictures(train, holdout, False), generator, network, measured)


def test_a_plain_generator_is_asked_for_nothing() -> None:
    log: list = []
    assert trials(Stepped(log)).all() == Sampling({}, {}, [])
    assert log == []


def test_each_strength_of_guidance_draws_the_same_seeds_and_classes() -> None:
    log: list = []
    generator = Stepped(log, class_names=NAMES, guidance=True, default_guidance=3.0, steps=4)
    found = trials(generator, guidance=[1, 3, 15], steps=[], count=20).all()
    asked = [(steps, request) for steps, request in log if len(request.latent) == 20]
    assert [request.guidance for _, request in asked] == [1.0, None, 15.0]  # 3 is its own
    for steps, request in asked:
        assert steps == 4
        np.testing.assert_array_equal(request.latent, asked[0][1].latent)
        np.testing.assert_array_equal(request.extra["label"], asked[0][1].extra["label"])
    assert len(set(asked[0][1].extra["label"].tolist())) == 3
    rows = found.part["guidance"]
    assert [row["guidance"] for row in rows] == [1.0, 3.0, 15.0]
    assert [row["evaluations"] for row in rows] == [4, 8, 8]
    assert rows[0]["clipped"] < 0.01 < rows[1]["clipped"] < rows[2]["clipped"] < 1
    assert found.sheets["guidance"].shape == (ROWS, 3, SIZE, SIZE, 3)
    assert not np.array_equal(found.sheets["guidance"][:, 0], found.sheets["guidance"][:, 2])
    assert "steps" not in found.part and "steps" not in found.sheets


def test_steps_include_the_model_s_own_and_those_that_a_sampler_cannot_walk_say_so() -> None:
    log: list = []
    found = trials(Stepped(log, steps=4, stochastic=True), steps=[2, 7, 9], count=20).all()
    assert [steps for steps, _ in log] == [2, 4, 9]
    rows = found.part["steps"]
    assert [row["steps"] for row in rows] == [2, 4, 7, 9]
    assert rows[2] == {"steps": 7, "evaluations": 7, "absent": "steps: found 7, expected a divisor of 1000"}
    assert found.sheets["steps"].shape == (ROWS, 3, SIZE, SIZE, 3)
    assert set(rows[0]) == {"steps", "evaluations", "fd", "precision", "recall", "clipped"}
    assert found.part["default_steps"] == 4 and "default_guidance" not in found.part
    assert found.part["real"]["fd"] < rows[0]["fd"]
    assert "guidance" not in found.part and "classes" not in found.sheets


def test_the_own_way_is_drawn_once_for_both_tables() -> None:
    log: list = []
    generator = Stepped(log, prompt=True, guidance=True, default_guidance=2.0, steps=4)
    found = trials(generator, captions=False, guidance=[5], steps=[2], count=20).all()
    assert sorted((steps, request.guidance or 2.0) for steps, request in log) == [(2, 2.0), (4, 2.0), (4, 5.0)]
    guided, stepped = (
        next(row for row in found.part[name] if row[name] == value) for name, value in (("guidance", 2), ("steps", 4))
    )
    assert guided["fd"] == stepped["fd"]
    assert "prompts" not in found.sheets  # no captions, nothing to show


def test_scores_hold_no_times_and_repeat_byte_for_byte() -> None:
    def run() -> Sampling:
        return trials(Stepped([], guidance=True, steps=4, class_names=NAMES), steps=[2], count=20).all()

    first, second = run(), run()
    assert json.dumps(first.part, allow_nan=False) == json.dumps(second.part)
    assert "seconds" not in json.dumps(first.part)
    assert all(row["cpu_seconds"] >= 0 for row in first.seconds) and len(first.seconds) == 6
    assert "cpu_seconds" in sampling_table(first.seconds)
    for name, sheet in first.sheets.items():
        assert sheet.tobytes() == second.sheets[name].tobytes()


def test_classes_and_prompts_are_shown_for_the_same_noise() -> None:
    log: list = []
    many = NAMES + tuple(f"class {n}" for n in range(22))
    found = trials(Stepped(log, class_names=many)).all()
    assert found.part["classes"] == [many[n * 25 // 10] for n in range(10)]
    assert found.sheets["classes"].shape == (ROWS, 10, SIZE, SIZE, 3)
    assert [request.extra["label"].tolist() for _, request in log] == [[n * 25 // 10] * ROWS for n in range(10)]
    assert all(np.array_equal(request.latent, log[0][1].latent) for _, request in log)
    log.clear()
    found = trials(Stepped(log, prompt=True)).all()
    assert found.part["prompts"] == [f"picture {n}" for n in (0, 5, 10, 15, 20, 25)]
    assert [list(request.prompts) for _, request in log] == [[text] * ROWS for text in found.part["prompts"]]


def test_numbers_that_are_not_finite_leave_a_row_that_says_so() -> None:
    class Diverging(Stepped):
        def generate(self, request: Request) -> np.ndarray:
            drawn = super().generate(request)
            return drawn * np.nan if request.guidance == 15 else drawn

    found = trials(Diverging([], guidance=True), guidance=[15], count=20).all()
    assert found.part["guidance"][1] == {"guidance": 15.0, "absent": "it draws NaN or infinity"}
    assert found.sheets["guidance"].shape[1] == 1


def test_counts_never_exceed_what_is_scored() -> None:
    log: list = []
    found = trials(Stepped(log, steps=4), steps=[2], count=300).all()
    assert found.part["count"] == 64 == sum(len(request.latent) for steps, request in log if steps == 2)
    assert max(len(request.latent) for _, request in log) == 32  # evaluate.batch


def test_evaluations_double_under_guidance() -> None:
    assert [evaluations(20, guidance) for guidance in (1, 1.0, 3.0)] == [20, 20, 40]


def test_clipped_values_are_those_at_either_end() -> None:
    assert clipped(np.array([-1, 1, 0.999, 0], np.float32)) == 0.5


def test_a_held_set_is_made_once_whatever_is_read_of_it() -> None:
    made: list[int] = []

    def batches():
        for number in range(3):
            made.append(number)
            yield np.full((2, 3, 1, 1), number, np.uint8)

    found = held(PictureSet("m", 6, batches))
    assert next(found.batches())[0, 0, 0, 0] == 0
    first, second = (np.concatenate(list(found.batches())) for _ in range(2))
    np.testing.assert_array_equal(first, second)
    assert made == [0, 1, 2] and first[:, 0, 0, 0].tolist() == [0, 0, 1, 1, 2, 2]


def test_prompt_models_are_scored_on_the_hold_outs_captions() -> None:
    log: list = []
    pictures = Pictures(split(40, 0), split(30, 1), False)
    drawing, labels, notes = asked_for_the_data(settings(), pictures, Stepped(log, prompt=True))
    assert labels is None and notes == []
    list(drawing.draw(range(60), 25))
    prompts = [prompt for _, request in log for prompt in request.prompts]
    assert sorted(prompts[:30]) == sorted(row["caption"] for row in pictures.holdout.rows) != prompts[:30]
    assert prompts[30:] == prompts[:30]


@pytest.mark.parametrize(
    ("sampling", "words"),
    [
        ({"steps": [0]}, "evaluate.sampling.steps.0 is 0"),
        ({"guidance": [-1]}, "evaluate.sampling.guidance.0 is -1"),
        ({"count": 3}, "evaluate.sampling.count is 3"),
        ({"number": 3}, "evaluate.sampling.number: unknown setting; allowed: steps, guidance, truncation, count"),
    ],
)
def test_impossible_settings_are_named(sampling: dict[str, Any], words: str) -> None:
    with pytest.raises(InputError, match=words):
        settings(**sampling)


def test_older_settings_get_the_defaults() -> None:
    raw = tiny_params()["evaluate"]
    raw.pop("sampling", None)
    found = validated(EvaluateSettings, raw, "evaluate").sampling
    assert found == SamplingSettings(
        steps=[5, 10, 20], guidance=[1, 3, 5, 7.5, 15], truncation=[0, 0.3, 0.5, 0.7, 1, 2], count=300
    )
