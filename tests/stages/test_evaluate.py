"""`python -m stages.evaluate` on a tiny trained model, and the parts of it that need no feature network."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from stages.dataset import ImageDataset
from stages.errors import GateError
from stages.evaluate.picture_sets import colour_histogram_set, floor_set, generated_set, keep
from stages.evaluate.table import table
from stages.generators.interface import Capabilities, Generator, Request

SCORES = Path("models/dcgan/evaluation/scores.json")
SAMPLES = Path("models/dcgan/evaluation/samples.png")
NAMES = [f"{kind}_efficientnet_lite0" for kind in ("fd", "kid", "kid_std", "precision", "recall")]


def one_line(text: str) -> str:
    lines = [line for line in text.splitlines() if line]
    assert len(lines) == 1, text
    return lines[0]


def test_scores_are_written_repeated_and_explained(trained_workspace: Path, run_stage):
    first = run_stage("evaluate", "dcgan")
    assert first.returncode == 0, first.stderr
    written = SCORES.read_bytes()
    report = json.loads(written)
    assert list(report["scores"]) == list(report["floor"]) == NAMES
    fd = NAMES[0]
    assert report["floor"][fd] < report["scores"][fd]
    assert report["floor"][fd] < min(report["baselines"][b][fd] for b in ("untrained", "colour_histogram"))
    recipe = report["recipes"]["efficientnet_lite0"]
    holdout = len(ImageDataset(Path("data/images"), "holdout"))
    assert (recipe["count"], recipe["reference_count"], recipe["kid"]["subset"]) == (64, holdout, 16)
    config = json.loads(Path("models/dcgan/training/weights/config.json").read_text())
    assert report["identity"]["weights"] == config["identity"]["weights"]
    assert "FID was not computed" in report["warnings"][0]
    for warning in report["warnings"]:
        assert warning in first.stderr
    assert "rank-deficient" in first.stderr
    assert "it may have seen hold-out pictures" not in first.stderr
    assert all(word in first.stdout for word in ("fd_efficientnet_lite0", "floor", "untrained", "colour histogram"))
    with Image.open(SAMPLES) as sheet:
        assert 500 <= sheet.width == sheet.height <= 700

    picture = SAMPLES.read_bytes()
    kept = sorted(Path(".work/features").glob("*.npy"))
    assert len(kept) == 4  # hold-out, floor and two baselines; a model's own pictures are always scored afresh
    for path in kept[1:]:
        np.save(path, np.load(path) * 2)
    again = run_stage("evaluate", "dcgan")
    assert again.stderr.count("not as it was written") == 3
    assert (SCORES.read_bytes(), SAMPLES.read_bytes()) == (written, picture)


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
    assert list(report["scores"]) == [
        *NAMES,
        *(f"{kind}_{label}" for kind in ("fd", "kid", "kid_std", "precision", "recall")),
    ]
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


def test_the_floor_is_of_train_pictures_each_once(workspace: Path):
    train = ImageDataset(Path("data/images"), "train")
    chosen = floor_set(train, "hash", 20, 0, 8)
    pictures = np.concatenate(list(chosen.batches())).transpose(0, 2, 3, 1)
    positions = [np.flatnonzero((train.pixels == picture).all(axis=(1, 2, 3))) for picture in pictures]
    assert len(pictures) == 20 and all(len(found) for found in positions)
    assert len({int(found[0]) for found in positions}) == 20
    assert floor_set(train, "hash", 20, 1, 8).identity != chosen.identity
    assert floor_set(train, "other", 20, 0, 8).identity != chosen.identity


def test_a_kept_set_is_known_by_what_it_draws():
    origins = [keep(generated_set("untrained", FixedGenerator(value), range(8), 4), seed=0) for value in (0, 0.5)]
    assert origins[0].identity != origins[1].identity
    assert origins[0].identity == keep(generated_set("untrained", FixedGenerator(0), range(8), 4), seed=0).identity


def test_the_table_shows_each_score_beside_floor_and_baselines():
    scores = {"fid": 20.5, "kid_inception": 0.01, "kid_std_inception": 0.002}
    baselines = {"untrained": {"fid": 300.0}, "colour_histogram": {"fid": 400.0}}
    lines = table({"model": "m", "scores": scores, "floor": scores | {"fid": 5.0}, "baselines": baselines}).splitlines()
    assert lines[0].split() == ["m", "floor", "untrained", "colour", "histogram"]
    assert lines[1].split() == ["fid", "20.5", "5", "300", "400"]
    assert lines[2].split() == ["kid_inception", *2 * ["0.01", "±", "0.002"], "-", "-"]
    assert len(lines) == 3
