"""What an exported file says about itself: capabilities, the identity of its content, the recipe of its noise."""

import json
from pathlib import Path
from typing import Any

from stages.generators.interface import Capabilities
from stages.generators.noise import RECIPE

FORMAT = "1"  # of these keys; a reader refuses what it does not know
PREFIX = "image_foundry."
IDENTITY_KEYS = ("weights", "dataset", "settings")
OUTPUT = "pictures"
TOKENS = ("input_ids", "attention_mask")  # of a prompt
NEGATIVE = "negative_"  # before the names of a negative prompt's tokens
FULL = "model"  # the form of full precision; others are variants of it
VARIANTS = ("fp16", "int8")


def file_name(form: str) -> str:
    """Return the name of the file of a form: full precision, or a variant."""
    return f"{FULL}.onnx" if form == FULL else f"{FULL}-{form}.onnx"


def files_in(folder: Path) -> dict[str, Path]:
    """Return the files of a folder by their form, full precision first; it need not be there."""
    places = {form: folder / file_name(form) for form in (FULL, *VARIANTS)}
    return {form: path for form, path in places.items() if form == FULL or path.exists()}


def describe(
    capabilities: Capabilities, identity: dict[str, str], more: dict[str, str] | None = None
) -> dict[str, str]:
    """Return metadata_props of a file: content alone, so that equal content has equal bytes anywhere.

    `more` is what a family adds, such as its tokenizer. The `Image.*` keys are those of ONNX's MetadataProps document.
    """
    own = {
        "format": FORMAT,
        "capabilities": json.dumps(capabilities.to_json(), sort_keys=True),
        "noise": RECIPE,
        "value_range": "[-1, 1]",
        **{f"identity.{key}": identity[key] for key in IDENTITY_KEYS if key in identity},
        **(more or {}),
    }
    standard = {
        "Image.BitmapPixelFormat": "Rgb8" if capabilities.channels == 3 else "Gray8",
        "Image.ColorSpaceGamma": "SRGB",
        "Image.NominalPixelRange": "Normalized_1_1",
    }
    return {f"{PREFIX}{key}": value for key, value in own.items()} | standard


def read_capabilities(found: dict[str, str]) -> Capabilities:
    """Read what `describe` wrote.

    Raises:
        ValueError: keys are missing, of another format or not readable; the message says which.
    """
    missing = [f"{PREFIX}{key}" for key in ("format", "capabilities", "noise") if f"{PREFIX}{key}" not in found]
    if missing:
        raise ValueError(f"it lacks metadata {', '.join(missing)}")
    if found[f"{PREFIX}format"] != FORMAT:
        raise ValueError(f"its metadata are of format {found[f'{PREFIX}format']}, this version reads {FORMAT}")
    if found[f"{PREFIX}noise"] != RECIPE:
        raise ValueError(f"it wants noise by another recipe than {RECIPE}")
    try:
        return Capabilities.from_json(json.loads(found[f"{PREFIX}capabilities"]))
    except (ValueError, TypeError, KeyError) as error:
        raise ValueError(f"its metadata {PREFIX}capabilities are not readable ({error})") from error


def read_identity(found: dict[str, str]) -> dict[str, str]:
    """Return the sha256 of the weights, data and settings that a file comes from."""
    start = f"{PREFIX}identity."
    return {key.removeprefix(start): found[key] for key in sorted(found) if key.startswith(start)}


def expected_input(capabilities: Capabilities) -> dict[str, list[Any]]:
    """Return the dimensions of each input, in order; None is the batch."""
    guided = capabilities.guidance and capabilities.default_guidance != 1
    found: dict[str, list[Any]] = {"latent": [None, *capabilities.latent_shape]}
    if capabilities.class_names:
        found["label"] = [None]
    if capabilities.truncation:
        found["truncation"] = [None]
    if capabilities.prompt:
        names = [*TOKENS, *(f"{NEGATIVE}{name}" for name in TOKENS if guided)]
        found |= {name: [None, capabilities.prompt_length] for name in names}
    return found | ({"guidance": [None]} if guided else {})


def input_type(name: str) -> str:
    """Return ONNX Runtime's name of an input's type: labels and tokens are whole numbers, all else is floats."""
    return "tensor(float)" if name in ("latent", "guidance", "truncation") else "tensor(int64)"


def expected_output(capabilities: Capabilities) -> list[Any]:
    """Return the dimensions of the pictures; None is the batch."""
    return [None, capabilities.channels, capabilities.resolution, capabilities.resolution]
