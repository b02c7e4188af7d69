"""`python -m stages.evaluate` on a tiny trained model, and the parts of it that need no feature network."""

import json
import shutil
import subprocess
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from stages.dataset import ImageDataset
from stages.errors import GateError
from stages.evaluate.picture_sets import colour_histogram_set, floor_positions, generated_set, keep
from stages.evaluate.table import table
from stages.generators.interface import Capabilities, Generator, Request
from tests.conftest import copy_workspace, stage

SCORES = Path("models/dcgan/evaluation/scores.json")
FOLDER = SCORES.parent
SHEETS = {"sheets/closest.png", "sheets/interpolation.png", "sheets/walk.mp4"}
FILES = {"scores.json", "metrics.json", "samples.png", "report.html", *SHEETS}
KINDS = ("fd", "fd_inf", "kid", "kid_std", "kid_se", "precision", "recall", "density", "coverage", "isc", "isc_std")
WITH_INTERVAL = {"fd", "kid", "precision", "recall", "density", "coverage", "isc"}
PARTS = ("memorisation", "variety", "per_class", "probe", "usefulness", "latent_space", "spectrum", "balance")


def names_of(kinds: Iterable[str], label: str = "efficientnet_lite0") -> set[str]:
    return {f"fd_{label}_inf" if kind == "fd_inf" else f"{kind}_{label}" for kind in kinds}


def one_line(text: str) -> str:
    lines = [line for line in text.splitlines() if line]
    assert len(lines) == 1, text
    return lines[0]


@pytest.fixture(scope="module")
def first_run(trained: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, subprocess.CompletedProcess]:
    """A workspace in which evaluate has run once, and what that run printed."""
    folder = tmp_path_factory.mktemp("evaluated") / "workspace"
    shutil.copytree(trained, folder)
    done = stage(folder, "evaluate", "dcgan")
    assert done.returncode == 0, done.stderr
    return folder, done


