"""Certificates: the verdict's limits, differences by hand, and pictures that are drawn alike."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from stages.certify.drawing import differences, draw
from stages.certify.run import difference_sheet, find_files
from stages.certify.verdict import failures
from stages.errors import GateError, InputError
from stages.export.run import build
from stages.generators.interface import Capabilities, Generator, Request
from stages.generators.onnx_metadata import files_in
from stages.settings.results import CertifySettings
from stages.storage import sha256_bytes
from tests.unit.gans import opened

SETTINGS = CertifySettings.model_validate(
    {"count": 64, "fd_window": 0.02, "recall_window": 0.03, "psnr": {"model": 60, "fp16": 50, "int8": 30}}
)
TORCH = {"fd": 100.0, "recall": 0.5}


def figures(fd: float = 100.0, recall: float = 0.5, p5: float = 70.0) -> dict[str, Any]:
    return {"fd": fd, "recall": recall, "psnr": {"p5": p5}}


@pytest.mark.parametrize(
    ("form", "changes", "told"),
    [
        ("model", {}, []),
        ("fp16", {"fd": 102.0, "recall": 0.47, "p5": 50.0}, []),
        ("fp16", {"fd": 98.0}, []),
        ("fp16", {"fd": 102.1}, ["Fréchet distance 102.10; expected 98.00 to 102.00, certify.fd_window 0.02 around"]),
        ("fp16", {"fd": 97.9}, ["Fréchet distance 97.90"]),
        ("fp16", {"recall": 0.46}, ["recall 0.460; expected at least 0.470, torch's 0.500 less certify.recall_window"]),
        ("model", {"p5": 59.9}, ["95 % of pictures reach 59.9 dB to torch's; certify.psnr.model asks for 60"]),
        ("int8", {"p5": 59.9}, []),
        ("int8", {"fd": 200.0, "recall": 0.0, "p5": 9.0}, ["Fréchet", "recall", "certify.psnr.int8 asks for 30"]),
        ("fp16", {"recall": 0.9, "p5": 126.0}, []),
    ],
)
def test_each_limit_has_its_line(form, changes, told):
    found = failures(SETTINGS, form, figures(**changes), TORCH)
    assert len(found) == len(told)
    assert all(part in line for part, line in zip(told, found, strict=True))


def test_differences_are_those_of_a_loop():
    random = np.random.default_rng(0)
    one = random.uniform(-1, 1, (7, 3, 4, 4)).astype(np.float32)
    other = (one + random.normal(0, 0.01, one.shape)).astype(np.float32)
    other[3] = one[3]
    found = differences(one, other, 3)
    errors = [float(((a.astype(float) - b) ** 2).mean()) for a, b in zip(one, other, strict=True)]
    psnr = [126.02 if error == 0 else 10 * np.log10(4 / error) for error in errors]
    assert found["max_abs_error"] == pytest.approx(np.abs(one.astype(float) - other).max())
    assert found["mean_abs_error"] == pytest.approx(np.abs(one.astype(float) - other).mean())
    assert found["psnr"]["min"] == pytest.approx(min(psnr), abs=1e-3)
    assert found["psnr"]["p50"] == pytest.approx(np.median(psnr), abs=1e-3)
    assert found["psnr"]["p5"] == pytest.approx(np.percentile(psnr, 5), abs=1e-2)


class Broken(Generator):
    """Draws one picture that is not a number."""

    capabilities = Capabilities("dcgan", (2,), 4, 3)
    identity: dict[str, str] = {}

    def generate(self, request: Request) -> np.ndarray:
        drawn = np.zeros((len(request.latent), 3, 4, 4), np.float32)
        drawn[-1, 0, 0, 0] = np.nan
        return drawn

    def resampled(self, steps: int | None, sampler: str | None) -> "Broken":
        return self


def test_a_picture_that_is_not_a_number_is_a_gate(tmp_path: Path):
    with pytest.raises(GateError, match="fp16 draws NaN or infinity among the seeds 5 and on"):
        draw("fp16", Broken(), range(5, 9), 4, tmp_path / "x.npy")


def test_all_pictures_are_kept_in_the_order_of_their_seeds(tmp_path: Path):
    generator = opened("r3gan")
    drawn = draw("torch", generator, range(3, 10), 4, tmp_path / "x.npy")
    one_by_one = [next(iter(generator.draw(range(seed, seed + 1), 1)))[0] for seed in range(3, 10)]
    np.testing.assert_allclose(drawn, np.stack(one_by_one), atol=1e-5)


def write_file(folder: Path, **changes: Any) -> dict[str, Any]:
    """Write an exported file; returns what parity.json would say."""
    data, described = build(opened("gan"), 20)
    (folder / "model.onnx").write_bytes(data)
    return {"identity": {"weights": "a" * 64}, **described, "sha256": sha256_bytes(data), **changes}


def test_only_the_files_that_parity_describes_are_certified(tmp_path: Path):
    parity = write_file(tmp_path, variants={"int8": {"left_out": "no convolution"}})
    found, left_out = find_files(tmp_path, parity, "a" * 64)
    assert list(found) == ["model"]
    assert left_out == {"int8": "no convolution"}
    with pytest.raises(InputError, match="exported from weights aaaaaaaaaaaa, but the trained ones are bbbb"):
        find_files(tmp_path, parity, "b" * 64)
    with pytest.raises(InputError, match=r"model.onnx is not the file that .*parity.json describes"):
        find_files(tmp_path, parity | {"sha256": "0"}, "a" * 64)
    with pytest.raises(InputError, match=r"model-fp16.onnx"):
        find_files(tmp_path, parity | {"variants": {"fp16": {"sha256": "0"}}}, "a" * 64)


def test_forms_are_found_by_their_files(tmp_path: Path):
    assert list(files_in(tmp_path)) == ["model"]
    for name in ("model-int8.onnx", "model-fp16.onnx", "model-int4.onnx"):
        (tmp_path / name).touch()
    assert list(files_in(tmp_path)) == ["model", "fp16", "int8"]


def test_the_sheet_shows_what_differs_around_grey():
    torch = np.zeros((8, 3, 64, 64), np.float32)
    drawn = torch.copy()
    drawn[2, :, :32] = 0.125
    shown = np.asarray(difference_sheet({"torch": torch, "model": torch, "int8": drawn}))
    assert shown.shape == (5 * 65 + 1, 8 * 65 + 1, 3)
    last = shown[4 * 65 + 1 :]
    assert set(np.unique(last[1:30, 2 * 65 + 2 : 3 * 65 - 1])) == {255}
    assert np.ptp(last[33:60, 2 * 65 + 2 : 3 * 65 - 1]) == 0
