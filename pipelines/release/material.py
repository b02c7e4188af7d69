"""Reads all that a release is made of, and refuses what does not belong together."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipelines.release.locked import check_locked, locked_outputs
from pipelines.results import PIECES, Results, is_trained, read_results
from stages.dataset import ImageDataset
from stages.errors import GateError, InputError
from stages.generators.loading import MODELS, check_weights
from stages.generators.onnx_file import OnnxGenerator
from stages.generators.onnx_metadata import FULL, file_name
from stages.process import MODEL_NAME
from stages.storage import read_json, sha256_file

IMAGES, LOCK = Path("data/images"), Path("dvc.lock")
STAGE_OF = {"scores": "evaluate", "parity": "export", "certificate": "certify", "benchmark": "benchmark"}
SHOWN = 12  # digits of a hash in a message


@dataclass(frozen=True)
class Material:
    """One model's results, its ONNX file opened on the CPU, its pictures, and what dvc.lock says of its stages."""

    results: Results
    generator: OnnxGenerator
    dataset: ImageDataset
    locked: dict[str, list[dict[str, Any]]]

    @property
    def model(self) -> Path:
        """The ONNX file."""
        return self.generator.path

    @property
    def variants(self) -> dict[str, Path]:
        """The smaller files that were certified, by form."""
        certified = self.results.certificate["files"]
        return {form: self.model.with_name(file_name(form)) for form in certified if is_released(certified, form)}


def is_released(certified: dict[str, Any], form: str) -> bool:
    """Return whether a form is a variant that passed."""
    return form != FULL and bool(certified[form]["passed"])


def gather(name: str) -> Material:
    """Read a model's results and check that all of them are of one training and one ONNX file.

    Raises:
        InputError: the model is not trained, a result is missing, of other weights, or not the one of dvc.lock; or
            data/images holds other pictures than it was trained on.
        GateError: the ONNX file is not the one that parity.json describes.
    """
    if not MODEL_NAME.fullmatch(name):  # it becomes part of paths
        raise InputError(f"{name!r} is no model's name: letters, digits, - and _ only")
    if not is_trained(name):
        trained = sorted(path.name for path in MODELS.glob("*") if is_trained(path.name))
        raise InputError(f"{MODELS / name} holds no finished training; trained here: {', '.join(trained) or 'none'}")
    results = read_results(name)
    check_pieces(results)
    generator = OnnxGenerator(check_onnx(results))
    check_certificate(results)
    dataset = ImageDataset(IMAGES)
    check_dataset(dataset, generator.identity["dataset"], name)
    locked = locked_outputs(LOCK, name)
    check_locked(locked)
    return Material(results, generator, dataset, locked)


def check_pieces(results: Results) -> None:
    """Make sure that scores, parity, certificate and benchmark are there and of the present weights.

    Raises:
        InputError: one is not, or the weights are not those that their config names.
    """
    weights = results.folder / "training" / "weights"
    check_weights(weights, read_json(weights / "config.json", f"run `dvc repro train@{results.name}`"))
    for piece, path in PIECES.items():
        remedy = f"run `dvc repro {STAGE_OF[piece]}@{results.name}`"
        if piece in results.foreign:
            found = read_json(results.folder / path).get("identity", {}).get("weights", "none")
            raise InputError(
                f"{results.folder / path} is of weights {found[:SHOWN]}, but {weights} holds "
                f"{results.weights[:SHOWN]}; {remedy}"
            )
        if not getattr(results, piece):
            raise InputError(f"{results.folder / path} does not exist or says nothing; {remedy}")


def check_onnx(results: Results) -> Path:
    """Return the ONNX file's path.

    Raises:
        GateError: it is not the file that its parity record describes, so that nobody has measured it.
    """
    path, expected = results.folder / "onnx" / "model.onnx", results.parity["sha256"]
    found = sha256_file(path) if path.exists() else "none, since it is not there"
    if found != expected:
        raise GateError(
            f"{path} has sha256 {found}, parity.json beside it describes {expected}; run `dvc repro "
            f"export@{results.name}`"
        )
    return path


def check_certificate(results: Results) -> None:
    """Make sure that the certificate is of the files that are here.

    Raises:
        GateError: a file is another one than was certified, or the one of full precision failed.
    """
    for form, entry in results.certificate["files"].items():
        path = results.folder / "onnx" / entry["file"]
        found = sha256_file(path) if path.exists() else "none, since it is not there"
        if found != entry["sha256"]:
            raise GateError(
                f"{path} has sha256 {found[:SHOWN]}, {PIECES['certificate']} is of {entry['sha256'][:SHOWN]}; run "
                f"`dvc repro certify@{results.name}`"
            )
        if form == FULL and not entry["passed"]:
            raise GateError(f"{path} must not be released: {'; '.join(entry['failures'])}")


def check_dataset(dataset: ImageDataset, expected: str, name: str) -> None:
    """Make sure that the pictures here are those that a model was trained on: their licences are written down.

    Raises:
        InputError: they are others, or absent.
    """
    found = dataset.content_hash
    if found != expected:
        raise InputError(
            f"{dataset.folder} has sha256 {found[:SHOWN]}, but {name} was trained on {expected[:SHOWN]}; "
            f"run `dvc repro train@{name}`, or check out the data that it was trained on"
        )
