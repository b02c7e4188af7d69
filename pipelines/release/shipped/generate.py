"""Draws with model.onnx and release.json beside this file: `python generate.py --seeds 0-15 --out grid.png`."""

import argparse
import json
import sys
from pathlib import Path

import numpy as np
import onnxruntime
from PIL import Image

HERE = Path(__file__).resolve().parent
OPTIONS = {"truncation": "less: more typical, less varied", "guidance": "how strongly to follow the class; 1: not"}


def seeds_of(text: str) -> list[int]:
    parts = [part.split("-") for part in text.split(",")]
    if not all(len(ends) <= 2 and all(end.isdecimal() for end in ends) for ends in parts):
        sys.exit(f"generate: --seeds is {text}; expected numbers such as 0-15 or 3,7,20-29")
    return [seed for ends in parts for seed in range(int(ends[0]), int(ends[-1]) + 1)]


def inputs_of(contract: dict, seeds: list[int], given: argparse.Namespace) -> dict[str, np.ndarray]:
    """Return the model's inputs: noise by seed, classes in turn where none is chosen, and the defaults of all else."""
    names, shape = contract["class_names"], contract["noise"]["latent_shape"]
    noise = [np.random.Generator(np.random.Philox(key=s)).standard_normal(shape, dtype=np.float32) for s in seeds]
    found = {"latent": np.stack(noise)}
    for entry in contract["inputs"][1:]:
        chosen = getattr(given, entry["name"], None)
        values = [entry.get("default") if chosen is None else chosen] * len(seeds)
        if entry["name"] == "label":
            values = [names.index(chosen) if chosen else seed % len(names) for seed in seeds]
        found[entry["name"]] = np.array(values, dtype=entry["dtype"])
    return found


def grid(pictures: np.ndarray) -> np.ndarray:
    """Lay pictures (N, H, W, C) out in reading order on about a square, with white lines between."""
    columns = int(np.ceil(np.sqrt(len(pictures))))
    lined = np.pad(pictures, ((0, -len(pictures) % columns), (1, 0), (1, 0), (0, 0)), constant_values=255)
    height, width, channels = lined.shape[1:]
    rows = lined.reshape(-1, columns, height, width, channels).swapaxes(1, 2)
    return np.pad(rows.reshape(-1, columns * width, channels), ((0, 1), (0, 1), (0, 0)), constant_values=255)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", default="0-15", help="such as 0-15 or 3,7,20-29 (default: 0-15)")
    parser.add_argument("--label", metavar="CLASS", help="a class by its name (default: all in turn)")
    for name, text in OPTIONS.items():
        parser.add_argument(f"--{name}", type=float, help=text)
    parser.add_argument("--model", default="model.onnx", help="a variant's file (default: model.onnx)")
    parser.add_argument("--batch", type=int, default=16, help="pictures at a time (default: 16)")
    parser.add_argument("--out", type=Path, required=True, help="a folder, or FILE.png for one picture or a grid")
    given = parser.parse_args()
    seeds, contract = seeds_of(given.seeds), json.loads((HERE / "release.json").read_text("utf-8"))["contract"]
    taken, names = [entry["name"] for entry in contract["inputs"]], contract["class_names"]
    if refused := [name for name in ("label", *OPTIONS) if getattr(given, name) is not None and name not in taken]:
        sys.exit(f"generate: --{refused[0]} was given, but this model takes {', '.join(taken)} only")
    if given.label is not None and given.label not in names:
        sys.exit(f"generate: --label is {given.label}; {len(names)} classes are known, such as {', '.join(names[:5])}")
    if given.batch < 1 or not seeds:
        sys.exit(f"generate: --batch {given.batch} of {len(seeds)} seeds draws nothing; expected 1 or more of both")
    inputs = inputs_of(contract, seeds, given)
    session = onnxruntime.InferenceSession(HERE / given.model, providers=["CPUExecutionProvider"])
    batches = [{k: v[at : at + given.batch] for k, v in inputs.items()} for at in range(0, len(seeds), given.batch)]
    drawn = np.concatenate([session.run(["pictures"], batch)[0] for batch in batches])
    pictures = np.clip(np.rint((drawn + 1) * 127.5), 0, 255).astype(np.uint8).transpose(0, 2, 3, 1)
    files = {given.out / f"seed-{seed:06d}.png": picture for seed, picture in zip(seeds, pictures, strict=True)}
    if given.out.suffix.lower() == ".png":
        files = {given.out: pictures[0] if len(seeds) == 1 else grid(pictures)}
    for path, picture in files.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(picture.squeeze(-1) if picture.shape[-1] == 1 else picture).save(path)
    print(f"{len(seeds)} pictures in {given.out}")


if __name__ == "__main__":
    main()
