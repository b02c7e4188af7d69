"""A sealed release of a tiny conditional StyleGAN2, without the stages before it."""

import json
import shutil
from functools import cache
from pathlib import Path
from typing import Any

import torch

from pipelines.release.assemble import SHIPPED, SHIPPED_FILES, seal
from pipelines.release.contract import contract_of
from pipelines.release.licences import ATTRIBUTION
from pipelines.release.pictures import defaults_of, golden_psnr, write_golden, write_samples
from pipelines.release.signing import Signer
from stages.export.run import build
from stages.export.variants import build_variants
from stages.generators.adversarial import AdversarialGenerator
from stages.generators.onnx_file import OnnxGenerator
from stages.generators.onnx_metadata import file_name
from stages.networks.stylegan2 import build_generator
from stages.storage import sha256_file
from tests.unit.gans import config_of, tiny

Made = tuple[bytes, dict[str, Any]]
DATASET, SETTINGS = "b" * 64, "c" * 64


def tiny_generator(seed: int, classes: int = 3) -> AdversarialGenerator:
    """Return a generator; another seed is another model with the same contract."""
    torch.manual_seed(seed)
    config = config_of(tiny("stylegan2", condition="class" if classes else "none"), classes=classes)
    identity = {"weights": f"{seed}" * 64, "dataset": DATASET, "settings": SETTINGS}
    return AdversarialGenerator(build_generator(config), config | {"identity": identity})


@cache
def tiny_model(seed: int, classes: int = 3) -> Made:
    """Return an ONNX file's bytes and their parity record."""
    return build(tiny_generator(seed, classes), 20)


@cache
def tiny_variant(seed: int, classes: int = 3) -> bytes:
    """Return the bytes of that file's half precision form."""
    return build_variants(tiny_generator(seed, classes), tiny_model(seed, classes)[0], 20, ["fp16"])["fp16"].data or b""


def write_variant(folder: Path, generator: OnnxGenerator, data: bytes) -> dict[str, Any]:
    """Write a variant's file and return what the record says of it."""
    path = folder / file_name("fp16")
    path.write_bytes(data)
    psnr = golden_psnr(OnnxGenerator(path), generator)
    return {"fp16": {"file": path.name, "sha256": sha256_file(path), "golden_psnr": psnr}}


def make_release(
    folder: Path,
    seed: int = 1,
    classes: int = 3,
    signer: Signer | None = None,
    made: Made | None = None,
    **claims: Any,
) -> Path:
    """Write a sealed release whose record holds what its scripts and `pipelines.trace` read; `claims` replace parts.

    Without `made`, which is a file with its parity record, it is of a tiny model of so many classes.
    """
    folder.mkdir(parents=True)
    data, parity = made or tiny_model(seed, classes)
    (folder / "model.onnx").write_bytes(data)
    generator = OnnxGenerator(folder / "model.onnx")
    for name in SHIPPED_FILES:
        shutil.copy(SHIPPED / name, folder / name)
    record: dict[str, Any] = {
        "format": 1,
        "name": "tiny",
        "version": folder.name,
        "created": "2026-01-02T03:04:05Z",
        "scores": {"scores": {"fd_domain": 12.5, "kid_se_domain": 0.001}},
        "commit": {"commit": None, "dirty": None},
        "training": {"fingerprint": "f" * 16, "git": {"commit": None, "dirty": None}, "kimg": 1.5},
        "mlflow": None,
        "dvc": {},
        "model": {"file": "model.onnx", "sha256": parity["sha256"], "identity": generator.identity},
        "variants": {} if made else write_variant(folder, generator, tiny_variant(seed, classes)),
        "contract": contract_of(generator.capabilities, parity, defaults_of(generator)),
        "golden": write_golden(generator, folder),
        "samples": write_samples(generator, folder),
    }
    record |= claims
    (folder / ATTRIBUTION).write_text("pictures of the tests\n")
    seal(folder, record, signer)
    return folder


def read_record(folder: Path) -> dict[str, Any]:
    """Return what release.json holds."""
    return dict(json.loads((folder / "release.json").read_text()))


def sum_anew(folder: Path) -> None:
    """Make SHA256SUMS of the files as they are, as `sha256sum` would."""
    names = sorted(path.name for path in folder.iterdir() if path.name not in ("SHA256SUMS", "SHA256SUMS.sig"))
    (folder / "SHA256SUMS").write_text("".join(f"{sha256_file(folder / name)}  {name}\n" for name in names))
