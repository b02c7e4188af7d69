"""Alerts of a training's health: what the pictures show, over windows, and what to try."""

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from accelerate import Accelerator
from torch import Tensor

from stages.generators.noise import latents
from stages.settings.augment import AugmentSettings
from stages.settings.diffusion import DiffusionSettings
from stages.settings.gans import GANS
from stages.settings.models import TrainingSettings
from stages.trainer.adversarial.learner import GanLearner, separation_of
from stages.trainer.health import (
    COLLAPSED,
    FAR,
    FRESH,
    GROWN,
    LONG,
    SYMPTOMS,
    WINDOW,
    Likeness,
    find_alerts,
    shrink,
)
from stages.trainer.job import Job
from stages.trainer.objectives import OBJECTIVES
from stages.trainer.world import World
from tests.unit.denoising import random_pictures, write_images
from tests.unit.gans import NONE, shaken, tiny

TICK = 50  # steps of the generator
FIRST = -(-FRESH // TICK) - 1  # the row, from 0 on, at which a training is no longer fresh
HEALTHY: dict[str, Any] = {
    "diversity": 0.9,
    "gap": 0.3,
    "nearest": 2.0,
    "separation": 0.6,
    "real_logit": 1.0,
    "fake_logit": -1.0,
    "gradient_generator": 5.0,
    "gradient_discriminator": 20.0,
}


LOGITS = {key: HEALTHY[key] for key in ("real_logit", "fake_logit")}


def curve(ticks: int, **changes: Any) -> list[dict[str, Any]]:
    """Return rows of a healthy training with some values changed: to a constant, or by a function of the row."""
    rows = []
    for number in range(ticks):
        found = {key: value(number) if callable(value) else value for key, value in changes.items()}
        row = HEALTHY | found | {"kimg": number + 1, "generator_steps": (number + 1) * TICK}
        rows.append({key: value for key, value in row.items() if value is not None})
    return rows


def names(rows: list[dict[str, Any]]) -> list[tuple[str, int]]:
    """Return the alerts of a curve with their row."""
    return [(alert["alert"], alert["kimg"] - 1) for alert in find_alerts(rows)]


def pictures(count: int, seed: int = 0, size: int = 32) -> Tensor:
    """Return pictures of four flat quarters in random colours, of a distribution that is the same for every seed."""
    random = torch.Generator().manual_seed(seed)
    return (
        (torch.rand(count, 3, 2, 2, generator=random) * 2 - 1)
        .repeat_interleave(size // 2, 2)
        .repeat_interleave(size // 2, 3)
    )


def compare(generated: Tensor, real: Tensor) -> dict[str, float]:
    return Likeness(shrink(real)).compare(shrink(generated))


def test_the_gap_is_zero_between_samples_of_one_distribution_and_one_for_the_mean_picture():
    real = pictures(256)
    assert compare(pictures(256, seed=1), real)["gap"] == pytest.approx(0, abs=0.02)
    assert compare(real.mean(0, keepdim=True).repeat(16, 1, 1, 1), real)["gap"] == pytest.approx(1)
    assert compare(real[:1].repeat(16, 1, 1, 1), real)["gap"] > 1.5  # one sharp picture is further off than the mean
    assert 0.1 < compare(0.5 * pictures(256, seed=1), real)["gap"] < 0.5  # half the contrast


def test_the_gap_is_the_energy_distance_by_hand():
    real, generated = pictures(3, size=16), pictures(2, seed=1, size=16)
    between = sum(float((a - b).norm()) for a in generated for b in real) / 6
    within = sum(float((real[a] - real[b]).norm()) for a, b in ((0, 1), (0, 2), (1, 2))) / 3
    of_mean = sum(float((real.mean(0) - b).norm()) for b in real) / 3
    expected = (2 * between - float((generated[0] - generated[1]).norm()) - within) / (2 * of_mean - within)
    assert compare(generated, real)["gap"] == pytest.approx(expected, rel=1e-5)


def test_nearest_shows_repeated_pictures_that_diversity_does_not():
    real = pictures(128)
    assert compare(pictures(128, seed=1), real)["nearest"] == pytest.approx(1, abs=0.1)
    few = compare(pictures(4, seed=1).repeat(32, 1, 1, 1), real)
    assert few["nearest"] == pytest.approx(0, abs=1e-6)
    assert few["gap"] < FAR  # four sharp pictures in turn: nothing else tells
    assert compare(torch.zeros(8, 3, 32, 32), real)["nearest"] == 0


def test_pictures_are_compared_alike_at_every_resolution():
    small, large = (compare(pictures(32, 1, size), pictures(64, 0, size)) for size in (16, 128))
    assert small == pytest.approx(large)
    assert compare(pictures(32, 1, 8), pictures(64, 0, 8))["gap"] == pytest.approx(small["gap"])
    grain = torch.tensor([1.0, -1.0]).repeat(16)
    grainy = compare(pictures(32, 1) + grain * grain[:, None], pictures(64))  # too fine for 16 pixels
    assert grainy == pytest.approx(small, rel=1e-4)
    faint = compare(pictures(32, 1) / 1000, pictures(64) / 1000)
    assert faint == pytest.approx(small, rel=1e-4)  # nor does contrast matter


def test_healthy_rows_give_no_alert_however_long():
    assert find_alerts(curve(60)) == []
    assert find_alerts(curve(60, separation=0.99)) == []  # pictures are good: let it separate


@pytest.mark.parametrize("key", ["diversity", "nearest"])
def test_a_collapse_lasts_a_window_and_is_told_once(key: str):
    late = FIRST + 10
    assert find_alerts(curve(30, **{key: lambda row: 0.1 if late <= row < late + WINDOW - 1 else 1.0})) == []
    (alert,) = find_alerts(curve(30, **{key: lambda row: 0.1 if late <= row else 1.0}))
    assert (alert["alert"], alert["kimg"] - 1, alert[key]) == ("collapse", late + WINDOW - 1, 0.1)
    assert find_alerts(curve(30, **{key: COLLAPSED + 0.01})) == []


def test_a_generator_that_has_just_begun_is_not_judged():
    fresh = curve(30, diversity=lambda row: 0.1 if row < FIRST else 0.9, gap=lambda row: 2.0 if row < FIRST else 0.5)
    assert find_alerts(fresh) == []
    assert ("collapse", FIRST) in names(curve(30, diversity=0.1))
    without_steps = [{key: value for key, value in row.items() if key != "generator_steps"} for row in fresh]
    assert names(without_steps)[0] == ("collapse", WINDOW - 1)  # as of a denoiser


def test_an_episode_that_flickers_is_told_once_and_a_second_one_again():
    first = FIRST + 5
    bad = {*range(first, first + 4), *range(first + 5, first + 9), *range(first + 20, first + 25)}
    found = names(curve(60, diversity=lambda row: 0.1 if row in bad else 0.9))
    assert found == [("collapse", first + WINDOW - 1), ("collapse", first + 20 + WINDOW - 1)]


def test_the_discriminator_wins_only_where_pictures_do_not_get_better():
    flat = curve(30, separation=0.99, gap=lambda row: 2 + 0.1 * (row % 2))
    assert names(flat) == [("discriminator wins", max(FIRST, 2 * LONG - 1))]
    assert find_alerts(flat)[0]["separation"] == 0.99
    assert find_alerts(curve(30, separation=0.99, gap=lambda row: 3 * 0.95**row)) == []  # slow, but on its way
    assert "discriminator wins" not in dict(names(curve(30, separation=0.9, gap=2.0)))


def test_a_discriminator_that_sees_no_difference_is_told_apart_from_one_that_wins():
    found = names(curve(30, separation=0.02, gap=lambda row: 2 + 0.1 * (row % 2)))
    assert found == [("discriminator learns nothing", max(FIRST, 2 * LONG - 1))]
    assert find_alerts(curve(30, separation=0.02)) == []  # nor need it, where pictures are good
    neither = curve(30, separation=0.3, gap=lambda row: 2 + 0.1 * (row % 2))
    assert [name for name, _ in names(neither)] == ["generator stalls"]


def test_a_critic_without_separation_can_still_leave_the_generator_behind():
    found = names(curve(30, separation=None, gap=lambda row: 2 + 0.1 * (row % 2)))
    assert found == [("generator stalls", max(FIRST, 2 * LONG - 1))]


def test_pictures_that_stand_still_are_a_stall_even_if_the_discriminator_wins():
    still = curve(30, separation=0.99, gap=2.0, diversity=0.1)  # as alike as an untrained network draws them
    assert {name for name, _ in names(still)} == {"discriminator wins", "generator stalls"}


def test_a_gradient_that_vanishes_is_told_before_the_generator_could_be_judged():
    vanished = {"gap": lambda row: 3 - 0.2 * row, "gradient_generator": lambda row: 5.0 if row < 4 else 0.01}
    assert names(curve(7, **vanished)) == [("generator stalls", 4 + WINDOW - 1)]
    assert find_alerts(curve(7, **vanished | {"gap": 0.2})) == []  # nothing left to learn
    sparse = vanished | {"gradient_generator": lambda row: (5.0 if row < 4 else 0.01) if row % 2 == 0 else None}
    assert [name for name, _ in names(curve(8, **sparse))] == ["generator stalls"]  # not every tick looks at norms


def test_pictures_that_get_much_worse_diverge():
    found = names(curve(30, gap=lambda row: 0.3 if row < 15 else 1.5))
    assert found[0] == ("diverges", 15 + WINDOW - 1)
    assert find_alerts(curve(30, gap=lambda row: 0.2 if row < 15 else 0.6)) == []  # three times, but still near
    assert find_alerts(curve(30, gap=lambda row: 2.0 if row == 15 else 0.3)) == []
    assert find_alerts(curve(30, gap=lambda row: 2.0 if 15 <= row < 14 + WINDOW else 0.3)) == []


@pytest.mark.parametrize(
    ("key", "told"),
    [("real_logit", "real_logit"), ("gradient_generator",) * 2, ("gradient_discriminator",) * 2],
)
def test_values_that_outgrow_all_they_were_diverge(key: str, told: str):
    grown = HEALTHY[key] * 3 * GROWN
    (alert,) = find_alerts(curve(20, **{key: lambda row: grown if row >= 10 else HEALTHY[key]}))
    assert (alert["alert"], alert["kimg"] - 1, alert[told]) == ("diverges", 10 + WINDOW - 1, grown)
    assert find_alerts(curve(20, **{key: lambda row: grown if row in (10, 11) else HEALTHY[key]})) == []
    assert find_alerts(curve(60, **{key: lambda row: HEALTHY[key] * 1.15**row})) == []  # to the thousandfold, slowly


def test_logits_of_a_critic_may_be_anywhere():
    moved = curve(40, **{key: lambda row, at=at: at + 1000.0 * (row > 9) for key, at in LOGITS.items()})
    assert find_alerts(moved) == []


def test_a_discriminator_that_recovers_from_certainty_is_no_divergence():
    certain = curve(40, gradient_discriminator=lambda row: 0.001 if 10 <= row < 20 else 20.0)
    assert find_alerts(certain) == []


def test_curves_of_earlier_versions_are_read():
    old = [{key: row[key] for key in ("kimg", "diversity", "separation")} for row in curve(20, separation=0.99)]
    assert find_alerts(old) == []
    assert find_alerts([]) == []


def test_advice_names_settings_that_there_are():
    models: list[type[TrainingSettings]] = [*GANS.values(), DiffusionSettings]
    known = {name for model in models for name in model.model_fields} | set(OBJECTIVES)
    known |= {f"augment.{name}" for name in AugmentSettings.model_fields}
    for symptom in SYMPTOMS:
        named = re.findall(r"\b(?:augment\.[a-z]+|[a-z0-9]+(?:_[a-z0-9]+)+)\b", symptom.advice)
        assert named, symptom.name
        assert set(named) <= known, (symptom.name, set(named) - known)


def test_separation_is_of_outputs_where_zero_is_no_border():
    row = {"real_sign": 0.9, "fake_sign": -0.7, "real_logit": 0.95, "fake_logit": 0.05}
    assert separation_of(row, "non_saturating") == separation_of(row, "hinge") == pytest.approx(0.8)
    assert separation_of(row, "least_squares") == pytest.approx(0.9)
    assert separation_of(row, "wasserstein") is None and separation_of(row, "relativistic") is None


def open_learner(folder: Path, **changes: Any) -> GanLearner:
    """Return a learner of 20 pictures in three classes, with weights that draw more than grey."""
    images = write_images(folder, random_pictures(20), np.arange(20) % 3, ["a", "b", "c"])
    settings = tiny("cgan", **changes)
    learner = GanLearner(Job("x", "models.x", settings, images, images, NONE, World(Accelerator(cpu=True))), settings)
    shaken(learner.adversaries)
    return learner


def test_a_row_compares_what_the_trained_generator_draws_of_the_same_classes(tmp_path: Path):
    learner = open_learner(tmp_path)
    with torch.no_grad():
        for weight in learner.adversaries.average.parameters():
            weight.zero_()  # it must not be the average that is judged
        generator = learner.adversaries.generator.eval()
        drawn = generator(torch.from_numpy(latents(range(20), (8,))), torch.arange(20) % 3)
    expected = compare(drawn, learner.real_pictures(20))
    row = learner.finish_row({"real_sign": 0.5, "fake_sign": -0.5}, 0)
    assert {key: row[key] for key in ("gap", "nearest", "separation")} == pytest.approx(expected | {"separation": 0.5})
    assert generator.training


def test_a_row_counts_the_steps_of_the_generator_also_after_a_restart(tmp_path: Path):
    learner = open_learner(tmp_path, discriminator_steps=3)
    for number in range(7):
        learner.step(np.arange(8), 8 * number)
    assert learner.finish_row({"real_sign": 0.0, "fake_sign": 0.0}, 56)["generator_steps"] == 2
    again = open_learner(tmp_path, discriminator_steps=3)
    again.restore(learner.export_state(56, {}))
    assert again.finish_row({"real_sign": 0.0, "fake_sign": 0.0}, 56) == learner.finish_row(
        {"real_sign": 0.0, "fake_sign": 0.0}, 56
    )
