"""Every GAN family trained, extended, exported and drawn on real pictures, and what is refused."""

import json
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from PIL import Image

from stages.storage import read_json, sha256_file, sha256_tree, write_json
from tests.conftest import copy_workspace
from tests.stages.one_process import Outcome, run_stages
from tests.unit.gans import TINY

PACE: dict[str, Any] = {
    "batch": 8,
    "budget_kimg": 0.032,
    "tick_kimg": 0.016,
    "checkpoint_kimg": 0.016,
    "ema_half_life_kimg": 0.01,
    "threads": 1,
}
LAZY = {"r1_gamma": 1.0, "regularise_every": 2, "path_length_every": 2, "minibatch_group": 4}
MODELS: dict[str, dict[str, Any]] = {  # by preset; pictures have 16 px and three classes
    "gan": {},
    "cgan": {"standing_statistics": 2},
    "wgan": {"discriminator_steps": 2},
    "sngan": {"discriminator_steps": 2, "condition": "class"},
    "biggan_cifar": {"latent": 12, "discriminator_steps": 2, "standing_statistics": 2, "orthogonal": 0.0001},
    "progan": {"phase_kimg": 0.004},
    "stylegan2": {**LAZY, "condition": "class"},
    "r3gan": {"widths": [8, 8, 8], "cardinalities": [2, 2, 2], "condition": "class"},
}
LABELLED = {"cgan", "sngan", "biggan_cifar", "stylegan2", "r3gan"}
TRUNCATED = {"biggan_cifar", "stylegan2"}


def select(folder: Path, chosen: dict[str, tuple[str, dict[str, Any]]], name: str = "params.yaml") -> None:
    """Write a settings file that selects models by name: the preset of each, and what is set otherwise."""
    params = yaml.safe_load((folder / "params.yaml").read_text())
    params["select"], params["models"] = {}, {}
    for model, (preset, changes) in chosen.items():
        family = yaml.safe_load((Path(__file__).parents[2] / f"stages/presets/{preset}.yaml").read_text())["family"]
        params["select"][model] = {"preset": preset, "family": family, "data": "images"}
        off = {"anneal": None} if preset == "r3gan" else {}
        params["models"][model] = {**TINY[family], **PACE, **off, **changes}
    (folder / name).write_text(yaml.safe_dump(params, sort_keys=False))


def drawings(preset: str) -> dict[str, str]:
    """Command lines that draw two pictures, by the folder that they go to."""
    label = " --label 1" if preset in LABELLED else ""
    wanted = {"torch": f"{preset}{label}", "onnx": f"models/{preset}/onnx/model.onnx{label}"}
    if preset in LABELLED:
        wanted["other"] = f"{preset} --label 2"
    if preset in TRUNCATED:
        wanted["cut"] = f"{preset}{label} --truncation 0.3"
        wanted["cut_onnx"] = f"{wanted['onnx']} --truncation 0.3"
    return {f"drawn/{preset}/{out}": f"generators --seed 3 --count 2 --model {rest}" for out, rest in wanted.items()}


@pytest.fixture(scope="session")
def families(prepared: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Outcome]]:
    """A folder in which each model was trained for two steps and then for four, its twin for four at once."""
    folder = tmp_path_factory.mktemp("gans") / "workspace"
    shutil.copytree(prepared, folder)
    models = {name: (preset, MODELS[preset]) for preset in MODELS for name in (preset, f"{preset}_again")}
    select(
        folder,
        {name: (preset, {**changes, "budget_kimg": 0.016}) for name, (preset, changes) in models.items()},
        "short.yaml",
    )
    select(folder, models)
    lines = []
    for preset in MODELS:
        lines += [f"train {preset} --params short.yaml", f"train {preset}", f"train {preset}_again", f"export {preset}"]
        lines += [f"{line} --out {out}" for out, line in drawings(preset).items()]
    return folder, run_stages(folder, lines)


def read(folder: Path) -> np.ndarray:
    return np.stack([np.asarray(Image.open(path), np.int16) for path in sorted(folder.iterdir())])


