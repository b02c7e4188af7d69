"""Assembles releases/NAME/VERSION: first beside its place, and there only once it is whole."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from pipelines.release.card import CARD, write_card
from pipelines.release.contract import differences
from pipelines.release.licences import ATTRIBUTION, attribution
from pipelines.release.material import Material, gather
from pipelines.release.pictures import golden_psnr, write_golden, write_samples
from pipelines.release.published import published_as
from pipelines.release.record import contract_in, describe
from pipelines.release.shipped.verify import RECORD, SIGNATURE, SUMS, check
from pipelines.release.signing import Signer
from pipelines.release.version import Version, choose, released
from pipelines.results import read_results
from stages.errors import GateError, InputError
from stages.generators.onnx_file import OnnxGenerator
from stages.process import stage_lock
from stages.progress import progress_bar
from stages.storage import read_json, sha256_file, whole_folder, write_bytes, write_json

SHIPPED = Path(__file__).with_name("shipped")
SHIPPED_FILES = ("generate.py", "verify.py", "requirements.txt", "generate.mjs", "package.json")

Tell = Callable[[str], None]


def release(name: str, wanted: str | None, releases: Path, signer: Signer | None, tell: Tell) -> Path:
    """Assemble a release of a model as it is now and return its folder; a refusal leaves nothing behind.

    `wanted` is a version, None for the next free one.

    Raises:
        InputError: results are missing or do not belong together, or the version is impossible.
        GateError: the ONNX file is not the measured one, or changed meanwhile.
        ResourceError: the disk is full.
    """
    with stage_lock(f"release@{name}"), progress_bar("releasing", total=4, unit="steps") as bar:
        material = gather(name)
        bar.update()
        contract = contract_in(material)
        folder = releases / name
        version = choose(wanted, *last_release(folder, contract))
        record = describe(material, str(version), contract)
        record["mlflow"] = published_as(material.results, tell)
        bar.update()
        place = folder / str(version)
        with whole_folder(place) as partial:
            fill(partial, material, record)
            bar.update()
            seal(partial, record, signer)
            check_sealed(partial, material)
            if place.exists():  # another workspace may release into the same folder
                raise InputError(f"{place} exists meanwhile, and a release is never overwritten; release again")
            bar.update()
    return place


def last_release(folder: Path, contract: dict[str, Any]) -> tuple[Version | None, list[str]]:
    """Return the highest version in a model's folder of releases, and what inputs and outputs changed since.

    Raises:
        InputError: its record cannot be read.
    """
    versions = released(folder)
    if not versions:
        return None, []
    path = folder / str(versions[-1]) / RECORD
    hint = f"the next version follows from it; restore {path.parent} or move it away"
    try:
        return versions[-1], differences(read_json(path, hint)["contract"], contract)
    except (KeyError, TypeError) as error:
        raise InputError(f"{path} is no release's record ({error!r} is missing); {hint}") from error


def fill(folder: Path, material: Material, record: dict[str, Any]) -> None:
    """Write all files but release.json and the sums; the record learns of golden pictures and samples."""
    for file in (material.model, *material.variants.values()):
        shutil.copyfile(file, folder / file.name)
    for name in SHIPPED_FILES:
        shutil.copyfile(SHIPPED / name, folder / name)
    record["golden"] = write_golden(material.generator, folder)
    for form, file in material.variants.items():
        record["variants"][form]["golden_psnr"] = golden_psnr(OnnxGenerator(file), material.generator)
    record["samples"] = write_samples(material.generator, folder)
    write_bytes(folder / ATTRIBUTION, attribution(record["data"]).encode())
    write_bytes(folder / CARD, write_card(record).encode())


def seal(folder: Path, record: dict[str, Any], signer: Signer | None) -> None:
    """Write release.json with the hash and size of every other file, then the sums of all, then their signature."""
    files = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
    hashes = {name: sha256_file(folder / name) for name in files}
    record["files"] = {name: {"sha256": hashes[name], "bytes": (folder / name).stat().st_size} for name in files}
    write_json(folder / RECORD, record)
    hashes[RECORD] = sha256_file(folder / RECORD)
    sums = "".join(f"{hashes[name]}  {name}\n" for name in sorted(hashes))
    write_bytes(folder / SUMS, sums.encode())
    if signer:
        write_bytes(folder / SIGNATURE, signer.sign(sums.encode()))


def check_sealed(folder: Path, material: Material) -> None:
    """Check a release as its receiver will, and that no result has changed since it was read.

    Raises:
        GateError: something is not as it should be.
    """
    problems = check(folder).problems
    if problems:
        raise GateError(f"the release is not whole and was dropped: {'; '.join(problems)}")
    results = material.results
    if read_results(results.name).digest != results.digest:
        raise GateError(f"{results.folder} changed while it was being released; wait for what is at work, then again")
