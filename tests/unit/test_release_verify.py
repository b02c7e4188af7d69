"""The check that a release carries: every alteration is named, whatever was done to hide it."""

import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from pipelines.release.shipped.verify import check, metadata_of, read_metadata
from stages.storage import sha256_file, write_json
from tests.unit.release_folder import make_release, read_record, sum_anew, tiny_model

Alter = Callable[[Path], object]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_release(tmp_path_factory.mktemp("release") / "1.0.0")


@pytest.fixture
def folder(whole: Path, tmp_path: Path) -> Path:
    shutil.copytree(whole, tmp_path / "release")
    return tmp_path / "release"


def flip(name: str, place: int = -20) -> Alter:
    def alter(folder: Path) -> None:
        data = bytearray((folder / name).read_bytes())
        data[place] ^= 1
        (folder / name).write_bytes(data)

    return alter


def truncate(folder: Path) -> None:
    path = folder / "model.onnx"
    path.write_bytes(path.read_bytes()[:-100])


def swap_model(folder: Path) -> None:
    (folder / "model.onnx").write_bytes(tiny_model(seed=2)[0])
    sum_anew(folder)


def swap_and_list(folder: Path) -> None:
    """Put another model in and list it everywhere, but leave what the record says of where it comes from."""
    swap_model(folder)
    record = read_record(folder)
    sha256 = tiny_model(seed=2)[1]["sha256"]
    record["files"]["model.onnx"]["sha256"] = record["model"]["sha256"] = sha256
    write_json(folder / "release.json", record)
    sum_anew(folder)


def swap_variant(folder: Path) -> None:
    """Put half precision in place of full precision, listed everywhere."""
    shutil.copy(folder / "model-fp16.onnx", folder / "model.onnx")
    record = read_record(folder)
    sha256 = sha256_file(folder / "model.onnx")
    record["files"]["model.onnx"]["sha256"] = record["model"]["sha256"] = sha256
    write_json(folder / "release.json", record)
    sum_anew(folder)


def change_golden(folder: Path) -> None:
    """Change one golden picture and list the file anew, as only a look at the picture can tell."""
    with np.load(folder / "golden.npz") as arrays:
        values = dict(arrays)
    values["pictures"][3] += 0.01
    np.savez(folder / "golden.npz", **values)
    record = read_record(folder)
    record["files"]["golden.npz"]["sha256"] = sha256_file(folder / "golden.npz")
    write_json(folder / "release.json", record)
    sum_anew(folder)


def drop_line(folder: Path) -> None:
    lines = (folder / "SHA256SUMS").read_text().splitlines(keepends=True)
    (folder / "SHA256SUMS").write_text("".join(line for line in lines if "samples.png" not in line))


def edit_record(folder: Path) -> None:
    path = folder / "release.json"
    path.write_text(path.read_text().replace('"name": "tiny"', '"name": "tony"'))


def link_outside(folder: Path) -> None:
    shutil.move(folder / "samples.png", folder.parent / "samples.png")
    (folder / "samples.png").symlink_to(folder.parent / "samples.png")


def name_outside(folder: Path) -> None:
    record = read_record(folder)
    record["files"]["../secret"] = record["files"]["samples.png"]
    write_json(folder / "release.json", record)
    sum_anew(folder)


ALTERATIONS: dict[str, tuple[Alter, list[str]]] = {
    "a byte of the model": (flip("model.onnx", -2000), ["model.onnx has changed", "is not the model of this release"]),
    "a byte of the record": (edit_record, ["release.json has changed"]),
    "a byte of the golden file": (flip("golden.npz"), ["golden.npz has changed"]),
    "a byte of the samples": (flip("samples.png"), ["samples.png has changed"]),
    "a byte of this script": (flip("verify.py"), ["verify.py has changed"]),
    "another model, sums made anew": (
        swap_model,
        [
            "model.onnx is not the model of this release",
            "says that its weights are",
            "golden picture of seed 0 differs",
        ],
    ),
    "another model, listed anew": (swap_and_list, ["says that its weights are", "golden picture of seed 7 differs"]),
    "a byte of a variant": (flip("model-fp16.onnx", -2000), ["model-fp16.onnx has changed"]),
    "a variant in place of the model, listed anew": (
        swap_variant,
        ["model.onnx says that it is of fp16; release.json says full precision", "golden picture of seed 0 differs"],
    ),
    "a golden picture, listed anew": (change_golden, ["golden picture of seed 3 differs by 1.00e-02"]),
    "a missing file": (lambda folder: (folder / "generate.py").unlink(), ["generate.py is missing"]),
    "an extra file": (lambda folder: (folder / "more.txt").write_text("x"), ["more.txt is extra"]),
    "an extra file in a folder": (
        lambda folder: write_json(folder / "sub/more.txt", "x"),
        ["sub/more.txt is extra"],
    ),
    "a renamed file": (
        lambda folder: (folder / "samples.png").rename(folder / "other.png"),
        ["samples.png is missing; it is called other.png now"],
    ),
    "a truncated file": (truncate, ["model.onnx has changed: ", " bytes instead of "]),
    "a line less in SHA256SUMS": (drop_line, ["SHA256SUMS has no line for samples.png"]),
    "no SHA256SUMS": (lambda folder: (folder / "SHA256SUMS").unlink(), ["SHA256SUMS is missing"]),
    "no record": (lambda folder: (folder / "release.json").unlink(), ["release.json is missing"]),
    "a record that is none": (
        lambda folder: (folder / "release.json").write_text("{]"),
        ["release.json is not readable", "release.json has changed"],
    ),
    "a record without a hash": (
        lambda folder: write_json(folder / "release.json", read_record(folder) | {"files": {"golden.npz": 1}}),
        ["release.json has changed", "release.json does not hold what it should (TypeError"],
    ),
    "a link to elsewhere": (link_outside, ["samples.png is a link"]),
    "a name outside": (name_outside, ["release.json names ../secret, which lies outside of the release"]),
}


