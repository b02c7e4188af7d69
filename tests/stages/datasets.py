"""Small data sets for `normalize`, laid out as `download` and `align` do, without their processes."""

import io
import tarfile
from pathlib import Path

import numpy as np
import yaml
from PIL import Image

from stages.catalogue import ORIGIN, Picture, write_catalogue
from stages.crops import Crop, square_quad, write_crops
from stages.decoding import UnreadablePicture, decode
from stages.normalize.run import run
from stages.settings import NormalizeSettings
from stages.storage import write_json
from tests.conftest import ROOT

LOCK = Path("data/groups.lock.json")


def settings(**changes) -> NormalizeSettings:
    """Return the project's settings of normalize at 8 pixels in one process."""
    raw = yaml.safe_load((ROOT / "params.yaml").read_text())["normalize"]
    return NormalizeSettings.model_validate(
        raw | {"resolution": 8, "workers": 1, "shards": 4, "holdout": 0.4} | changes
    )


def png(seed: int, shift: int = 0, side: int = 16) -> bytes:
    """Return a picture of its own for every seed; shifts make near-duplicates of it."""
    coarse = np.random.default_rng(seed).integers(0, 200, (4, 4, 3), dtype=np.uint8)
    pixels = np.kron(coarse, np.ones((side // 4, side // 4, 1), np.uint8)) + np.uint8(shift)
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "PNG")
    return stream.getvalue()


def lay_out(folder: Path, files: dict[str, bytes], pictures: list[Picture] | None = None) -> None:
    """Write data/raw, data/crops (the whole picture as its square) and an empty lock into a folder."""
    pictures = pictures or [Picture(key, "pictures.tar", key) for key in files]
    for name in ("raw", "crops"):
        (folder / "data" / name).mkdir(parents=True, exist_ok=True)
    with tarfile.open(folder / "data/raw/pictures.tar", "w") as tar:
        for name, data in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    write_catalogue(folder / "data/raw", pictures)
    write_json(folder / "data/raw" / ORIGIN, {"source": "folder"})
    write_crops(folder / "data/crops", [Crop(p.key, p.key, _square(files[p.member])) for p in pictures])
    if not (folder / LOCK).exists():
        (folder / LOCK).write_text('{"classes": {}, "groups": {}}')


def _square(data: bytes) -> list[float]:
    try:
        side = min(decode(data, (255, 255, 255)).size)
    except UnreadablePicture:
        side = 8
    return square_quad(0, 0, side)


def normalize(folder: Path, max_reject_share: float = 1.0, **changes) -> Path:
    """Run the stage in this process and return data/images."""
    data = folder / "data"
    run(settings(**changes), max_reject_share, data / "raw", data / "crops", folder / LOCK, data / "images")
    return data / "images"
