"""`python -m stages.generators` as a process: one seed, one picture, from torch and from ONNX alike."""

import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

FILE = "models/dcgan/onnx/model.onnx"


def read(path: str | Path) -> np.ndarray:
    return np.asarray(Image.open(path)).astype(int)


def test_torch_and_onnx_draw_the_same_pictures(exported, run_stage):
    for model, out in (("dcgan", "torch"), (FILE, "onnx")):
        done = run_stage("generators", "--model", model, "--seed", "7", "--count", "9", "--out", out)
        assert done.returncode == 0, done.stderr
        assert "9 pictures" in done.stdout
    names = [f"seed-{seed:06d}.png" for seed in range(7, 16)]
    assert sorted(path.name for path in Path("torch").iterdir()) == names
    pictures = [(read(Path("torch", name)), read(Path("onnx", name))) for name in names]
    assert all(a.shape == (16, 16, 3) for a, _ in pictures)
    assert max(np.abs(a - b).max() for a, b in pictures) <= 1
    assert np.abs(pictures[0][0] - pictures[1][0]).max() > 1  # other seeds, other pictures


def test_one_picture_a_sheet_and_a_folder_agree(exported, run_stage):
    def draw(seed: int, count: int, out: str) -> None:
        done = run_stage("generators", "--model", FILE, "--seed", str(seed), "--count", str(count), "--out", out)
        assert done.returncode == 0, done.stderr

    draw(5, 1, "one.png")
    draw(3, 4, "deep/sheet.png")
    draw(5, 1, "folder")
    draw(5, 1, "one.webp")
    one = read("one.png")
    np.testing.assert_array_equal(one, read("folder/seed-000005.png"))
    np.testing.assert_array_equal(one, read("one.webp"))
    sheet = read("deep/sheet.png")
    assert sheet.shape == (35, 35, 3)
    assert np.abs(sheet[18:34, 1:17] - one).max() <= 1  # third of four, in reading order


def test_a_jpeg_is_written_as_one(exported, run_stage):
    assert run_stage("generators", "--model", FILE, "--count", "2", "--out", "a.jpg").returncode == 0
    assert Image.open("a.jpg").format == "JPEG"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"--model": "nope"}, "models/nope does not exist; trained models here: dcgan"),
        ({"--model": "none.onnx"}, "none.onnx cannot be read"),
        ({"--model": "params.onnx"}, "params.onnx"),
        ({"--count": "0"}, "--count is 0; expected 1 or more"),
        ({"--seed": "-1"}, "--seed is -1; expected 0 or more"),
        ({"--seed": str(2**128)}, "below 2**128"),
        ({"--out": "a.gif"}, "--out is a.gif; pictures are written as .png"),
        ({"--out": "params.yaml/a.png"}, "--out params.yaml/a.png cannot be written"),
        ({"--out": "params.yaml"}, "--out params.yaml cannot be written"),
        ({"--label": "3"}, "--label is 3, but this dcgan model has no classes"),
        ({"--prompt": "a cat"}, "a prompt was given, but this dcgan model takes none"),
        ({"--guidance": "3"}, "guidance 3 was asked for, but this dcgan model takes none"),
        ({"--guidance": "nan"}, "--guidance is nan; expected a number of 0 or more"),
        ({"--steps": "20"}, "steps or a sampler were given, but this dcgan model draws in one pass"),
        ({"--sampler": "ddim"}, "steps or a sampler were given, but this dcgan model draws in one pass"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_two(trained_workspace, run_stage, changes, message):
    Path("params.onnx").write_text("not a model")
    arguments = {"--model": "dcgan", "--seed": "0", "--count": "1", "--out": "out.png"} | changes
    done = run_stage("generators", *(f"{name}={value}" for name, value in arguments.items()))
    assert done.returncode == 2, done.stderr
    assert message in done.stderr
    assert done.stderr.count("\n") == 1
    assert not Path("out.png").exists()


def test_an_onnx_file_refuses_what_it_was_not_exported_with(exported, run_stage):
    for wish, message in (
        (("--steps", "9"), f"{FILE} draws in 1 steps, fixed at export; leave steps out"),
        (("--label", "0"), "--label is 0, but this dcgan model has no classes"),
    ):
        done = run_stage("generators", "--model", FILE, "--out", "out.png", *wish)
        assert done.returncode == 2, done.stderr
        assert message in done.stderr and done.stderr.count("\n") == 1
    assert not Path("out.png").exists()


def test_help_answers_at_once(run_stage):
    start = time.perf_counter()
    done = run_stage("generators", "--help")
    assert done.returncode == 0
    for option in ("--model", "--label", "--prompt", "--negative-prompt", "--guidance", "--steps", "--sampler"):
        assert option in done.stdout
    assert time.perf_counter() - start < 1
