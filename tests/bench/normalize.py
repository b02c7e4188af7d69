"""Pictures per second of `normalize` beside stylegan3's dataset_tool.py: same pictures, crop, filter, resolution.

    python -m tests.bench.normalize --reference PATH_TO_CLONE

Each row is the faster of two runs of whole processes, start included, bound to one core or two. dataset_tool.py has
one process only. The result is the table of docs/verified.md.
"""

import argparse
import io
import os
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import yaml
from PIL import Image

from stages.catalogue import ORIGIN, Picture, write_catalogue
from stages.crops import Crop, square_quad, write_crops
from stages.storage import write_json
from tests.conftest import PICTURES, ROOT, tiny_params, write_locks

PHOTO = (1664, 1248)
RESOLUTIONS = (64, 256)
ROUNDS = 2


@dataclass(frozen=True)
class Kind:
    """A kind of pictures: how many, of which size, and how a file is written."""

    name: str
    count: int
    size: tuple[int, int]
    suffix: str
    options: dict[str, object]


KINDS = (
    Kind("JPEG photo, 2.1 megapixels, quality 90, 4:2:0", 400, PHOTO, "jpg", {"quality": 90, "subsampling": "4:2:0"}),
    Kind("WebP, 256 px", 2000, (256, 256), "webp", {"quality": 85}),
    Kind("PNG, 512 px", 400, (512, 512), "png", {}),
)


def draw(kind: Kind, folder: Path) -> None:
    """Write a kind's files: real drawings, enlarged, tiled and turned, under the noise that a camera adds."""
    random = np.random.default_rng(0)
    tiles = [Image.open(path).convert("RGB") for path in sorted(PICTURES.rglob("*.webp"))]
    folder.mkdir(parents=True)
    for number in range(kind.count):
        stream = io.BytesIO()
        _photo(tiles, kind.size, random).save(stream, "JPEG" if kind.suffix == "jpg" else kind.suffix, **kind.options)
        (folder / f"{number:05d}.{kind.suffix}").write_bytes(stream.getvalue())


def _photo(tiles: list[Image.Image], size: tuple[int, int], random: np.random.Generator) -> Image.Image:
    canvas = Image.new("RGB", size)
    side = max(size) // 4
    for left in range(0, size[0], side):
        for top in range(0, size[1], side):
            tile = tiles[random.integers(len(tiles))].rotate(float(random.uniform(-30, 30)), fillcolor="white")
            canvas.paste(tile.resize((side, side), Image.Resampling.BICUBIC), (left, top))
    noise = random.normal(0, 4, (size[1], size[0], 1))
    return Image.fromarray((np.asarray(canvas) + noise).clip(0, 255).astype(np.uint8))


def prepare(folder: Path, pictures: Path, resolution: int, workers: int) -> None:
    """Lay out what `normalize` reads: an archive, its catalogue, the largest centred square of each, settings."""
    params = tiny_params()
    params["normalize"] |= {"resolution": resolution, "workers": workers, "filter": "lanczos"}
    folder.mkdir()
    (folder / "params.yaml").write_text(yaml.safe_dump(params))
    write_locks(folder)
    for name in ("raw", "crops"):
        (folder / "data" / name).mkdir(parents=True)
    files = sorted(pictures.iterdir())
    with tarfile.open(folder / "data/raw/pictures.tar", "w") as tar:
        for path in files:
            tar.add(path, path.name)
    write_catalogue(folder / "data/raw", [Picture(path.name, "pictures.tar", path.name) for path in files])
    write_json(folder / "data/raw" / ORIGIN, {"source": "folder"})
    write_crops(folder / "data/crops", [Crop(path.name, path.name, _centre(path)) for path in files])


def _centre(path: Path) -> list[float]:
    width, height = Image.open(path).size
    side = min(width, height)
    return square_quad((width - side) // 2, (height - side) // 2, side)


def seconds(command: Callable[[int], list[str]], cores: int, folder: Path) -> float:
    """Return the shortest wall-clock time of a command's rounds on so many cores."""
    allowed = sorted(os.sched_getaffinity(0))[:cores]
    found = []
    for number in range(ROUNDS):
        start = time.perf_counter()
        subprocess.run(
            command(number),
            cwd=folder,
            check=True,
            capture_output=True,
            env=os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)},
            preexec_fn=lambda: os.sched_setaffinity(0, allowed),
        )
        found.append(time.perf_counter() - start)
    return min(found)


def measure(kind: Kind, resolution: int, reference: Path | None, scratch: Path) -> str:
    """Return a row of the table."""
    pictures = scratch / kind.suffix
    if not pictures.exists():
        draw(kind, pictures)
    rates = {}
    for workers in (1, 2):
        folder = scratch / f"{kind.suffix}-{resolution}-{workers}"
        prepare(folder, pictures, resolution, workers)
        rates[workers] = kind.count / seconds(lambda _: [sys.executable, "-m", "stages.normalize"], workers, folder)
    cells = [kind.name, str(resolution), f"{rates[1]:.0f}", f"{rates[2]:.0f}"]
    if reference:
        theirs = kind.count / seconds(lambda n: _tool(pictures, resolution, scratch, n), 1, reference)
        cells += [f"{theirs:.0f}", f"{rates[1] / theirs:.2f}", f"{rates[2] / theirs:.2f}"]
    return f"| {' | '.join(cells)} |"


def _tool(pictures: Path, resolution: int, scratch: Path, number: int) -> list[str]:
    target = scratch / f"{pictures.name}-{resolution}-{number}.zip"
    shape = ["--transform=center-crop", f"--resolution={resolution}x{resolution}"]
    return [sys.executable, "dataset_tool.py", f"--source={pictures}", f"--dest={target}", *shape]


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--reference", type=Path, help="a clone of stylegan3; without it only this project is timed")
    arguments = parser.parse_args()
    heads = ["pictures", "resolution", "normalize, 1 process, pictures/s", "2 processes"]
    if arguments.reference:
        heads += ["dataset_tool.py, 1 process", "ratio, 1 to 1", "ratio, 2 to 1"]
    print(f"| {' | '.join(heads)} |\n|{'---|' * len(heads)}", flush=True)
    with tempfile.TemporaryDirectory() as scratch:
        for kind in KINDS:
            for resolution in RESOLUTIONS:
                print(measure(kind, resolution, arguments.reference, Path(scratch)), flush=True)


if __name__ == "__main__":
    main()
