"""From results to the folder that another team receives, and what they do with it, without this project."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image

from stages.dataset import to_uint8
from stages.storage import read_json, write_json
from tests.conftest import copy_workspace
from tests.stages.one_process import run_stages
from tests.stages.test_train_gans import PACE, select

MODELS = {
    "plain": ("gan", {}),
    "classes": ("biggan_cifar", {"latent": 12, "discriminator_steps": 2}),  # takes a class and a truncation
}
SECONDS = 120


@pytest.fixture(scope="session")
def finished(prepared: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with two models that have gone through all stages, without DVC and MLflow."""
    folder = tmp_path_factory.mktemp("finished") / "workspace"
    shutil.copytree(prepared, folder)
    select(folder, {name: (preset, {**changes, **PACE}) for name, (preset, changes) in MODELS.items()})
    params = yaml.safe_load((folder / "params.yaml").read_text())
    params["evaluate"] |= {
        "features": ["efficientnet_lite0"],
        "sampling": {"steps": [], "guidance": [], "truncation": [], "count": 16},
    }
    params["evaluate"]["usefulness"]["seeds"] = 0
    (folder / "params.yaml").write_text(yaml.safe_dump(params, sort_keys=False))
    lines = [f"{stage} {name}" for name in MODELS for stage in ("train", "export", "evaluate", "certify", "benchmark")]
    for line, outcome in run_stages(folder, lines).items():
        assert outcome.code == 0, f"{line}: {outcome.err}"
    return folder