def test_a_release_is_whole_as_it_was_made(folder: Path):
    found = check(folder)
    assert found.problems == []
    assert "8 golden pictures redrawn by model.onnx with CPUExecutionProvider" in found.notes[0]
    assert "8 golden pictures redrawn by model-fp16.onnx with CPUExecutionProvider" in found.notes[1]
    assert "not signed; hashes prove that nothing was altered since, not who made it" in found.notes[2]


@pytest.mark.parametrize("kind", ALTERATIONS)
def test_an_alteration_is_named(folder: Path, kind: str):
    alter, expected = ALTERATIONS[kind]
    alter(folder)
    problems = check(folder).problems
    for text in expected:
        assert any(text in problem for problem in problems), problems
    names = {text.split()[0] for text in expected if text.split()[0].partition(".")[2]}
    assert all("has changed" not in line or line.split()[0] in names for line in problems), "nothing else is blamed"


def test_the_script_runs_alone_and_its_exit_code_tells(folder: Path, tmp_path: Path):
    line = [sys.executable, "-I", str(folder / "verify.py")]
    done = subprocess.run(line, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.endswith(": whole\n")
    flip("samples.png")(folder)
    (folder / "more.txt").write_text("x")
    done = subprocess.run(line, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 1
    assert done.stdout.endswith(": 2 problems\n")
    assert [error.split()[1] for error in done.stderr.splitlines()] == ["samples.png", "more.txt"]


def test_without_numpy_hashes_are_checked_and_it_says_what_was_not(folder: Path, tmp_path: Path):
    script = (
        "import runpy, sys; sys.modules['numpy'] = sys.modules['onnxruntime'] = None; sys.argv[0] = sys.argv[1]; "
        "del sys.argv[1]; runpy.run_path(sys.argv[0], run_name='__main__')"
    )
    line = [sys.executable, "-I", "-c", script, str(folder / "verify.py")]
    done = subprocess.run(line, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "pictures were not redrawn: numpy and onnxruntime cannot be imported" in done.stdout
    swap_and_list(folder)
    done = subprocess.run(line, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 1
    assert "model.onnx says that its weights are 222222222222; release.json names 111111111111" in done.stderr


def test_an_unknown_provider_has_no_tolerance(folder: Path):
    (problem,) = check(folder, "NoExecutionProvider").problems
    assert problem.startswith("NoExecutionProvider has no tolerance in release.json; it has CPUExecutionProvider")


def test_a_record_of_a_later_format_is_refused(folder: Path):
    record = read_record(folder)
    write_json(folder / "release.json", record | {"format": 2})
    sum_anew(folder)
    assert check(folder).problems == ["release.json is of format 2; this script reads 1"]


def test_sha256sum_agrees(folder: Path):
    done = subprocess.run(["sha256sum", "-c", "SHA256SUMS"], cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert {line.partition(":")[0] for line in done.stdout.splitlines()} == {
        path.name for path in folder.iterdir() if path.name != "SHA256SUMS"
    }


def test_metadata_are_read_without_onnx_as_onnx_reads_them(folder: Path):
    import onnx

    data = (folder / "model.onnx").read_bytes()
    expected = {entry.key: entry.value for entry in onnx.load_model_from_string(data).metadata_props}
    assert metadata_of(data) == read_metadata(folder / "model.onnx") == expected
    (folder / "empty").write_bytes(b"")
    assert read_metadata(folder / "empty") == {}
    for broken in (b"", b"not a model", data[:1000], bytes(100), b"\xff" * 50):
        assert metadata_of(broken) == {}
