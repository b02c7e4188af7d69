"""Opens any generator by name or file; the only place that turns a family's name into its code."""

import importlib
from pathlib import Path
from typing import Any

from stages.errors import InputError
from stages.generators.interface import Generator, TorchGenerator
from stages.storage import files_digest, read_json, require

MODELS = Path("models")


def check_weights(weights: Path, config: dict[str, Any]) -> None:
    """Compare the generator's files with the sha256 that their config records.

    Raises:
        InputError: they differ.
    """
    expected = config["identity"]["weights"]
    names = config.get("files", ["generator.safetensors"])
    if not all((weights / name).is_file() for name in names) or files_digest(weights, names) != expected:
        raise InputError(
            f"{weights / names[0]} is not the file of sha256 {expected[:12]} that its config names; run `dvc repro`"
        )


def train_of(weights: Path) -> str:
    """Return the stage and model that write a weights folder models/NAME/training/weights."""
    return f"train {weights.parent.parent.name}"


def load_trained(weights: Path) -> TorchGenerator:
    """Open the EMA generator of a weights folder (generator.safetensors and config.json).

    Raises:
        InputError: the folder is absent, damaged, or of a family that this version does not know.
    """
    config = read_json(
        require(weights, train_of(weights)) / "config.json", f"run `python -m stages.{train_of(weights)}`"
    )
    check_weights(weights, config)
    family = config["family"]
    try:
        module = importlib.import_module(f"stages.generators.{family}")
    except ModuleNotFoundError as error:
        raise InputError(f"{weights}: family {family} is unknown to this version") from error
    loaded: TorchGenerator = module.load(weights, config)
    return loaded


def open_generator(model: str) -> Generator:
    """Open a trained model by its name under models/, or an ONNX file by its path.

    Raises:
        InputError: there is neither.
    """
    if model.endswith(".onnx"):
        from stages.generators.onnx_file import OnnxGenerator

        return OnnxGenerator(Path(model))
    if not (MODELS / model).is_dir():
        names = sorted(p.name for p in MODELS.glob("*") if (p / "training").is_dir())
        raise InputError(f"{MODELS / model} does not exist; trained models here: {', '.join(names) or 'none'}")
    return load_trained(MODELS / model / "training" / "weights")


def load_untrained(weights: Path, seed: int = 0) -> TorchGenerator:
    """Return the architecture of a weights folder with fresh weights: the baseline that training must beat."""
    config = read_json(
        require(weights, train_of(weights)) / "config.json", f"run `python -m stages.{train_of(weights)}`"
    )
    family = importlib.import_module(f"stages.generators.{config['family']}")
    fresh: TorchGenerator = family.untrained(config, seed, weights)
    return fresh
