"""Minibatch groups and what shows or cuts batches: each process, part and report sees whole groups, or is refused."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest

from stages.errors import InputError
from stages.trainer.adversarial.learner import check_groups
from stages.trainer.adversarial.overfitting import OverfittingWatch
from stages.trainer.job import Job
from stages.trainer.world import World
from tests.unit.gans import NONE, SIZE, game, tiny


class Shown:
    """What a data set shows the watch on overfitting."""

    def __init__(self, count: int) -> None:
        self.pixels = np.zeros((count, SIZE, SIZE, 3), np.uint8)

    def __len__(self) -> int:
        return len(self.pixels)


@pytest.mark.parametrize(("holdout", "seen"), [(10, 8), (3, 3), (40, 40), (1, 0)])
def test_the_watch_on_overfitting_shows_whole_minibatch_groups(holdout: int, seen: int):
    """Of ten hold-out pictures in groups of four it shows eight; fewer than a group are one."""
    players = game("stylegan2", minibatch_group=4)
    watch = OverfittingWatch(Shown(50), Shown(holdout), players.settings)  # type: ignore[arg-type]
    assert watch.count == seen
    assert set(watch.mean_logits(players, 0)) == (
        {"train_logit", "holdout_logit", "generated_logit"} if seen else set()
    )


def job(parts: int = 1, **changes: Any) -> Job:
    world = cast(World, SimpleNamespace(size=parts))
    return Job("x", "models.x", tiny("stylegan2", **changes), Path(), Path(), NONE, world)


@pytest.mark.parametrize(
    ("parts", "changes", "words"),
    [
        (1, {"batch": 12, "minibatch_group": 8}, "minibatch_group is 8, which does not divide the 12 pictures"),
        (2, {"batch": 12, "minibatch_group": 4}, "minibatch_group is 4, which does not divide the 6 pictures"),
        (1, {"batch": 12, "accumulation": 2}, "minibatch_group is 4, which does not divide the 6 pictures"),
        (
            1,
            {"batch": 12, "batch_start": 3, "batch_ramp_kimg": 1},
            "minibatch_group is 4, which does not divide the 6 pictures",
        ),
        (2, {"batch": 16, "batch_start": 1, "batch_ramp_kimg": 1}, "batch_start is 1, which 2 processes"),
    ],
)
def test_parts_that_groups_do_not_divide_are_refused_before_training(parts: int, changes: dict[str, Any], words: str):
    with pytest.raises(InputError, match=rf"^models\.x\.{words}"):
        check_groups(job(parts, **changes))


def test_parts_that_groups_divide_are_accepted():
    check_groups(job(2, batch=8, minibatch_group=4))
    check_groups(job(4, batch=8, minibatch_group=4))  # two pictures each are one group
    check_groups(job(1, batch=16, batch_start=4, batch_ramp_kimg=1))
    check_groups(job(1, batch=12, minibatch_group=8, minibatch_stddev=False))
    check_groups(job(16, batch=12))  # refused for all families elsewhere
