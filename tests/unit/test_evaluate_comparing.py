"""Two results side by side: verdicts with noise, refusal of unlike recipes, and files that are no results."""

import copy
import json
from pathlib import Path
from typing import Any

import pytest

from stages.errors import InputError
from stages.evaluate.plain.comparing import compare_results, label_of, read_result, refusals, verdict_table
from stages.evaluate.table import interval_text, is_lower_better, plain_table


def result(**values: float) -> dict[str, Any]:
    """Return a result with a standard error of 1 for each score."""
    intervals = {name: {"low": value - 2, "high": value + 2, "standard_error": 1.0} for name, value in values.items()}
    recipes = {"inception": {"count": 500, "kid": {"subset": 100}}, "efficientnet_lite0": {"count": 500}}
    return {"scores": values | {"fid_inf": 1.0}, "intervals": intervals, "recipes": recipes}


def test_each_score_is_judged_in_its_own_direction():
    first = result(fid=10, precision_inception=10, kid_inception=10, isc_inception=10, coverage_efficientnet_lite0=10)
    second = result(fid=20, precision_inception=20, kid_inception=12, isc_inception=0, coverage_efficientnet_lite0=20)
    verdicts = compare_results(first, second)
    assert {name: found["verdict"] for name, found in verdicts.items()} == {
        "fid": "better",
        "precision_inception": "worse",
        "kid_inception": "not shown",  # 2 is less than 1.96 times the root of 1 + 1
        "isc_inception": "better",
        "coverage_efficientnet_lite0": "worse",
    }
    assert verdicts["fid"]["difference"] == -10 and verdicts["fid"]["low"] < -10 < verdicts["fid"]["high"] < 0
    swapped = compare_results(second, first)
    opposite = {"better": "worse", "worse": "better", "not shown": "not shown"}
    assert {name: opposite[found["verdict"]] for name, found in swapped.items()} == {
        name: found["verdict"] for name, found in verdicts.items()
    }
    lines = verdict_table(first, second, verdicts).splitlines()
    assert lines[1].split()[:4] == ["fid", "10", "20", "-10"] and lines[1].endswith("better")
    assert len(lines) == 6


def test_unlike_recipes_are_refused_by_what_differs():
    first = result(fid=10)
    second = copy.deepcopy(first)
    second["recipes"]["inception"] |= {"count": 501, "kid": {"subset": 50}, "hash": "x", "beside": {"torch": "3"}}
    with pytest.raises(InputError) as caught:
        compare_results(first, second)
    message = str(caught.value)
    assert "count is 500 and 501" in message and "kid.subset is 100 and 50" in message
    assert "hash" not in message and "torch" not in message and "\n" not in message
    second["recipes"]["inception"] = first["recipes"]["inception"] | {"beside": {"torch": "3"}}
    second["recipes"]["efficientnet_lite0"]["count"] = 1  # of no score that both have
    assert compare_results(first, second)["fid"]["verdict"] == "not shown"


def test_unlike_recipes_of_one_network_leave_the_others_comparable():
    first = result(fid=10, precision_efficientnet_lite0=0.5)
    second = copy.deepcopy(first)
    second["recipes"]["inception"]["count"] = 501
    assert list(compare_results(first, second)) == ["precision_efficientnet_lite0"]
    (refusal,) = refusals(first, second)
    assert "scores in inception features cannot be compared: count is 500 and 501" in refusal
    assert refusals(first, first) == []


def test_scores_without_an_interval_are_no_matter_of_verdicts():
    assert list(compare_results(result(fid=1, kid_inception=1), result(fid=1))) == ["fid"]
    with pytest.raises(InputError, match="share no score with an interval"):
        compare_results(result(fid=1), result(kid_inception=1))


def test_a_score_belongs_to_the_network_in_its_name():
    labels = ["inception", "inception_12345678", "clip"]
    assert label_of("fid", labels) == label_of("fid_inf", labels) == label_of("kid_inception", labels) == "inception"
    assert label_of("fd_inception_12345678", labels) == "inception_12345678"
    assert label_of("density_clip", labels) == label_of("fd_clip_inf", labels) == "clip"
    with pytest.raises(InputError, match="kid_dinov2 is of no feature network"):
        label_of("kid_dinov2", labels)


