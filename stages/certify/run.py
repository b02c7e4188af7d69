"""Compares what each ONNX file of a model draws with torch's pictures, and both with the hold-out."""

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from stages.certify.drawing import differences, draw
from stages.certify.verdict import failures
from stages.dataset import to_uint8
from stages.errors import GateError, InputError
from stages.evaluate.inputs import Inputs, check
from stages.generators.onnx_metadata import FULL, file_name
from stages.process import STOP
from stages.progress import progress_bar
from stages.settings import CertifySettings, EvaluateSettings
from stages.sheet import sheet
from stages.storage import read_json, require, sha256_file, whole_folder, write_json

if TYPE_CHECKING:
    from stages.certify.judge import Judge
    from stages.generators.interface import Generator

SHOWN = 8  # pictures of each file on the sheet
MAGNIFIED = 8  # differences on the sheet, times this


def run(
    settings: CertifySettings, evaluate: EvaluateSettings, inputs: Inputs, onnx: Path, folder: Path
) -> dict[str, Any]:
    """Write certificate.json, metrics.json (in short, for DVC) and a sheet of what differs; returns the certificate.

    Raises:
        InputError: an input is absent, too small, or the files are not those of parity.json or of other weights.
        GateError: the file of full precision fails; variants that fail are certified as not to be released.
    """
    from stages.certify.judge import Judge
    from stages.generators.loading import load_trained

    pictures, _ = check(evaluate.model_copy(update={"count": settings.count, "inception": None}), inputs)
    trained = load_trained(inputs.weights)
    parity = read_json(require(onnx / "parity.json", f"export {inputs.model}"))
    files, left_out = find_files(onnx, parity, trained.identity.get("weights", ""))
    judge = Judge(settings, evaluate, inputs, pictures)
    figures, rows = measure(judge, {"torch": trained, **files}, evaluate.batch)
    torch = figures.pop("torch")
    entries: dict[str, Any] = {
        name: {"file": path.name, "sha256": sha256_file(path), "bytes": path.stat().st_size, **figures[name]}
        for name, path in ((name, onnx / file_name(name)) for name in files)
    }
    for name, entry in entries.items():
        entry["failures"] = failures(settings, name, entry, torch)
        entry["passed"] = not entry["failures"]
        print(line_of(name, entry, torch), flush=True)
    for name, reason in left_out.items():
        print(f"{name:<6} left out: {reason}", flush=True)
    if entries[FULL]["failures"]:
        raise GateError(f"{onnx / file_name(FULL)} must not be released: {'; '.join(entries[FULL]['failures'])}")
    certificate = {
        "model": inputs.model,
        "identity": trained.identity,
        "count": settings.count,
        "provider": "CPUExecutionProvider",
        "limits": settings.model_dump(),
        "torch": torch,
        "files": entries,
        "left_out": left_out,
    }
    write(certificate, rows, folder)
    return certificate


def find_files(onnx: Path, parity: dict[str, Any], weights: str) -> tuple[dict[str, "Generator"], dict[str, str]]:
    """Return the files that parity.json describes, opened, and why variants are left out.

    Raises:
        InputError: a file is absent or another one, or it was exported from other weights.
    """
    from stages.generators.onnx_file import OnnxGenerator

    if parity["identity"]["weights"] != weights:
        raise InputError(
            f"{onnx} was exported from weights {parity['identity']['weights'][:12]}, but the trained ones are "
            f"{weights[:12]}; export it again"
        )
    described = {FULL: parity, **parity.get("variants", {})}
    left_out = {name: part["left_out"] for name, part in described.items() if "left_out" in part}
    found: dict[str, Generator] = {}
    for name, part in described.items():
        if name in left_out:
            continue
        path = require(onnx / file_name(name), "export it again")
        if sha256_file(path) != part["sha256"]:
            raise InputError(f"{path} is not the file that {onnx / 'parity.json'} describes; export it again")
        found[name] = OnnxGenerator(path)
    return found, left_out


def measure(
    judge: "Judge", generators: dict[str, "Generator"], batch: int
) -> tuple[dict[str, dict[str, Any]], dict[str, np.ndarray]]:
    """Return each generator's scores and, of all but torch's, which is first, differences to it; and some pictures."""
    found, rows, expected = dict[str, dict[str, Any]](), dict[str, np.ndarray](), None
    with tempfile.TemporaryDirectory() as temporary, progress_bar("certifying", len(generators), "files") as bar:
        for name, generator in generators.items():
            drawn = draw(name, judge.asked(generator), judge.seeds, batch, Path(temporary) / f"{name}.npy")
            found[name] = judge.scores(name, drawn)
            if expected is None:
                expected = drawn
            else:
                found[name] |= differences(drawn, expected, batch)
            rows[name] = np.array(drawn[:SHOWN])
            bar.update()
    return found, rows


def line_of(name: str, entry: dict[str, Any], torch: dict[str, Any]) -> str:
    """Return one file's verdict as text."""
    verdict = "passed" if entry["passed"] else f"NOT to be released: {'; '.join(entry['failures'])}"
    return (
        f"{name:<6} {entry['bytes']:>12,} bytes, {entry['psnr']['p5']:5.1f} dB (95 % of pictures), largest difference "
        f"{entry['max_abs_error']:.1e}, FD {entry['fd']:.2f} (torch {torch['fd']:.2f}), recall {entry['recall']:.3f} "
        f"({torch['recall']:.3f}): {verdict}"
    )


def write(certificate: dict[str, Any], rows: dict[str, np.ndarray], folder: Path) -> None:
    """Write everything whole; equal inputs give equal bytes."""
    short = {
        f"{name}_{key}": value
        for name, entry in certificate["files"].items()
        for key, value in {"psnr_p5": entry["psnr"]["p5"], "fd": entry["fd"], "passed": int(entry["passed"])}.items()
    }
    with STOP.defer(), whole_folder(folder) as partial:
        write_json(partial / "certificate.json", certificate)
        write_json(partial / "metrics.json", short)
        difference_sheet(rows).save(partial / "differences.png")


def difference_sheet(rows: dict[str, np.ndarray]) -> Any:
    """Return torch's pictures, and below them, for each file, its own and eight times the difference, around grey."""
    torch = rows["torch"]
    lines = [torch]
    for name, drawn in rows.items():
        if name != "torch":
            lines += [drawn, np.clip((drawn - torch) * MAGNIFIED, -1, 1)]
    pictures = to_uint8(np.concatenate(lines)).transpose(0, 2, 3, 1)
    return sheet(pictures, columns=len(torch), zoom=max(1, 64 // torch.shape[-1]))
