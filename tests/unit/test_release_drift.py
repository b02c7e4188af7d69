"""How far apart two releases draw."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from pipelines.release.drift import compare, spread, told
from stages.errors import InputError
from tests.unit.release_folder import make_release


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("releases") / "tiny"
    make_release(folder / "1.0.0", seed=1)
    shutil.copytree(folder / "1.0.0", folder / "1.0.1")
    make_release(folder / "1.1.0", seed=2)
    make_release(folder / "2.0.0", seed=1, classes=0)
    return folder


def test_equal_files_draw_equal_pictures(folder: Path):
    found = compare(folder, "1.0.0", "1.0.1", count=70)
    assert found["absolute"] == {"mean": 0.0, "p95": 0.0, "max": 0.0}
    assert found["identical_pictures"] == 70
    assert found["psnr_db"] is None
    assert "all are identical" in told(found, as_json=False)


def test_other_weights_draw_others(folder: Path):
    found = compare(folder, "1.0.0", "1.1.0", count=70)
    assert 0 < found["absolute"]["mean"] < found["absolute"]["p95"] < found["absolute"]["max"] <= 4
    assert found["identical_pictures"] == 0
    assert found["psnr_db"]["p5"] < found["psnr_db"]["p50"] < found["psnr_db"]["p95"]
    assert json.loads(told(found, as_json=True)) == found
    assert told(found, as_json=False).startswith("tiny 1.0.0 and 1.1.0, 70 seeds: values in [-1, 1] differ by ")


def test_a_known_difference_is_measured():
    gaps = np.zeros((4, 1, 10, 10), np.float32)
    gaps[2] = 0.02
    gaps[3, 0, 0, 0] = 0.2
    found = spread(gaps)
    assert found["absolute"] == pytest.approx({"mean": (100 * 0.02 + 0.2) / 400, "p95": 0.02, "max": 0.2})
    assert found["largest_seed"] == 3
    assert found["identical_pictures"] == 2
    assert found["psnr_db"]["p50"] == pytest.approx(40.0, abs=1e-3)  # both have a mean square of 4e-4 of 4


@pytest.mark.parametrize(
    ("one", "other", "count", "message"),
    [
        (
            "1.0.0",
            "2.0.0",
            8,
            "1.0.0 and 2.0.0 of tiny cannot be compared: input label is gone; the class",
        ),
        ("1.0.0", "3.0.0", 8, "3.0.0 is no release; versions of tiny: 1.0.0, 1.0.1, 1.1.0, 2.0.0"),
        ("../tiny/1.0.0", "1.0.0", 8, "is no release; versions of tiny: 1.0.0"),
        ("1.0.0", "1.1.0", 0, "--count is 0; expected 1 or more"),
    ],
)
def test_what_cannot_be_compared_is_told(folder: Path, one, other, count, message):
    with pytest.raises(InputError, match=message):
        compare(folder, one, other, count)


def test_an_altered_model_is_not_compared(folder: Path, tmp_path: Path):
    shutil.copytree(folder, tmp_path / "tiny")
    with (tmp_path / "tiny/1.0.1/model.onnx").open("ab") as stream:
        stream.write(b"\0")
    with pytest.raises(InputError, match=r"model.onnx has changed; `python -m pipelines.verify` says what else"):
        compare(tmp_path / "tiny", "1.0.0", "1.0.1", 8)
