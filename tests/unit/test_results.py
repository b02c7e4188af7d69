"""Which files of a model's results are published, and what makes them anew."""

from pathlib import Path

from PIL import Image

from pipelines.results import read_results
from tests.unit.test_publish import FOLDER, NAME, write_scores, write_training


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
