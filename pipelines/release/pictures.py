"""What a release's own file draws: golden pictures to compare with anywhere, and a sheet of samples."""

import io
from pathlib import Path
from typing import Any

import numpy as np

from stages.certify.drawing import differences
from stages.generators.drawing import pixels
from stages.generators.interface import ANYTHING, Capabilities
from stages.generators.onnx_file import OnnxGenerator
from stages.generators.onnx_session import CPU, CUDA
from stages.sheet import sheet
from stages.storage import write_bytes

GOLDEN, SAMPLES = "golden.npz", "samples.png"
GOLDEN_SEEDS, SAMPLE_SEEDS = range(8), range(64)
SPARE_DECIBELS = 4  # an error 1.6 times as large
TOLERANCE = {CPU: 1e-4, CUDA: 1e-2}  # of models that draw in one pass
STEPPED_TOLERANCE = {CPU: 1e-3, CUDA: 5e-2}
WHY = (
    f"largest difference of a picture, values in [-1, 1]. {CPU}: other processors and versions of onnxruntime add the "
    f"same numbers in another order. {CUDA}: TF32 rounds the factors of products to 10 bits; not measured on a GPU. "
    "Models that draw in steps carry the rounding of each step on"
)


def defaults_of(generator: OnnxGenerator) -> dict[str, Any]:
    """Return what each input but noise and class is for one picture where nothing is asked for."""
    feed = generator.feed(ANYTHING.request(generator.capabilities, range(1)))
    return {name: value[0].tolist() for name, value in feed.items() if name not in ("latent", "label")}


def write_golden(generator: OnnxGenerator, folder: Path) -> dict[str, Any]:
    """Write the inputs of eight seeds and the pictures that the file draws for them; returns what the record says."""
    request = ANYTHING.request(generator.capabilities, GOLDEN_SEEDS)
    pictures = generator.generate(request)
    buffer = io.BytesIO()
    np.savez(buffer, **generator.feed(request), pictures=pictures)  # type: ignore[arg-type]  # of a changed stub
    write_bytes(folder / GOLDEN, buffer.getvalue())
    return {
        "file": GOLDEN,
        "seeds": list(GOLDEN_SEEDS),
        "provider": CPU,
        "tolerance": STEPPED_TOLERANCE if generator.capabilities.steps else TOLERANCE,
        "tolerance_meaning": WHY,
    }


def golden_psnr(variant: OnnxGenerator, generator: OnnxGenerator) -> float:
    """Return the dB that each golden picture of a variant must reach to those of full precision: as here, less some.

    Other processors multiply 8-bit numbers in other ways, which moves a picture by a part of what quantising does.
    """
    request = ANYTHING.request(generator.capabilities, GOLDEN_SEEDS)
    found = differences(variant.generate(request), generator.generate(request), batch=len(GOLDEN_SEEDS))
    return float(np.floor(found["psnr"]["min"] - SPARE_DECIBELS))


def write_samples(generator: OnnxGenerator, folder: Path) -> dict[str, Any]:
    """Write a sheet of the first seeds, whatever they show; returns what the record says."""
    image = sheet(np.stack(list(pixels(generator, SAMPLE_SEEDS))))
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    write_bytes(folder / SAMPLES, buffer.getvalue())
    return {"file": SAMPLES, "seeds": list(SAMPLE_SEEDS), "labels": sample_labels(generator.capabilities)}


def sample_labels(capabilities: Capabilities) -> list[str]:
    """Return the class of each sample, [] where there are no classes."""
    names = capabilities.class_names
    return [names[seed % len(names)] for seed in SAMPLE_SEEDS] if names else []