@pytest.fixture
def evaluated(
    first_run: tuple[Path, subprocess.CompletedProcess], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> subprocess.CompletedProcess:
    """What the first run printed; a copy of its workspace is the current folder."""
    copy_workspace(first_run[0], tmp_path, monkeypatch)
    return first_run[1]


def test_scores_are_written_repeated_and_explained(evaluated: subprocess.CompletedProcess, run_stage):
    first = evaluated
    written = read_folder()
    assert set(written) == FILES
    report = json.loads(written["scores.json"])
    assert set(report["scores"]) == names_of(KINDS)
    assert set(report["floor"]) == set(report["train_reference"]) == names_of(KINDS) - names_of(["isc", "isc_std"])
    fd = "fd_efficientnet_lite0"
    assert report["floor"][fd] < report["scores"][fd]
    assert report["floor"][fd] < min(report["baselines"][b][fd] for b in ("untrained", "colour_histogram"))
    assert_intervals(report)
    recipe = report["recipes"]["efficientnet_lite0"]
    holdout = len(ImageDataset(Path("data/images"), "holdout"))
    assert (recipe["count"], recipe["reference_count"], recipe["kid"]["subset"]) == (64, holdout, 16)
    config = json.loads(Path("models/dcgan/training/weights/config.json").read_text())
    assert report["identity"]["weights"] == config["identity"]["weights"]
    assert any("FID was not computed" in line for line in report["warnings"])
    assert any("No `domain` features" in line for line in report["warnings"])  # too few pictures of each class
    for warning in report["warnings"]:
        assert warning in first.stderr
    assert "rank-deficient" in first.stderr
    assert "it may have seen hold-out pictures" not in first.stderr
    assert all(word in first.stdout for word in (fd, "floor", "untrained", "colour histogram"))
    with Image.open(FOLDER / "samples.png") as sheet:
        assert 500 <= sheet.width == sheet.height <= 700

    kept = sorted(Path(".work/features").glob("*.npy"))
    assert len(kept) == 4  # hold-out, train and two baselines; a model's own pictures are always scored afresh
    for path in kept[1:]:
        np.save(path, np.load(path) * 2)
    again = run_stage("evaluate", "dcgan")
    assert again.stderr.count("not as it was written") == 3
    assert read_folder() == written


def read_folder() -> dict[str, bytes]:
    return {path.relative_to(FOLDER).as_posix(): path.read_bytes() for path in FOLDER.rglob("*.*")}


def assert_intervals(report: dict) -> None:
    """Assert that each score that has an interval lies in it, and that a difference that counts is larger than it."""
    intervals, smallest = report["intervals"], report["smallest_difference"]
    assert set(intervals) == set(smallest) == names_of(WITH_INTERVAL)
    for name, interval in intervals.items():
        assert interval["low"] <= report["scores"][name] <= interval["high"]
        assert smallest[name] == pytest.approx(1.96 * 2**0.5 * interval["standard_error"], rel=1e-3)


def test_what_scores_cannot_see_is_measured_or_says_why_not(evaluated: subprocess.CompletedProcess):
    report = json.loads(SCORES.read_text())
    copies = report["memorisation"]["levels"][0]["copies"]
    assert copies["count"] == 64 and 0 <= copies["value"] <= 1
    train = ImageDataset(Path("data/images"), "train")
    assert all(0 <= pair["train"] < len(train) for pair in report["memorisation"]["closest"])
    assert report["variety"]["generated"]["vendi"] >= 1
    assert set(report["per_class"]["recall"]) == {
        row["class_name"] for row in ImageDataset(train.folder, "holdout").rows
    }
    assert report["latent_space"]["path_length"]["pairs"] == 4
    assert len(report["spectrum"]["radial"]["real"]) > 4
    assert report["balance"]["kimg"]
    for part in ("probe", "usefulness"):
        assert "No `domain` features" in report[part]["absent"]
    page = (FOLDER / "report.html").read_text()
    assert "<script" not in page and "data:image/png;base64," in page
    assert report["latent_space"]["walk"]["frames"] == 145 and "data:video/mp4;base64," in page
    assert set(PARTS) <= set(report)


@pytest.mark.slow
def test_other_inception_weights_are_scored_but_never_called_fid(trained_workspace: Path, run_stage, edit_params):
    """Random Inception weights, since the standard ones are in no package: the road through the stage, not FID."""
    from tests.unit.test_metrics_inception import write_random_weights

    weights = write_random_weights(Path("random.pth"))
    Path("data/weights.lock.json").write_text(json.dumps({"inception": {"sha256": weights.sha256, "bytes": 1}}))
    edit_params(**{"evaluate.inception": "random.pth"})
    done = run_stage("evaluate", "dcgan")
    assert done.returncode == 0, done.stderr
    report = json.loads(SCORES.read_text())
    label = f"inception_{weights.sha256[:8]}"
    assert set(report["scores"]) == names_of(KINDS) | names_of(KINDS, label)
    assert report["recipes"][label]["weights_sha256"] == weights.sha256
    assert report["baselines"]["untrained"][f"fd_{label}"] > 0
    assert "FID was not computed" not in done.stderr and f"fd_{label}" in done.stdout
    assert len(list(Path(".work/features").glob("*.npy"))) == 8


def test_a_model_of_other_data_is_warned_of():
    from stages.evaluate.scoring import stale_warnings

    generator = FixedGenerator(0)
    assert stale_warnings(generator, "a" * 64) == []
    generator.identity = {"dataset": "a" * 64}
    assert stale_warnings(generator, "a" * 64) == []
    assert "it may have seen hold-out pictures" in stale_warnings(generator, "b" * 64)[0]


def test_before_training_there_is_one_line(workspace: Path, run_stage):
    done = run_stage("evaluate", "dcgan")
    assert done.returncode == 2
    line = one_line(done.stderr)
    assert "models/dcgan/training/weights" in line and "stages.train dcgan" in line
    assert not SCORES.parent.exists()


def test_before_the_data_there_is_one_line(empty_workspace: Path, run_stage):
    done = run_stage("evaluate", "dcgan")
    assert done.returncode == 2
    assert "data/images does not exist" in one_line(done.stderr)


def test_without_the_weights_lock_there_is_one_line(trained_workspace: Path, run_stage):
    Path("data/weights.lock.json").unlink()
    done = run_stage("evaluate", "dcgan")
    assert done.returncode == 2
    assert "pipelines.refresh" in one_line(done.stderr)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"evaluate.count": 8}, ["evaluate.count", "64"]),
        ({"evaluate.kid_subset": 65}, ["evaluate: kid_subset is 65, but count is only 64"]),
        ({"evaluate.neighbours": 64}, ["neighbours is 64", "count is only 64"]),
        ({"evaluate.neighbours": 40}, ["hold-out split", "evaluate.neighbours = 40"]),
        ({"evaluate.features": ["domain"]}, ["features has no general network"]),
        ({"evaluate.resamples": 19}, ["evaluate.resamples", "20"]),
        ({"evaluate.usefulness.seeds": 1}, ["usefulness: seeds is 1", "2 or more"]),
        ({"evaluate.inception": "absent.pth"}, ["evaluate.inception is absent.pth"]),
        ({"evaluate.inception": "params.yaml"}, ["params.yaml with sha256", "none (null)", "pipelines.refresh"]),
    ],
)
def test_impossible_settings_are_named_before_any_work(
    settings: dict, words: list[str], trained_workspace: Path, run_stage, edit_params
):
    edit_params(**settings)
    done = run_stage("evaluate", "dcgan")
    assert done.returncode == 2
    line = one_line(done.stderr)
    assert all(word in line for word in words), line
    assert not SCORES.parent.exists()


