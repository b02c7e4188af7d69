"""Few pictures are told what to expect and what helps; enough are not."""

import pytest
import yaml

from stages.settings import AugmentSettings
from stages.sufficiency import PUBLISHED, expectations
from tests.conftest import ROOT


def policy(**changes) -> AugmentSettings:
    raw = yaml.safe_load((ROOT / "params.yaml").read_text())["augment"]
    return AugmentSettings.model_validate(raw | changes)


def test_enough_pictures_need_no_word():
    assert expectations(10_000, 256) == []


@pytest.mark.parametrize(("count", "row"), [(1, 1_000), (1_000, 1_000), (1_001, 5_000), (9_999, 10_000)])
def test_the_published_numbers_of_the_next_size_stand_beside(count, row):
    told = expectations(count, 64)[0]
    expected = next(one for one in PUBLISHED if one.pictures == row)
    assert f"{count} training pictures are under 10000" in told
    assert f"with {row}: StyleGAN2 {expected.stylegan2}" in told


def test_what_is_lacking_is_proposed():
    none = " ".join(expectations(500, 256, policy(kind="none")))
    assert "augment.kind: ada" in none and "diffaugment" in none
    assert "similar pictures" in none and "smaller normalize.resolution than 256; 128" not in none
    assert "128 first" in none
    some = " ".join(expectations(500, 64, policy()))
    assert "augment.kind" not in some and "resolution" not in some
    assert "augment.p is 0" in " ".join(expectations(500, 64, policy(p=0.0)))


def test_published_numbers_improve_with_pictures():
    for name in ("stylegan2", "diffaugment", "ada"):
        scores = [getattr(row, name) for row in PUBLISHED if getattr(row, name) is not None]
        assert scores == sorted(scores, reverse=True) and scores
