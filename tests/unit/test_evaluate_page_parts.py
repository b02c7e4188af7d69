"""The page's sections of what one score cannot see: their charts, their readings, and reports of another version."""

from dataclasses import replace
from typing import Any

import pytest

from stages.evaluate.page.classes import split_columns
from stages.evaluate.page.model_page import model_page
from stages.evaluate.page.parts import series_of
from stages.evaluate.page.readings import find, reading_of
from stages.metrics.proportions import Proportion
from tests.unit.test_evaluate_page import content, empty, read, words


def share(hits: int, count: int) -> dict[str, Any]:
    return Proportion(hits, count).to_json()


def level(copies: int, memorised: bool) -> dict[str, Any]:
    shares = {"near": share(300, 1000), "copies": share(copies, 1000)}
    return {"level": 0.01, "expected": {"low": 0.004, "high": 0.015}, **shares, "memorised": memorised}


def memorisation(copies: int, memorised: bool) -> dict[str, Any]:
    return {"levels": [level(copies, memorised)], "closer": 0.5, "closest": [{"generated": 1, "train": 2}]}


HISTOGRAM = {
    "total_variation": 0.31,
    "floor": {"mean": 0.04, "quantile_95": 0.07},
    "missing": ["flags"],
    "per_class": {"faces": share(90, 100) | {"real": 0.6}, "flags": share(0, 100) | {"real": 0.4}},
}


LATENT = {
    "path_length": {"length": 12.5, "error": 0.4, "epsilon": 0.005, "doubled": 1.01, "pairs": 64, "stable": True},
    "jumps": {"steps": 16, "pairs": 32, "median": 1.4, "high": 2.0, "largest": 3.1, "pair": 3, "step": 2},
}
CLASSES = {
    "distances": {
        "fd": {"faces": 90.0},
        "counts": {"faces": [64, 27], "flags": [0, 3]},
        "left_out": {"flags": "0 of 2"},
    },
    "recall": {"faces": share(10, 27), "flags": share(0, 3)},
    "modes": {"classes": 2, "hit": 1, "missing": ["flags"]},
}


def effect(before: float, after: float, verdict: str) -> dict[str, Any]:
    ends = {"seeds_interval": [after - before - 0.01, after - before + 0.01], "holdout_interval": None}
    return {"without": before, "with": after, "difference": after - before, "verdict": verdict, **ends}


def usefulness(verdict: str) -> dict[str, Any]:
    return {"verdict": verdict, "rare_accuracy": effect(0.5, 0.6, verdict), "labels": "probe"}


def peak(difference: float) -> dict[str, Any]:
    return {"period_y": None, "period_x": 2.0, "difference": difference, "error": 0.1, "found": difference > 1}


def spectrum(difference: float) -> dict[str, Any]:
    radial = {"generated": [60.0, 50.0, 45.0], "real": [60.0, 49.0, 40.0]}
    worst = peak(difference)
    return {"found": worst["found"], "worst": worst, "peaks": [worst, peak(0.0)], "radial": radial}


def spread(distance: float, vendi: float, duplicates: int) -> dict[str, Any]:
    return {"distance": distance, "vendi": vendi, "duplicates": share(duplicates, 100)}


VARIETY = {"ratio": 0.9, "generated": spread(9.0, 12.0, 7), "real": spread(10.0, 30.0, 1), "closest": [[0, 1]]}
BALANCE = {
    "reading": "They drift apart.",
    "separation": {"level": 0.6, "change": 0.1, "error": 0.02},
    "overfitting": None,
    "kimg": [4.0, 8.0, 12.0],
    "series": {"real_sign": [0.3, 0.4, 0.5], "fake_sign": [-0.2, -0.3, -0.4], "train_logit": [1.0, None, 3.0]},
}


def page_of(part: str, value: dict[str, Any]) -> str:
    return model_page(replace(empty(), report={part: value}))


def charts(page: str) -> str:
    return "; ".join(attributes["aria-label"] for attributes in read(page).all("svg"))