@pytest.mark.parametrize(
    ("name", "lower"),
    [("fid", True), ("fid_inf", True), ("fd_clip_inf", True), ("kid_clip", True), ("isc_clip", False)]
    + [(f"{kind}_clip", False) for kind in ("precision", "recall", "density", "coverage")],
)
def test_directions(name: str, lower: bool):
    assert is_lower_better(name) is lower


@pytest.mark.parametrize("text", ["[]", "3", '{"scores": {}}', '{"scores": [], "intervals": {}, "recipes": {}}'])
def test_what_is_no_result_is_named(text: str, tmp_path: Path):
    (tmp_path / "x.json").write_text(text)
    with pytest.raises(InputError, match=r"x\.json holds no scores, intervals, recipes; expected a file"):
        read_result(tmp_path / "x.json")


@pytest.mark.parametrize(
    "damage",
    [
        {"scores": {}},
        {"scores": {"fid": "ten"}},
        {"intervals": {"fid": {}}},
        {"intervals": {"fid": 3}},
        {"intervals": {"fid": {"standard_error": None}}},
        {"intervals": {"fid": {"standard_error": -1.0}}},
        {"recipes": {}},
        {"recipes": {"inception": None}},
    ],
)
def test_damaged_results_are_refused_in_one_line(damage: dict[str, Any]):
    whole = result(fid=10)
    with pytest.raises(InputError) as caught:
        compare_results(whole, whole | damage)
    assert "\n" not in str(caught.value)


def test_a_result_survives_its_file(tmp_path: Path):
    (tmp_path / "x.json").write_text(json.dumps(result(fid=10)))
    assert read_result(tmp_path / "x.json") == result(fid=10)


def test_the_table_shows_values_intervals_directions_and_classes():
    recipe = {"count": 20, "reference_count": 30, "hash": "0123456789abcdef" * 4}
    scores = {"fid": 12.5, "kid_inception": 0.5, "kid_std_inception": 0.1, "kid_se_inception": 0.2}
    report: dict[str, Any] = {"real": {"name": "A"}, "generated": {"name": "B"}, "scores": scores}
    report |= {"intervals": {"fid": {"low": 12.0, "high": 13.0}}, "recipes": {"inception": recipe}}
    report |= {"floor": {"fid": 3.25}, "floor_counts": [15, 15]}
    lines = plain_table(report).splitlines()
    assert lines[0] == "B (20) against A (30), features inception"
    assert lines[2].split() == ["fid", "12.5", "[12,", "13]", "lower", "3.25"]
    assert lines[3].split() == ["kid_inception", "0.5", "-", "lower", "-"]
    assert lines[4:] == ["floor: 15 of the real pictures against the other 15", "recipe 0123456789abcdef"]
    share = {"cat": {"value": 0.5}}
    classes = {"counts": {"cat": [3, 4], "dog": [0, 5]}, "fd": {"cat": 7.0}, "precision": share}
    report["per_class"] = classes | {"recall": share, "coverage": share, "left_out": {"dog": "too few"}}
    lines = plain_table(report).splitlines()
    assert lines[6].split() == ["cat", "3", "4", "7", "0.5", "0.5", "0.5"]
    assert lines[7].split() == ["dog", "0", "5", "-", "-", "-", "-"]
    assert lines[8] == "no fd of dog: too few"
    assert interval_text(None) == "-"


def test_what_is_not_fid_says_so():
    recipe = {"count": 20, "reference_count": 30, "hash": "0" * 64}
    report: dict[str, Any] = {"real": {"name": "A"}, "generated": {"name": "B"}, "scores": {"fd_clip": 1.0}}
    report |= {"intervals": {}, "recipes": {"clip": recipe}, "floor": {}, "floor_counts": []}
    assert plain_table(report).splitlines()[1].startswith("this is not FID")
