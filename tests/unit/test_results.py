"""Which files of a model's results are published, and what makes them anew."""

from dataclasses import replace
from pathlib import Path

from PIL import Image

from pipelines.curves import curve_metrics
from pipelines.results import read_results
from tests.unit.published_model import FOLDER, NAME, write_scores, write_training


def test_sheets_and_walk_are_among_the_files_and_count_when_they_alone_change(empty_workspace: Path) -> None:
    write_training()
    write_scores()
    sheets = FOLDER / "evaluation" / "sheets"
    Image.new("RGB", (8, 8)).save(sheets / "truncation.png")
    (sheets / "notes.txt").write_text("not to be published")
    before = read_results(NAME).digest
    assert {path.name for path in read_results(NAME).files if path.parent == sheets} == {"truncation.png", "walk.mp4"}
    (sheets / "walk.mp4").write_bytes(b"another film")
    assert read_results(NAME).digest != before


def test_sheets_of_other_weights_are_left_out(empty_workspace: Path) -> None:
    write_training()
    write_scores(weights="w0")
    assert not [path for path in read_results(NAME).files if "evaluation" in path.parts]


def test_what_a_tick_cost_lies_beside_what_it_shows(empty_workspace: Path) -> None:
    curve = [{"kimg": kimg, "loss": 2.0} for kimg in (10.0, 20.0)]
    pace = [{"kimg": 20.0, "seen": 20000, "seconds": 9.0, "seconds_per_kimg": 0.4, "memory_mb": 900.0}]
    write_training()
    training = replace(read_results(NAME).training, curve=curve, pace=pace, moments={10.0: 1.0, 20.0: 2.0})
    found = {(metric.step, metric.key): metric.value for metric in curve_metrics(training)}
    assert found == {
        (10, "loss"): 2.0,
        (20, "loss"): 2.0,
        (20, "seconds_per_kimg"): 0.4,
        (20, "memory_mb"): 900.0,
    }
