"""release.json: what a release is, where it comes from, how good and how fast it is; every value is from a file."""

from collections import Counter
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

from pipelines.git import ask_git
from pipelines.release.contract import contract_of
from pipelines.release.material import Material
from pipelines.release.pictures import defaults_of
from stages.storage import read_json

FORMAT = 1  # of release.json; a reader refuses what it does not know
SOURCE_LOCK, ORIGIN = Path("data/source.lock.json"), Path("data/raw/origin.json")
FETCHED = "run `dvc checkout data/raw`, or `dvc repro download`"
SCORED = (
    "scores",
    "intervals",
    "smallest_difference",
    "floor",
    "train_reference",
    "baselines",
    "recipes",
    "warnings",
    "figures",
    "identity",
)
TRAINED = (
    "fingerprint",
    "kimg",
    "settings",
    "policy",
    "dataset",
    "autoencoder",
    "lineage",
    "alerts",
    "best",
    "device",
    "machines",
    "seconds",
    "cpu_seconds",
    "started",
    "finished",
    "versions",
)
CERTIFIED = ("provider", "count", "limits", "torch", "files", "left_out")
DESCRIBED = ("source", "resolution", "channels", "pictures", "splits", "groups", "classes", "licences")
PACKAGES = ("image-foundry", "numpy", "onnx", "onnxruntime", "onnxruntime-gpu", "pillow", "torch", "diffusers")
SCORES_MEANING = (
    "made from pictures of the torch weights with the recipes named here; the file's pictures differ from torch's on "
    "the same inputs by at most parity.max_abs_difference (by batch size, values in [-1, 1]); `certificate` has the "
    "scores of each file's own pictures"
)


def contract_in(material: Material) -> dict[str, Any]:
    """Return the contract of the file that is to be released."""
    generator = material.generator
    return contract_of(generator.capabilities, material.results.parity, defaults_of(generator))


def describe(material: Material, version: str, contract: dict[str, Any]) -> dict[str, Any]:
    """Return the record without what is known only once the files are written: their hashes, golden and samples."""
    results = material.results
    return without_places(
        {
            "format": FORMAT,
            "name": results.name,
            "version": version,
            "created": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
            "model": describe_model(material),
            "contract": contract,
            "scores": describe_scores(material),
            "certificate": {key: results.certificate[key] for key in CERTIFIED},
            "variants": describe_variants(material),
            "benchmark": results.benchmark,
            "data": describe_data(material),
            "training": describe_training(results.record),
            "commit": describe_commit(),
            "dvc": material.locked,
            "versions": versions(),
        }
    )


def describe_model(material: Material) -> dict[str, Any]:
    """Return the model file's hash, identity, versions and family."""
    parity, generator = material.results.parity, material.generator
    return {
        "file": material.model.name,
        "sha256": parity["sha256"],
        "bytes": parity["bytes"],
        "opset": parity["opset"],
        "ir_version": parity["ir_version"],
        "nodes": parity["nodes"],
        "family": generator.capabilities.family,
        "steps": generator.capabilities.steps,
        "identity": generator.identity,
    }


def describe_variants(material: Material) -> dict[str, Any]:
    """Return file, hash and size of each smaller file that is released."""
    files = material.results.certificate["files"]
    return {form: {key: files[form][key] for key in ("file", "sha256", "bytes")} for form in material.variants}


def describe_scores(material: Material) -> dict[str, Any]:
    """Return scores with their intervals, recipes and references, copies of training pictures, and parity to torch."""
    results = material.results
    kept = {key: results.scores[key] for key in SCORED if key in results.scores}
    copies = {key: value for key, value in results.scores.get("memorisation", {}).items() if key != "closest"}
    parity = {key: results.parity[key] for key in ("max_abs_difference", "tolerance")}
    return {"meaning": SCORES_MEANING, "parity": parity, **kept, "memorisation": copies}


def describe_data(material: Material) -> dict[str, Any]:
    """Return the hash, counts and licences of the pictures, and where each licence comes from."""
    description = material.dataset.description
    return {
        "sha256": material.dataset.content_hash,
        **{key: description[key] for key in DESCRIBED if key in description},
        "sources": sources(material.dataset.rows),
    }


def sources(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return each fetched file with its package, hash, and the pictures and licence that came from it."""
    packages = {package["file"]: package for package in read_json(SOURCE_LOCK, FETCHED).get("packages", [])}
    archives = {archive["file"]: archive for archive in read_json(ORIGIN, FETCHED)["archives"]}
    counts = Counter((row["source"].partition("!")[0], row["licence"], row["split"]) for row in rows)
    found = []
    for file, licence in sorted({(file, licence) for file, licence, _ in counts}):
        package = {key: packages[file][key] for key in ("name", "version")} if file in packages else {}
        by_split = {split: count for (of, by, split), count in sorted(counts.items()) if (of, by) == (file, licence)}
        found.append({"file": file, **package, "sha256": archives[file]["sha256"], "licence": licence, **by_split})
    return found


def describe_training(record: dict[str, Any]) -> dict[str, Any]:
    """Return what decided the training, how long it was, what it went on from, and at which commit it ran."""
    kept = {key: record[key] for key in TRAINED if key in record}
    commit = {"commit": record.get("git_commit"), "dirty": record.get("git_dirty")}
    return {**kept, "budget_kimg": record["settings"].get("budget_kimg"), "git": commit}


def describe_commit() -> dict[str, Any]:
    """Return the commit of now, and whether files that Git knows or should know differ from it; None without Git."""
    commit, changes = ask_git("rev-parse", "HEAD"), ask_git("status", "--porcelain")
    return {"commit": commit, "dirty": None if changes is None else bool(changes)}


def versions() -> dict[str, str]:
    """Return the versions of what drew the golden pictures and samples, and of what trained and exported."""
    found = {}
    for name in PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:  # one of the two onnxruntimes always is
            continue
    return found


def without_places(value: Any) -> Any:
    """Return a value whose texts name no folder of this machine: of an absolute path its last name stays."""
    if isinstance(value, dict):
        return {key: without_places(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [without_places(inner) for inner in value]
    if not isinstance(value, str):
        return value
    if Path(value).is_absolute():
        return Path(value).name
    return value.replace(str(Path.cwd()), ".").replace(str(Path.home()), "~")