@pytest.mark.parametrize("preset", MODELS)
def test_a_training_that_is_extended_equals_one_that_was_never_stopped(families, preset: str):
    folder, outcomes = families
    for line in (f"train {preset} --params short.yaml", f"train {preset}", f"train {preset}_again"):
        assert outcomes[line].code == 0, outcomes[line].err
    assert "going on from 0.0 kimg" in outcomes[f"train {preset}"].out
    assert "going on" not in outcomes[f"train {preset}_again"].out
    one, two = (folder / "models" / name / "training" for name in (preset, f"{preset}_again"))
    for part in ("weights", "samples"):
        assert sha256_tree(one / part) == sha256_tree(two / part), part
    assert sha256_file(one / "curve.json") == sha256_file(two / "curve.json")
    curve = read_json(one / "curve.json")
    assert [row["kimg"] for row in curve] == [0.016, 0.032]
    assert all(np.isfinite(row["loss_discriminator"]) for row in curve)
    assert "loss_generator" in curve[-1]
    assert len(list((one / "samples/raw").iterdir())) == 2


@pytest.mark.parametrize("preset", MODELS)
def test_a_trained_model_is_exported_and_draws_the_same_from_its_file(families, preset: str):
    folder, outcomes = families
    for line in (f"export {preset}", *(f"{line} --out {out}" for out, line in drawings(preset).items())):
        assert outcomes[line].code == 0, outcomes[line].err
    parity = read_json(folder / f"models/{preset}/onnx/parity.json")
    names = ["latent", *(["label"] if preset in LABELLED else []), *(["truncation"] if preset in TRUNCATED else [])]
    assert [each["name"] for each in parity["inputs"]] == names
    assert max(parity["max_abs_difference"].values()) < 1e-4
    drawn = {out: read(folder / out) for out in drawings(preset)}
    by_torch = drawn[f"drawn/{preset}/torch"]
    assert by_torch.shape == (2, 16, 16, 3)
    for out, pictures in drawn.items():
        difference = np.abs(pictures - drawn[out.replace("onnx", "torch").replace("cut_torch", "cut")]).max()
        assert difference <= 1, out
        if not out.endswith(("torch", "/onnx")) and "cut_onnx" not in out:
            assert np.abs(pictures - by_torch).max() > 1, out  # another class, or nearer to the mean


def test_what_an_architecture_adds_is_in_the_curve(families):
    folder, _ = families
    rows = {preset: read_json(folder / f"models/{preset}/training/curve.json")[-1] for preset in MODELS}
    assert {"r1", "path_length"} <= set(rows["stylegan2"])
    assert {"r1", "r2"} <= set(rows["r3gan"])
    assert "gradient_penalty" in rows["progan"]
    assert not {"r1", "r2", "gradient_penalty", "path_length"} & set(rows["gan"])


def test_progressive_growing_reaches_the_pictures(families):
    """In phases of four pictures, 8x8 is whole after the first tick, and the full 16x16 long before the end."""
    folder, _ = families
    grids = sorted((folder / "models/progan/training/samples").glob("*.png"))
    corners = [np.asarray(Image.open(path), np.int16)[8:72, 8:72].reshape(8, 8, 8, 8, 3) for path in grids]
    first, last = (corner == corner[:, :1, :, :1] for corner in corners)  # 64 pixels, of which 8x8 make one of 8x8
    assert first.all()
    assert not last.all()


