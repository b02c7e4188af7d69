"""How far apart two releases of a model draw: the same latents through both files."""

import json
from pathlib import Path
from typing import Any

import numpy as np

from pipelines.release.contract import differences
from pipelines.release.shipped.verify import RECORD
from pipelines.release.version import parse, released
from stages.certify.drawing import RANGE
from stages.errors import InputError
from stages.generators.onnx_file import OnnxGenerator
from stages.storage import read_json, sha256_file

BATCH = 64
PERCENTILES = (5, 50, 95)


def compare(folder: Path, one: str, other: str, count: int) -> dict[str, Any]:
    """Return how the pictures of the seeds 0 to `count` - 1 differ between two versions in a model's folder.

    Absolute differences are of values in [-1, 1]; PSNR is per picture, in dB, and identical pictures have none.

    Raises:
        InputError: a version is absent or altered, their contracts differ, or there is nothing to draw.
    """
    if count < 1:
        raise InputError(f"--count is {count}; expected 1 or more")
    records = {version: read_release(folder, version) for version in (one, other)}
    if changes := differences(records[one]["contract"], records[other]["contract"]):
        raise InputError(f"{one} and {other} of {folder.name} cannot be compared: {'; '.join(changes)}")
    generators = [OnnxGenerator(folder / version / records[version]["model"]["file"]) for version in records]
    pairs = zip(*(generator.draw(range(count), BATCH) for generator in generators), strict=True)
    gaps = np.concatenate([np.abs(mine - theirs) for mine, theirs in pairs])
    return {"model": folder.name, "versions": [one, other], "count": count, **spread(gaps)}


def read_release(folder: Path, version: str) -> dict[str, Any]:
    """Return the record of a version whose model is the one that it names.

    Raises:
        InputError: there is none, or the model is another.
    """
    if parse(version) not in released(folder):
        known = ", ".join(map(str, released(folder))) or "none"
        raise InputError(f"{folder / version} is no release; versions of {folder.name}: {known}")
    record: dict[str, Any] = read_json(folder / version / RECORD)
    model = record["model"]
    if sha256_file(folder / version / model["file"]) != model["sha256"]:
        raise InputError(f"{folder / version / model['file']} has changed; `python -m pipelines.verify` says what else")
    return record


def spread(gaps: np.ndarray) -> dict[str, Any]:
    """Return the distribution of absolute differences, shape (N, C, H, W), over all values and over pictures."""
    errors = (gaps**2).mean(axis=(1, 2, 3), dtype=np.float64)
    differing = errors[errors > 0]
    psnr = 10 * np.log10(RANGE**2 / differing)
    return {
        "absolute": {"mean": float(gaps.mean()), "p95": float(np.percentile(gaps, 95)), "max": float(gaps.max())},
        "largest_seed": int(gaps.max(axis=(1, 2, 3)).argmax()),
        "identical_pictures": int((errors == 0).sum()),
        "psnr_db": {f"p{q}": float(np.percentile(psnr, q)) for q in PERCENTILES} if len(psnr) else None,
    }


def told(found: dict[str, Any], as_json: bool) -> str:
    """Return a comparison as JSON or in words."""
    if as_json:
        return json.dumps(found, indent=2)
    absolute, psnr = found["absolute"], found["psnr_db"]
    decibels = ", ".join(f"{q[1:]} % {value:.1f} dB" for q, value in psnr.items()) if psnr else "all are identical"
    return (
        f"{found['model']} {' and '.join(found['versions'])}, {found['count']} seeds: values in [-1, 1] differ by "
        f"{absolute['mean']:.2e} in the mean, 95 % of them by at most {absolute['p95']:.2e}, the largest by "
        f"{absolute['max']:.2e} (seed {found['largest_seed']})\n"
        f"PSNR of a picture: {decibels}; {found['identical_pictures']} pictures are identical"
    )
