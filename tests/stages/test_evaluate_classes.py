"""`python -m stages.evaluate` on labelled pictures: domain features, probe, classes, usefulness."""

import json
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image

from tests.conftest import stage_or_fail, tiny_params, write_locks
from tests.unit.shapes import NAMES, shapes

EACH = 60
SCORES = Path("models/dcgan/evaluation/scores.json")


@pytest.fixture
def labelled_workspace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A workspace whose data are three classes of shapes, with a trained dcgan; it is the current folder."""
    pixels, labels = shapes((EACH,) * len(NAMES), seed=0)
    for number, (picture, label) in enumerate(zip(pixels, labels, strict=True)):
        path = tmp_path / "shapes" / NAMES[label] / f"{number:03d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.ascontiguousarray(picture.transpose(1, 2, 0))).save(path)
    params = tiny_params()
    params["data"]["folder"] = {"path": str(tmp_path / "shapes"), "licence": "MIT"}
    params["align"]["mode"] = "none"
    params["normalize"]["duplicate_bits"] = None
    params["evaluate"]["usefulness"] = {"seeds": 2, "kimg": 0.5, "confidence": 0.2}
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(params, sort_keys=False))
    monkeypatch.chdir(tmp_path)
    write_locks(tmp_path)
    for name in ("download", "align", "normalize", "augment"):
        stage_or_fail(tmp_path, name)
    stage_or_fail(tmp_path, "train", "dcgan")
    return tmp_path


def test_labelled_data_are_scored_in_their_own_features_and_by_class(labelled_workspace: Path) -> None:
    stage_or_fail(labelled_workspace, "evaluate", "dcgan")
    report = json.loads(SCORES.read_text())
    assert report["recipes"]["domain"]["classes"] == sorted(NAMES)
    assert {"fd_domain", "kid_domain", "precision_domain", "coverage_domain"} <= report["scores"].keys()
    assert "isc_domain" not in report["scores"]
    assert not [name for part in ("floor", "train_reference") for name in report[part] if name.endswith("_domain")]
    assert report["baselines"]["colour_histogram"]["fd_domain"] > 0
    probe = report["probe"]
    assert probe["holdout_accuracy"]["top1"]["value"] > 0.8  # shapes are easily told apart
    assert sum(one["hits"] for one in probe["per_class"].values()) == 64
    per_class = report["per_class"]
    assert set(per_class["recall"]) == set(NAMES) and per_class["labels"] == "probe"
    assert sum(generated for generated, _ in per_class["counts"].values()) == 64
    assert per_class["modes"]["classes"] == len(NAMES)
    assert report["usefulness"].get("labels") == "probe" or "of 64 generated" in report["usefulness"]["absent"]
    assert "class_total_variation_domain" in report["figures"]