@pytest.mark.parametrize(
    ("part", "value", "told"),
    [
        ("memorisation", memorisation(8, False), "0.8 % [0.406 %, 1.57 %] of the generated pictures are near-copies"),
        ("memorisation", memorisation(8, False), "no sign of memorisation"),
        ("memorisation", memorisation(400, True), "the model has memorised"),
        ("probe", {"histogram": HISTOGRAM}, "Missing classes: flags."),
        ("probe", HISTOGRAM | {"missing": []}, "No class is missing."),
        ("variety", VARIETY, "90 % as far apart as two real ones; the Vendi score is 12 against 30"),
        (
            "usefulness",
            usefulness("helps"),
            "Generated pictures help: accuracy on the rare classes goes from 50 % to 60 %",
        ),
        ("usefulness", usefulness("not shown"), "are not shown to help"),
        ("spectrum", spectrum(2.5), "2.5 dB over that of real pictures: a checkerboard pattern is found"),
        ("spectrum", spectrum(0.2), "no checkerboard pattern is found"),
        ("balance", BALANCE, "They drift apart."),
        (
            "latent_space",
            LATENT,
            "The path length is 12.5 \u00b1 0.4; the largest jump of an interpolation is 3.1",
        ),
    ],
)
def test_a_part_is_read_in_one_line_from_its_own_numbers(part: str, value: dict[str, Any], told: str) -> None:
    assert told in reading_of(content(report={part: value}), part)


@pytest.mark.parametrize(
    ("part", "value", "chart"),
    [
        ("probe", {"histogram": HISTOGRAM}, "classes of nothing"),
        ("per_class", CLASSES, "scores of nothing within each class"),
        ("usefulness", usefulness("helps"), "effect of generated pictures"),
        ("spectrum", spectrum(2.5), "checkerboard peaks"),
        ("spectrum", spectrum(2.5), "spectra of nothing"),
        ("balance", BALANCE, "signs of the discriminator"),
        ("balance", BALANCE, "the discriminator's outputs of nothing"),
    ],
)
def test_a_part_has_its_chart(part: str, value: dict[str, Any], chart: str) -> None:
    page = page_of(part, value)
    assert chart in charts(page)
    assert reading_of(content(report={part: value}), part) in words(page)


@pytest.mark.parametrize(
    ("part", "value"),
    [
        ("memorisation", {"levels": [], "closer": 0.5}),
        ("memorisation", {"levels": "none"}),
        ("probe", {"total_variation": 0.1, "missing": ["a"], "per_class": 3}),
        ("per_class", {"fd": {"a": None}, "recall": {"a": {"value": None}}}),
        ("usefulness", {"verdict": "helps", "rare_accuracy": 0.7}),
        ("spectrum", {"peaks": [None, {"difference": None}], "radial": {"generated": 1}}),
        ("balance", {"kimg": [1, None], "series": {"real_sign": [None, 1], "p": 3}}),
    ],
)
def test_a_part_of_another_version_is_shown_without_chart_and_reading(part: str, value: dict[str, Any]) -> None:
    assert reading_of(content(report={part: value}), part) == ""
    assert "<svg" not in page_of(part, value)


def test_an_absent_part_has_no_reading() -> None:
    assert reading_of(empty(), "memorisation") == ""
    assert reading_of(content(report={"usefulness": {"absent": "seeds are 0"}}), "usefulness") == ""


def test_positions_that_mean_nothing_to_a_reader_are_left_out() -> None:
    page = words(page_of("variety", VARIETY))
    assert "closest" not in page
    assert "generated and real" in page


def test_scores_by_class_share_one_table_wherever_they_lie() -> None:
    columns, rest = split_columns(CLASSES)
    assert list(columns) == ["fd", "counts", "recall"]
    assert rest == {"distances": {"left_out": {"flags": "0 of 2"}}, "modes": CLASSES["modes"]}
    page = words(page_of("per_class", CLASSES))
    assert "Fréchet distance generated, real pictures recall faces 90 64, 27 0.3704" in page
    assert "0 of 2" in page


def test_series_leave_out_what_is_no_number() -> None:
    series = {"a": [2.0, float("nan"), 4.0], "b": [None, None, None], "note": "x"}
    assert series_of({"kimg": [1.0, 2.0, 3.0], "series": series}) == {"a": ([1.0, 3.0], [2.0, 4.0])}
    assert series_of({"kimg": 3, "series": series}) == {}


def test_the_first_part_with_the_keys_is_found() -> None:
    assert find({"x": 1, "y": {"a": 1, "b": 2}}, "a", "b") == {"a": 1, "b": 2}
    assert find({"a": 1}, "a", "b") == {}
    assert find(None, "a") == {}
