"""augment as a stage: the policy that training obeys, its preview, and what it refuses."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from stages.augment.preview import GROUPS, preview_rows
from stages.augment.run import check_channels, policy
from stages.errors import InputError
from stages.settings import AugmentSettings
from stages.settings.augment import ADA_SETS
from stages.trainer.augmentation import Policy
from tests.conftest import tiny_params

ADA = {"kind": "ada", "transforms": "bgcfnc", "p": 0.0}


def settings(**changes: object) -> AugmentSettings:
    return AugmentSettings(**{**tiny_params()["augment"], **changes})


def test_the_policy_holds_what_training_obeys(workspace, run_stage, edit_params):
    edit_params(**{f"augment.{name}": value for name, value in (ADA | {"kimg": 100, "mirror": True}).items()})
    done = run_stage("augment")
    assert done.returncode == 0, done.stderr
    written = json.loads(Path("data/augment/policy.json").read_text())
    obeyed = Policy.read(written)
    assert obeyed.transforms == ADA_SETS["bgcfnc"]
    assert (obeyed.kind, obeyed.p, obeyed.adaptive, obeyed.kimg, obeyed.mirror) == ("ada", 0.0, True, 100, True)
    assert written["advice"] and all(f"augment: {line}" in done.stdout for line in written["advice"])


def test_the_preview_shows_strengths_and_each_group_alone(workspace, run_stage, edit_params):
    edit_params(**{f"augment.{name}": value for name, value in ADA.items()})
    assert run_stage("augment").returncode == 0
    sheet = np.asarray(Image.open("data/augment/preview.png"))[:, 90:]
    rows = np.array_split(sheet[2:-2], len(preview_rows(settings(**ADA))))
    assert len(rows) == 4 + len(GROUPS)
    changed = [np.abs(row[:60].astype(int) - rows[0][:60]).mean() for row in rows]
    assert changed[0] == 0
    assert min(changed[1:]) > 1
    first = np.asarray(Image.open("data/augment/preview.png"))
    assert run_stage("augment").returncode == 0
    assert (np.asarray(Image.open("data/augment/preview.png")) == first).all()


def test_rows_are_those_of_the_selected_transforms():
    labels = [label for label, _, _ in preview_rows(settings(**ADA | {"transforms": ["xflip", "hue", "noise"]}))]
    assert labels == ["p = 0.0", "p = 0.25", "p = 0.5", "p = 0.8", "blit, p = 1", "color, p = 1", "noise, p = 1"]
    assert len(preview_rows(settings())) == 4
    assert len(preview_rows(settings(kind="none"))) == 1


def test_no_augmentation_has_no_transforms_and_no_p():
    written = policy(settings(kind="none", p=0.7))
    assert (written["transforms"], written["p"]) == ([], 0.0)


@pytest.mark.parametrize(
    ("changes", "word"),
    [
        ({"transforms": ["color", "cutout"]}, "color"),
        ({"kind": "ada", "p": 0, "transforms": ["saturation", "hue"]}, "saturation and hue"),
    ],
)
def test_colour_alone_is_refused_for_grey_pictures(changes, word):
    with pytest.raises(InputError, match=f"augment.transforms has {word}, but the pictures have one channel"):
        check_channels(settings(**changes), 1)
    check_channels(settings(**changes), 3)
    check_channels(settings(kind="ada", p=0, transforms="bgc"), 1)
    check_channels(settings(kind="none", transforms=["color"]), 1)
