"""What dvc.lock says of a model's stages, and whether the files here are those."""

import hashlib
import json
from pathlib import Path
from typing import Any

import yaml

from stages.errors import InputError

PREPARED = ("download", "align", "normalize", "augment")  # the data's own stages
OF_MODEL = ("train", "evaluate", "export", "benchmark")
KEPT = ("path", "md5", "size", "nfiles")


def locked_outputs(lock: Path, name: str) -> dict[str, list[dict[str, Any]]]:
    """Return path, md5 and size of each output of the stages that a model depends on, {} where DVC ran none of them.

    Raises:
        InputError: dvc.lock cannot be read.
    """
    if not lock.exists():
        return {}
    return outputs_in(lock.read_text(), name, str(lock))


def outputs_in(text: str, name: str, source: str) -> dict[str, list[dict[str, Any]]]:
    """Return the same from the text of a dvc.lock; `source` is its name in messages."""
    try:
        stages = (yaml.safe_load(text) or {}).get("stages", {})
        wanted = [*PREPARED, *_autoencoders(stages, name), *(f"{stage}@{name}" for stage in OF_MODEL)]
        return {stage: [_kept(out) for out in stages[stage]["outs"]] for stage in wanted if stage in stages}
    except (yaml.YAMLError, AttributeError, KeyError, TypeError) as error:
        raise InputError(f"{source} cannot be read ({type(error).__name__}); run `dvc repro`") from error


def _autoencoders(stages: dict[str, Any], name: str) -> list[str]:
    """Return the autoencoder's stage of a model that learns from latents."""
    deps = [dep["path"] for dep in stages.get(f"train@{name}", {}).get("deps", [])]
    return [f"autoencoder@{Path(path).name}" for path in deps if path.startswith("data/latents/")]


def _kept(out: dict[str, Any]) -> dict[str, Any]:
    return {key: out[key] for key in KEPT if key in out}


def check_locked(locked: dict[str, list[dict[str, Any]]]) -> None:
    """Make sure that the model's own outputs are those that dvc.lock names: others can be reproduced by nobody.

    Raises:
        InputError: one is not.
    """
    for stage, outs in locked.items():
        for out in outs if stage.partition("@")[0] in OF_MODEL else []:
            found = md5_of(Path(out["path"]))
            if found != out["md5"]:
                raise InputError(
                    f"{out['path']} has md5 {found or 'none, since it is not there'}, dvc.lock names {out['md5']}; "
                    f"run `dvc repro {stage}`, or `dvc commit {stage}` if it is right as it is"
                )


def md5_of(path: Path) -> str | None:
    """Return the md5 by which DVC names a file's or folder's content, None where it is absent.

    A folder's is that of a JSON list of its files' names and md5; half-written files do not count (.dvcignore).
    """
    if path.is_file():
        return _md5(path.read_bytes())
    if not path.is_dir():
        return None
    files = [file for file in path.rglob("*") if file.is_file() and not file.name.endswith(".partial")]
    entries = [{"md5": _md5(file.read_bytes()), "relpath": file.relative_to(path).as_posix()} for file in files]
    return _md5(json.dumps(sorted(entries, key=lambda entry: entry["relpath"]), sort_keys=True).encode()) + ".dir"


def _md5(data: bytes) -> str:
    return hashlib.md5(data, usedforsecurity=False).hexdigest()