@pytest.mark.slow
@pytest.mark.parametrize("preset", ["stylegan2", "progan"])
def test_asked_to_stop_it_saves_and_ends_as_an_undisturbed_one(families, tmp_path, monkeypatch, preset: str):
    copy_workspace(families[0], tmp_path, monkeypatch)
    folder = Path.cwd()
    select(
        folder,
        {
            preset: (
                preset,
                {**MODELS[preset], "budget_kimg": 1.6, "phase_kimg": 0.2}
                if preset == "progan"
                else {**MODELS[preset], "budget_kimg": 1.6},
            )
        },
    )
    shutil.rmtree(".work")
    process = subprocess.Popen([sys.executable, "-m", "stages.train", preset], stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 120
    while not list(Path(".work").glob(f"train/{preset}/*/state-*/manifest.json")) and time.monotonic() < deadline:
        time.sleep(0.02)
    process.send_signal(signal.SIGTERM)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 143, errors
    weights = []
    for _ in range(2):
        outcome = run_stages(folder, [f"train {preset}"])[f"train {preset}"]
        assert outcome.code == 0, outcome.err
        weights.append(sha256_tree(folder / f"models/{preset}/training/weights"))
        shutil.rmtree(".work")
    assert weights[0] == weights[1]


@pytest.fixture(scope="session")
def refusals(families, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Outcome]:
    """What came of trainings and drawings that cannot be, by the name of what is wrong."""
    folder = tmp_path_factory.mktemp("refused") / "workspace"
    shutil.copytree(families[0], folder)
    held = read_json(folder / "models/r3gan/training/weights/config.json")["identity"]["weights"]
    start = {"weights": "models/r3gan/training/weights", "sha256": held}
    no_class = {name: value for name, value in MODELS["r3gan"].items() if name != "condition"}
    select(
        folder,
        {
            "group": ("stylegan2", {**MODELS["stylegan2"], "minibatch_group": 3}),
            "halves": ("stylegan2", {**MODELS["stylegan2"], "accumulation": 2, "batch": 12, "minibatch_group": 4}),
            "ramp": ("r3gan", {**no_class, "batch_start": 2, "batch_ramp_kimg": 0.1, "accumulation": 4}),
            "other": ("progan", {**MODELS["progan"], "transfer": start}),
            "narrow": ("r3gan", {**no_class, "widths": [4, 4, 4], "transfer": start}),
            "unnamed": ("r3gan", {**no_class, "transfer": {"weights": start["weights"]}}),
            "absent": (
                "r3gan",
                {**no_class, "transfer": {"weights": "models/nobody/training/weights", "sha256": held}},
            ),
            "frozen": ("r3gan", {**no_class, "transfer": {**start, "freeze_discriminator": 9}}),
            "good": ("r3gan", {**no_class, "transfer": {**start, "freeze_discriminator": 1}}),
            "classless": ("cgan", {}),
            "one_class": ("stylegan2", MODELS["stylegan2"]),
        },
    )
    trainings = [
        f"train {name}"
        for name in ("group", "halves", "ramp", "other", "narrow", "unnamed", "absent", "frozen", "good")
    ]
    draw = "generators --out picture.png --model"
    drawings = [
        f"{draw} wgan --truncation 0.5",
        f"{draw} models/wgan/onnx/model.onnx --truncation 0.5",
        f"{draw} gan --label 0",
    ]
    found = run_stages(folder, trainings + drawings)
    described = folder / "data/images/dataset.json"
    write_json(described, {**read_json(described), "class_names": []})
    found |= run_stages(folder, ["train classless", "train one_class"])
    shutil.copy(folder / "models/good/training/record.json", folder.parent / "record.json")
    return found | {"record": Outcome(0, (folder.parent / "record.json").read_text(), "")}


REFUSED = {
    "train group": ("models.group.minibatch_group is 3, which does not divide the 8 pictures",),
    "train halves": ("models.halves.minibatch_group is 4, which does not divide the 6 pictures", "accumulation"),
    "train ramp": ("models.ramp.batch_start is 2", "accumulation 4", "multiple of 4"),
    "train other": (
        "models.other.transfer.weights is of family r3gan; progan can start from weights of family progan",
    ),
    "train narrow": ("models.narrow.transfer.weights", "it was trained with widths [8, 8, 8], here [4, 4, 4]"),
    "train unnamed": ("models.unnamed.transfer.sha256 is None", "set it to that"),
    "train absent": ("models.absent.transfer.weights is models/nobody", "lacks config.json"),
    "train frozen": ("freeze_discriminator is 9", "3 blocks"),
    "train classless": ("models.classless.condition is class, but the pictures have 0 classes", "condition: none"),
    "train one_class": ("models.one_class.condition is class",),
    "generators --out picture.png --model wgan --truncation 0.5": ("truncation 0.5", "dcgan", "stylegan2 and biggan"),
    "generators --out picture.png --model models/wgan/onnx/model.onnx --truncation 0.5": ("truncation 0.5", "dcgan"),
    "generators --out picture.png --model gan --label 0": ("label", "gan", "no classes"),
}


@pytest.mark.parametrize("line", REFUSED)
def test_what_cannot_be_is_refused_in_one_line(refusals: dict[str, Outcome], line: str):
    outcome = refusals[line]
    assert outcome.code == 2, outcome
    (said,) = outcome.err.splitlines()
    for words in REFUSED[line]:
        assert words in said


def test_a_start_from_other_weights_is_recorded_by_name(refusals: dict[str, Outcome]):
    assert refusals["train good"].code == 0, refusals["train good"].err
    assert refusals["train good"].out.count("good: generator from models/") == 1  # though networks are built twice
    record = json.loads(refusals["record"].out)["transfer"]
    skipped = {name.split()[0] for name in record["generator"]["skipped"]}
    assert skipped == {"classes.weight", "blocks.0.0.scales.weight"}  # the latent is half as wide without a class
    assert "blocks.0.1.widen.weight" in record["discriminator"]["taken"]
