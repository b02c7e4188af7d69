"""How the evaluation page shows mixed styles and the latent walk."""

from dataclasses import replace
from typing import Any

import pytest

from stages.evaluate.page.content import ModelReport
from stages.evaluate.page.model_page import model_page
from tests.unit.test_evaluate_page import HOSTILE, content, noise, read, scores, standard_page, words

MIXING, WALK = 400_000, 1_350_000  # bytes that mixed styles and a latent walk add to a page at most


def mixed(**changes: Any) -> ModelReport:
    """Return a report of a model with styles, and a walk that only looks like a film."""
    about = {"layers": 8, "crossovers": [2, 4, 6], "coarse_seeds": [0], "fine_seeds": [1, 2], "class": HOSTILE}
    part = {"mixing": about, "walk": {"frames": 145}, "reading": "even"}
    made = content(report=scores() | {"latent_space": part}, mixing=noise(6, 3, 8, 8, 3), walk=b"film")
    return replace(made, **changes)


def test_mixed_styles_and_the_walk_are_in_the_section_of_the_latent_space() -> None:
    page = model_page(mixed())
    text = words(page)
    assert "The row's styles end at layer 2, 4, 6 of 8. All are of the class <script>" in text
    assert "<script" not in page
    assert "6 rows of 3 mixed styles of dcgan" in [one["alt"] for one in read(page).all("img")]
    (film,) = read(page).all("video")
    assert film["src"] == "data:video/mp4;base64,ZmlsbQ==" and "controls" in film and "autoplay" not in film
    assert film["aria-label"] == "latent walk of dcgan"
    assert "145" not in text  # the caption tells enough
    assert "<video" not in standard_page() and "Style mixing" not in words(standard_page())


def test_a_large_walk_stays_beside_the_page() -> None:
    page = model_page(mixed(walk=bytes(1_000_001)))
    assert not read(page).all("video")
    assert [one["href"] for one in read(page).all("a") if not one["href"].startswith("#")] == ["sheets/walk.mp4"]
    assert "latent walk of dcgan (sheets/walk.mp4)" in words(page)
    assert len(page) < len(standard_page()) + 100_000
    assert read(model_page(mixed(walk=bytes(1_000_000)))).all("video")


@pytest.mark.parametrize("value", [None, {}, {"absent": "why"}, {"mixing": 3, "walk": []}, {"mixing": {"layers": 8}}])
def test_mixed_styles_and_walk_need_no_part_of_the_report(value: Any) -> None:
    page = model_page(mixed(report=scores() | {"latent_space": value}))
    assert "Style mixing, in blocks" in words(page) and read(page).all("video")


@pytest.mark.parametrize("size", [32, 64, 256])
def test_mixed_styles_and_walk_add_little_whatever_the_pictures_are(size: int) -> None:
    added = len(model_page(mixed(mixing=noise(12, 7, size, size, 3), walk=bytes(1_000_000)))) - len(standard_page())
    assert added < MIXING + WALK