@pytest.fixture(scope="session")
def released(finished: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder with a release of each model; the record of one is read by many tests."""
    folder = tmp_path_factory.mktemp("released") / "workspace"
    shutil.copytree(finished, folder)
    for name in MODELS:
        done = front_door("release", name, cwd=folder)
        assert done.returncode == 0, done.stderr
    return folder


@pytest.fixture
def results(finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the finished folder; it is the current one."""
    return copy_workspace(finished, tmp_path, monkeypatch)


@pytest.fixture(params=list(MODELS))
def received(request: pytest.FixtureRequest, released: Path, tmp_path: Path) -> Path:
    """A release, copied into an empty directory."""
    shutil.copytree(released / "releases" / request.param / "1.0.0", tmp_path / "received")
    return tmp_path / "received"


def front_door(name: str, *arguments: str, cwd: Path | None = None) -> subprocess.CompletedProcess:
    line = [sys.executable, "-m", f"pipelines.{name}", *arguments]
    env = os.environ | {"OMP_NUM_THREADS": "1"}
    return subprocess.run(line, cwd=cwd, env=env, capture_output=True, text=True, timeout=SECONDS)


def alone(script: Path, *arguments: str) -> subprocess.CompletedProcess:
    """Run a shipped script in its own folder's parent, without this project in reach."""
    line = [sys.executable, "-I", str(script), *arguments]
    return subprocess.run(line, cwd=script.parent.parent, capture_output=True, text=True, timeout=SECONDS)


def read(folder: Path) -> np.ndarray:
    return np.stack([np.asarray(Image.open(path), np.int16) for path in sorted(folder.iterdir())])


def test_what_is_received_verifies_and_draws_what_the_project_draws(received: Path, released: Path):
    name = read_json(received / "release.json")["name"]
    assert received.joinpath("model.onnx").read_bytes() == (released / f"models/{name}/onnx/model.onnx").read_bytes()
    done = alone(received / "verify.py")
    assert done.returncode == 0, done.stderr
    assert "8 golden pictures redrawn" in done.stdout
    wishes = ["--label", "happy", "--truncation", "0.4"] if name == "classes" else []
    for line, options in (("torch", [name]), ("file", [f"models/{name}/onnx/model.onnx"])):
        command = [sys.executable, "-m", "stages.generators", "--model", *options, "--count", "6", "--out", line]
        subprocess.run([*command, *wishes], cwd=released, check=True, capture_output=True)
    done = alone(received / "generate.py", "--seeds", "0-5", "--out", str(received.parent / "out"), *wishes)
    assert done.returncode == 0, done.stderr
    drawn = read(received.parent / "out")
    np.testing.assert_array_equal(drawn, read(released / "file"))
    assert np.abs(drawn - read(released / "torch")).max() <= 1
    assert alone(received / "verify.py").returncode == 0  # nothing was written beside the scripts


def test_the_record_holds_what_was_measured(received: Path, released: Path):
    record = read_json(received / "release.json")
    folder = released / "models" / record["name"]
    parity, scores = read_json(folder / "onnx/parity.json"), read_json(folder / "evaluation/scores.json")
    assert record["model"]["sha256"] == parity["sha256"]
    assert record["scores"]["scores"] == scores["scores"]
    assert record["scores"]["intervals"] == scores["intervals"]
    assert record["scores"]["recipes"] == scores["recipes"]
    assert record["scores"]["parity"]["max_abs_difference"] == parity["max_abs_difference"]
    assert record["benchmark"] == read_json(folder / "benchmark/benchmark.json")
    trained = read_json(folder / "training/record.json")
    assert record["training"]["fingerprint"] == trained["fingerprint"]
    assert record["training"]["settings"] == trained["settings"]
    assert record["training"]["git"] == {"commit": trained["git_commit"], "dirty": trained["git_dirty"]}
    assert record["data"]["licences"] == {"MIT": record["data"]["pictures"]}
    (source,) = record["data"]["sources"]
    assert source["train"] + source["holdout"] == record["data"]["pictures"]
    assert record["mlflow"] is None
    assert record["dvc"] == {}
    assert record["samples"]["seeds"] == list(range(64))
    names = [path.name for path in received.iterdir()]
    assert sorted([*record["files"], "release.json", "SHA256SUMS"]) == sorted(names)


def test_nothing_of_this_machine_is_handed_over(received: Path, released: Path):
    for path in received.iterdir():
        data = path.read_bytes()
        for place in (str(released.parent), str(Path.home()), os.environ.get("HOSTNAME", "no-host-name")):
            assert place.encode() not in data or place == "/", f"{path.name} names {place}"


def test_the_card_shows_the_numbers_of_the_files(received: Path):
    from huggingface_hub import ModelCard

    record = read_json(received / "release.json")
    card = ModelCard.load(received / "MODEL_CARD.md")
    assert card.data.model_name == f"{record['name']} 1.0.0"
    shown = {each.metric_type: each.metric_value for each in card.data.eval_results}
    assert shown
    assert all(value == round(record["scores"]["scores"][name], 5) for name, value in shown.items())
    for row in record["benchmark"]["rows"]:
        assert f"{row['provider']} | {row['batch']} |" in card.text
    assert f"weights `{record['model']['identity']['weights']}`" in card.text.lower()
    assert "None" not in card.text
    assert "{" not in card.text.replace("{record", "")


def test_the_next_release_is_compared_with_the_last(results: Path):
    versions = ["1.0.0", "1.1.0"]
    for version in versions:
        assert f"releases/plain/{version}: whole" in front_door("release", "plain").stdout
    assert sorted(path.name for path in Path("releases/plain").iterdir()) == versions
    path = Path("releases/plain/1.1.0/release.json")
    write_json(path, read_json(path) | {"contract": read_json(path)["contract"] | {"class_names": ["cat"]}})
    done = front_door("release", "plain", "--version", "1.2.0")
    assert done.returncode == 2
    assert "keeps MAJOR of 1.1.0, but the class names changed (gone: cat)" in done.stderr
    assert "releases/plain/2.0.0: whole" in front_door("release", "plain").stdout


def of_other_weights(path: str):
    def alter() -> None:
        write_json(Path(path), read_json(Path(path)) | {"identity": {"weights": "d" * 64}})

    return alter


def append(path: str):
    def alter() -> None:
        with Path(path).open("ab") as stream:
            stream.write(b"\0")

    return alter


def lock_another_file() -> None:
    outs = [{"path": "models/plain/onnx", "md5": "0" * 32 + ".dir", "size": 1}]
    Path("dvc.lock").write_text(yaml.safe_dump({"stages": {"export@plain": {"outs": outs}}}))


@pytest.mark.parametrize(
    ("alter", "arguments", "code", "message"),
    [
        (lambda: None, ["nope"], 2, "models/nope holds no finished training; trained here: classes, plain"),
        (lambda: None, ["../plain"], 2, "'../plain' is no model's name"),
        (lambda: None, ["plain", "--version", "one"], 2, "--version is one; expected MAJOR.MINOR.PATCH such as 1.0.0"),
        (
            lambda: Path("models/plain/evaluation/scores.json").unlink(),
            ["plain"],
            2,
            "models/plain/evaluation/scores.json does not exist or says nothing; run `dvc repro evaluate@plain`",
        ),
        (
            lambda: shutil.rmtree("models/plain/benchmark"),
            ["plain"],
            2,
            "models/plain/benchmark/benchmark.json does not exist or says nothing; run `dvc repro benchmark@plain`",
        ),
        (of_other_weights("models/plain/evaluation/scores.json"), ["plain"], 2, "is of weights dddddddddddd, but"),
        (of_other_weights("models/plain/onnx/parity.json"), ["plain"], 2, "run `dvc repro export@plain`"),
        (append("models/plain/onnx/model.onnx"), ["plain"], 3, "parity.json beside it describes"),
        (append("models/plain/training/weights/generator.safetensors"), ["plain"], 2, "is not the file of sha256"),
        (append("data/images/index.parquet"), ["plain"], 2, "but plain was trained on"),
        (
            lock_another_file,
            ["plain"],
            2,
            "dvc.lock names 00000000000000000000000000000000.dir; run `dvc repro export@",
        ),
    ],
)
def test_what_does_not_belong_together_is_refused_and_leaves_nothing(results, alter, arguments, code, message):
    alter()
    done = front_door("release", *arguments)
    assert done.returncode == code, done.stdout + done.stderr
    (line,) = [line for line in done.stderr.splitlines() if "releasing:" not in line]  # the bar of a slow day
    assert line.startswith("release: ")
    assert message in line
    assert not list(Path().glob("releases/**/*"))


def test_a_release_that_is_killed_leaves_no_half_one(results: Path):
    script = (
        "import os, signal, sys; from pipelines.release import assemble\n"
        "assemble.seal = lambda *_: os.kill(os.getpid(), signal.SIGKILL)\n"
        "from pipelines.release.__main__ import main; sys.argv[1:] = ['plain']; sys.exit(main())"
    )
    assert subprocess.run([sys.executable, "-c", script], capture_output=True).returncode == -9
    assert [path.name for path in Path("releases/plain").iterdir()] == [".1.0.0.partial"]
    assert front_door("release", "plain").returncode == 0
    assert [path.name for path in Path("releases/plain").iterdir()] == ["1.0.0"]


OLDEST = ["numpy==1.26.4", "onnxruntime==1.20.1", "Pillow==10.4.0"]  # the lower bounds of requirements.txt


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("packages", [["-r", "requirements.txt"], OLDEST], ids=["newest", "oldest"])
def test_a_bare_environment_of_three_packages_does(received: Path, tmp_path: Path, packages: list[str]):
    subprocess.run([sys.executable, "-m", "venv", str(tmp_path / "bare")], check=True)
    python = tmp_path / "bare/bin/python"
    done = subprocess.run([python, "-I", received / "verify.py"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "pictures were not redrawn: numpy and onnxruntime cannot be imported" in done.stdout
    subprocess.run([python, "-m", "pip", "install", "--quiet", *packages], cwd=received, check=True)
    done = subprocess.run([python, "-I", received / "verify.py"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "8 golden pictures redrawn by model.onnx" in done.stdout
    assert "8 golden pictures redrawn by model-fp16.onnx" in done.stdout
    grid = tmp_path / "grid.png"
    line = [python, "-I", received / "generate.py", "--seeds", "0-63", "--batch", "64", "--out", grid]
    subprocess.run(list(map(str, line)), check=True)
    drawn, samples = (np.asarray(Image.open(path), np.int16) for path in (grid, received / "samples.png"))
    assert np.abs(drawn - samples).max() <= 1


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.skipif(not shutil.which("npm"), reason="there is no Node on this machine")
def test_node_draws_the_golden_pictures(received: Path):
    subprocess.run(["npm", "install", "--ignore-scripts", "--no-audit", "--no-fund"], cwd=received, check=True)
    done = subprocess.run(
        ["node", "generate.mjs", "--golden", "--out", "pictures"], cwd=received, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert "they differ from golden.npz by at most" in done.stdout
    with np.load(received / "golden.npz") as arrays:
        golden = to_uint8(arrays["pictures"]).transpose(0, 2, 3, 1).astype(int)
    assert np.abs(read(received / "pictures") - golden).max() <= 1
    done = subprocess.run(
        ["node", "generate.mjs", "--seeds", "3-5", "--out", "own"], cwd=received, capture_output=True, text=True
    )
    assert done.stdout == "3 pictures in own; these seeds are not those of generate.py\n"
    assert len(read(received / "own")) == 3
    refused = subprocess.run(["node", "generate.mjs", "--label", "dog"], cwd=received, capture_output=True, text=True)
    assert refused.returncode == 1
    assert refused.stderr.startswith("generate: --label is dog; this model has ")


def test_the_front_door_names_what_was_altered(received: Path):
    assert front_door("verify", str(received)).returncode == 0
    (received / "samples.png").unlink()
    done = front_door("verify", str(received))
    assert done.returncode == 3
    assert done.stderr == f"verify: {received} is not as it was made: samples.png is missing\n"
    done = front_door("verify", str(received.parent / "none"))
    assert done.returncode == 2
    assert "none is no folder; expected a release such as releases/NAME/1.0.0" in done.stderr
