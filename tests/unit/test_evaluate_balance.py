"""Balance: the reading follows from the numbers."""

import json
from typing import Any

import numpy as np
import pytest

from stages.errors import InputError
from stages.evaluate.unseen.balance import read_balance
from stages.trainer.health import SATURATED


def curve(separation, holdout=None, ticks: int = 20, noise: float = 0.01) -> list[dict[str, Any]]:
    """Return a curve with a separation and a hold-out logit as functions of the share of the training, 0 to 1."""
    random = np.random.default_rng(0)
    rows = []
    for tick in range(ticks):
        share = tick / (ticks - 1)
        value = separation(share) + noise * random.normal()
        row = {"kimg": 0.5 * (tick + 1), "real_sign": value, "fake_sign": -value, "separation": value}
        row |= {"real_logit": 2 * value, "fake_logit": -2 * value, "loss_generator": 1.0, "loss_discriminator": 1.0}
        if holdout is not None:
            row |= {"train_logit": 1.0, "holdout_logit": holdout(share), "generated_logit": -1.0}
        rows.append(row)
    return rows


@pytest.mark.parametrize(
    ("separation", "words"),
    [
        (lambda share: 0.3, "stay balanced (separation 0.30"),
        (lambda share: 0.2 + 0.7 * share, "drift apart"),
        (lambda share: 0.9 - 0.7 * share, "come together"),
        (lambda share: 0.995, "stay apart (separation 0.99 of 1"),
    ],
)
def test_the_way_of_the_outputs_is_read(separation, words: str):
    assert words in read_balance(curve(separation, noise=0.001)).reading


def test_noise_is_no_drift():
    assert "stay balanced" in read_balance(curve(lambda share: 0.5, noise=0.15)).reading


def test_a_drift_in_the_first_half_only_is_over():
    assert "stay balanced" in read_balance(curve(lambda share: min(share, 0.4))).reading


def test_level_and_change_are_measured():
    found = read_balance(curve(lambda share: 0.1 + 0.6 * share, noise=0)).separation
    assert found is not None
    assert found.change == pytest.approx(0.6 * 9 / 19)
    assert found.level == pytest.approx(0.1 + 0.6 * np.mean([15, 16, 17, 18, 19]) / 19)
    assert found.error == pytest.approx(0, abs=1e-9)


def test_a_discriminator_that_is_never_wrong_is_said():
    assert "almost never wrong" in read_balance(curve(lambda share: SATURATED + 0.02, noise=0)).reading
    assert "almost never wrong" not in read_balance(curve(lambda share: SATURATED - 0.02, noise=0)).reading


@pytest.mark.parametrize(
    ("holdout", "value", "words"),
    [
        (lambda share: 1.0, 0.0, "rather for training than generated ones (r_v 0.00, steady)."),
        (lambda share: -1.0, 1.0, "by heart"),
        (lambda share: 1 - 2 * share, None, "rising"),
    ],
)
def test_hold_out_pictures_show_overfitting(holdout, value: float | None, words: str):
    found = read_balance(curve(lambda share: 0.5, holdout))
    assert words in found.reading
    if value is not None:
        assert found.series["overfitting"] == (value,) * 20


def test_no_hold_out_and_a_discriminator_that_cannot_tell_have_no_overfitting():
    assert "not recorded" in read_balance(curve(lambda share: 0.5)).reading
    rows = curve(lambda share: 0.0, lambda share: 0.0)
    for row in rows:
        row["generated_logit"] = row["train_logit"]
    found = read_balance(rows)
    assert "overfitting" not in found.series
    assert found.overfitting is None


def test_a_short_training_is_not_read_but_shown():
    found = read_balance(curve(lambda share: 0.5, ticks=3))
    assert "no reading" in found.reading
    assert len(found.series["separation"]) == 3


def test_gaps_and_broken_numbers_are_left_out():
    rows = curve(lambda share: 0.5, lambda share: 0.5)
    rows[3]["separation"] = float("nan")
    del rows[5]["separation"]
    rows[7]["holdout_logit"] = None
    found = read_balance(rows)
    assert [found.series["separation"][place] for place in (3, 5)] == [None, None]
    assert found.series["overfitting"][7] is None
    json.dumps(found.to_json(), allow_nan=False)
    assert found.to_json()["reading"].count("\n") == 0


def test_the_series_are_those_of_a_real_training():
    from stages.trainer.adversarial.adversaries import STATISTICS

    row = dict.fromkeys(STATISTICS, 0.5) | {"kimg": 1.0, "separation": 0.5, "diversity": 1.0, "p": 0.1, "r_t": 0.5}
    row |= {"train_logit": 1.0, "holdout_logit": 0.5, "generated_logit": 0.0}
    found = read_balance([row])
    assert set(found.series) == (set(row) - {"kimg"}) | {"overfitting"}


@pytest.mark.parametrize("rows", [[], [{"separation": 1.0}], [{"kimg": "soon"}], [7]])
def test_bad_input_is_one_line(rows: list):
    with pytest.raises(InputError, match=r"curve\.json") as caught:
        read_balance(rows)
    assert "\n" not in str(caught.value)