def test_a_model_that_is_not_selected_is_named(workspace: Path, run_stage):
    done = run_stage("evaluate", "other")
    assert done.returncode == 2
    assert "other is not selected" in one_line(done.stderr)


class FixedGenerator(Generator):
    """Draws one value everywhere."""

    identity: dict[str, str] = {}
    capabilities = Capabilities("fixed", (4,), 8, 3)

    def __init__(self, value: float) -> None:
        self.value = value

    def generate(self, request: Request) -> np.ndarray:
        return np.full((len(request.latent), 3, 8, 8), self.value, np.float32)


def test_generated_pictures_are_uint8_and_never_nan():
    batches = list(generated_set("model", FixedGenerator(1.0), range(10), 4).batches())
    assert [len(batch) for batch in batches] == [4, 4, 2]
    assert {batch.dtype for batch in batches} == {np.dtype(np.uint8)}
    assert all((batch == 255).all() for batch in batches)
    with pytest.raises(GateError, match="model draws NaN"):
        list(generated_set("model", FixedGenerator(float("nan")), range(10), 4).batches())


def test_the_colour_histogram_has_the_colours_of_the_data_and_none_of_its_structure(workspace: Path):
    train = ImageDataset(Path("data/images"), "train")
    drawn = np.concatenate(list(colour_histogram_set(train, 80, 0, 32).batches()))
    again = np.concatenate(list(colour_histogram_set(train, 80, 0, 7).batches()))
    assert drawn.shape == (80, 3, 16, 16) and drawn.dtype == np.uint8
    assert drawn.tobytes() == again.tobytes()
    assert drawn.tobytes() != np.concatenate(list(colour_histogram_set(train, 80, 1, 32).batches())).tobytes()
    colours = {tuple(colour) for colour in train.pixels.reshape(-1, 3).tolist()}
    assert {tuple(colour) for colour in drawn.transpose(0, 2, 3, 1).reshape(-1, 3).tolist()} <= colours
    np.testing.assert_allclose(drawn.mean(axis=(0, 2, 3)), train.pixels.mean(axis=(0, 1, 2)), atol=5)
    neighbours = np.corrcoef(drawn[..., 1:].ravel(), drawn[..., :-1].ravel())[0, 1]
    real = train.pixels.astype(float)
    assert neighbours < 0.3 < np.corrcoef(real[:, :, 1:].ravel(), real[:, :, :-1].ravel())[0, 1]


def test_the_floor_is_of_train_pictures_each_once():
    chosen = floor_positions(50, 20, 0)
    assert len(set(chosen.tolist())) == 20 and set(chosen.tolist()) <= set(range(50))
    assert (chosen == floor_positions(50, 20, 0)).all()
    assert set(floor_positions(50, 20, 1).tolist()) != set(chosen.tolist())


def test_a_kept_set_is_known_by_what_it_draws():
    origins = [keep(generated_set("untrained", FixedGenerator(value), range(8), 4), seed=0) for value in (0, 0.5)]
    assert origins[0].identity != origins[1].identity
    assert origins[0].identity == keep(generated_set("untrained", FixedGenerator(0), range(8), 4), seed=0).identity


def test_the_table_shows_each_score_beside_floor_and_baselines():
    scores = {"fid": 20.5, "kid_inception": 0.01, "kid_std_inception": 0.002}
    baselines = {"untrained": {"fid": 300.0}, "colour_histogram": {"fid": 400.0}}
    report = {"model": "m", "scores": scores, "floor": scores | {"fid": 5.0}, "baselines": baselines}
    lines = table(report | {"intervals": {"fid": {"low": 18.0, "high": 23.0}}}).splitlines()
    assert lines[0].split() == ["m", "floor", "untrained", "colour", "histogram"]
    assert lines[1].split() == ["fid", "20.5", "[18,", "23]", "5", "300", "400"]
    assert lines[2].split() == ["kid_inception", "0.01", "0.01", "-", "-"]
    assert len(lines) == 3
