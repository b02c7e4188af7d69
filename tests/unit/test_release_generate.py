"""The script with which a release is drawn from, run alone in a process of its own."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pipelines.release.shipped import generate
from pipelines.release.shipped.verify import check
from stages.dataset import to_uint8
from stages.export.run import build
from stages.generators.interface import Asked
from stages.generators.onnx_file import OnnxGenerator
from stages.sheet import sheet
from tests.unit.release_folder import make_release, read_record
from tests.unit.test_diffusers_folder import make_generator


@pytest.fixture(scope="module")
def classes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_release(tmp_path_factory.mktemp("release") / "1.0.0")


@pytest.fixture(scope="module")
def classless(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_release(tmp_path_factory.mktemp("release") / "1.0.0", classes=0)


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def run(folder: Path, *arguments: str) -> subprocess.CompletedProcess:
    line = [sys.executable, "-I", str(folder / "generate.py"), *arguments]
    return subprocess.run(line, capture_output=True, text=True)


def read(path: str | Path) -> np.ndarray:
    return np.asarray(Image.open(path)).astype(int)


def drawn(folder: Path, seeds: range, asked: Asked) -> np.ndarray:
    """Return what the file draws by the project's own code, uint8 as integers."""
    pictures = OnnxGenerator(folder / "model.onnx").draw(seeds, asked=asked)
    return to_uint8(np.concatenate(list(pictures))).transpose(0, 2, 3, 1).astype(int)


@pytest.mark.parametrize(
    ("arguments", "asked"),
    [
        ([], Asked()),
        (["--label", "class 2"], Asked(label=2)),
        (["--truncation", "0.3"], Asked(truncation=0.3)),
        (["--label", "class 1", "--truncation", "0.7", "--batch", "3"], Asked(label=1, truncation=0.7)),
    ],
)
def test_a_folder_of_pictures_is_what_the_project_draws(classes: Path, arguments, asked):
    done = run(classes, "--seeds", "5-11", "--out", "deep/out", *arguments)
    assert done.returncode == 0, done.stderr
    assert done.stdout == "7 pictures in deep/out\n"
    names = sorted(path.name for path in Path("deep/out").iterdir())
    assert names == [f"seed-{seed:06d}.png" for seed in range(5, 12)]
    found = np.stack([read(Path("deep/out", name)) for name in names])
    assert np.abs(found - drawn(classes, range(5, 12), asked)).max() <= 1
    assert found.std() > 0


def test_the_grid_of_the_samples_is_the_samples(classes: Path):
    assert run(classes, "--seeds", "0-63", "--batch", "64", "--out", "grid.png").returncode == 0
    np.testing.assert_array_equal(read("grid.png"), read(classes / "samples.png"))


def test_one_seed_is_one_picture_and_many_may_be_listed(classless: Path):
    assert run(classless, "--seeds", "7", "--out", "one.png").returncode == 0
    assert run(classless, "--seeds", "3,7,20-21", "--out", "out").returncode == 0
    np.testing.assert_array_equal(read("one.png"), read("out/seed-000007.png"))
    assert len(list(Path("out").iterdir())) == 4


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["classes", "text"])
def test_models_that_draw_in_steps_are_drawn_from_their_defaults(kind: str, tmp_path: Path):
    """One takes a class and latents of pictures, the other a prompt, which is the empty one, and guidance."""
    folder = make_release(tmp_path / "1.0.0", made=build(make_generator(kind, tmp_path / "encoders"), 20))
    assert check(folder).problems == []
    taken = [entry["name"] for entry in read_record(folder)["contract"]["inputs"]]
    assert ("label" in taken, "input_ids" in taken) == ((True, False) if kind == "classes" else (False, True))
    wishes = {"--guidance": "3"} if "guidance" in taken else {}
    done = run(folder, "--seeds", "2-6", "--out", "out", *(word for pair in wishes.items() for word in pair))
    assert done.returncode == 0, done.stderr
    found = np.stack([read(path) for path in sorted(Path("out").iterdir())])
    expected = drawn(folder, range(2, 7), Asked(guidance=3.0 if wishes else None))
    assert np.abs(found - expected).max() <= 1


@pytest.mark.parametrize("count", [1, 2, 5, 16])
@pytest.mark.parametrize("channels", [1, 3])
def test_grids_are_laid_out_as_the_project_does(count, channels):
    pictures = np.random.default_rng(0).integers(0, 255, (count, 4, 6, channels), np.uint8)
    found = generate.grid(pictures)
    expected = np.asarray(sheet(pictures)).reshape(found.shape[0], found.shape[1], channels)
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize(
    ("release", "arguments", "message"),
    [
        ("classes", ["--label", "dog"], "--label is dog; 3 classes are known, such as class 0, class 1, class 2"),
        ("classless", ["--label", "class 0"], "--label was given, but this model takes latent, truncation only"),
        ("classes", ["--guidance", "2"], "--guidance was given, but this model takes latent, label, truncation only"),
        ("classes", ["--seeds", "a-b"], "--seeds is a-b; expected numbers such as 0-15 or 3,7,20-29"),
        ("classes", ["--seeds", "-1"], "--seeds"),
        ("classes", ["--seeds", "1-2-3"], "--seeds is 1-2-3; expected numbers"),
        ("classes", ["--seeds", ""], "--seeds is ; expected numbers"),
        ("classes", ["--seeds", "9-3"], "--batch 16 of 0 seeds draws nothing; expected 1 or more of both"),
        ("classes", ["--batch", "0"], "--batch 0 of 16 seeds draws nothing; expected 1 or more of both"),
        ("classes", ["--truncation", "much"], "argument --truncation: invalid float value: 'much'"),
    ],
)
def test_bad_input_is_told_and_nothing_is_written(release, arguments, message, request):
    done = run(request.getfixturevalue(release), "--out", "out", *arguments)
    assert done.returncode in (1, 2)
    assert message in done.stderr.splitlines()[-1]
    assert "Traceback" not in done.stderr
    assert not Path("out").exists()


def test_it_is_short_and_needs_three_packages():
    text = Path(generate.__file__).read_text()
    assert text.count("\n") < 80
    imports = {line.split()[1].partition(".")[0] for line in text.splitlines() if line.startswith(("import ", "from "))}
    assert imports - set(sys.stdlib_module_names) == {"numpy", "onnxruntime", "PIL"}
