"""Check a release: every file's hash, whose model it is, and its golden pictures: `python verify.py`.

The standard library does for hashes; pictures are redrawn where numpy and onnxruntime are installed. Without a
signature this proves that the folder is as it was made, not who made it.
"""

import argparse
import hashlib
import importlib
import json
import mmap
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

RECORD, SUMS, SIGNATURE = "release.json", "SHA256SUMS", "SHA256SUMS.sig"
FORMAT = 1  # of release.json
CHUNK = 1 << 20
SHOWN = 12  # digits of a hash in a message
METADATA_FIELD = 14  # of ONNX's ModelProto: pairs of texts
IDENTITY, VARIANT = "image_foundry.identity.", "image_foundry.variant"
FULL = "full precision"  # of the model file; variants name themselves
LEAST_ERROR = 1e-12  # mean squared, of pictures that are equal
CPU = "CPUExecutionProvider"


@dataclass
class Findings:
    """What is wrong with a release, one line each, and what else there is to say."""

    problems: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def check(folder: Path, provider: str = CPU, key: Path | None = None) -> Findings:
    """Check all that a folder holds and return what was found; nothing is written."""
    found = Findings()
    record, sums = read_record(folder, found), read_sums(folder, found)
    hashes = {name: sha256(folder / name) for name in files_of(folder, found)}
    check_sums(folder, sums, hashes, found)
    try:
        if record:
            check_files(folder, record, sums, hashes, found)
            check_model(folder, record, hashes, found)
            check_golden(folder, record, hashes, provider, found)
    except (LookupError, TypeError, AttributeError, ValueError) as error:  # of a record that somebody has rewritten
        found.problems.append(f"{RECORD} does not hold what it should ({type(error).__name__}: {error})")
    check_signature(folder, key, found)
    return found


def read_record(folder: Path, found: Findings) -> dict[str, Any]:
    """Return what release.json holds, {} where it is absent, damaged or of an unknown format."""
    try:
        record = json.loads((folder / RECORD).read_text(encoding="utf-8"))
        if record["format"] == FORMAT:
            for part in ("files", "model", "variants", "golden", "contract"):
                record[part].items()
            return dict(record)
        found.problems.append(f"{RECORD} is of format {record['format']}; this script reads {FORMAT}")
    except FileNotFoundError:
        found.problems.append(f"{RECORD} is missing")
    except (OSError, ValueError, LookupError, TypeError, AttributeError) as error:
        found.problems.append(f"{RECORD} is not readable ({type(error).__name__}: {error})")
    return {}


def read_sums(folder: Path, found: Findings) -> dict[str, str]:
    """Return the sha256 by name that SHA256SUMS holds, in the format of the command `sha256sum`."""
    try:
        lines = (folder / SUMS).read_text(encoding="utf-8").splitlines()
        return {name: digest for digest, name in (line.split("  ", 1) for line in lines)}
    except FileNotFoundError:
        found.problems.append(f"{SUMS} is missing")
    except (OSError, ValueError) as error:
        found.problems.append(f"{SUMS} is not readable ({error})")
    return {}


def files_of(folder: Path, found: Findings) -> Iterator[str]:
    """Yield the names of all files that sums must cover; a link could lead anywhere and is none."""
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if path.is_symlink():
            found.problems.append(f"{name} is a link; expected a file")
        elif path.is_file() and name not in (SUMS, SIGNATURE):
            yield name


def sha256(path: Path) -> str:
    """Return the sha256 of a file's bytes."""
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        while block := stream.read(CHUNK):
            digest.update(block)
    return digest.hexdigest()


def check_sums(folder: Path, sums: dict[str, str], hashes: dict[str, str], found: Findings) -> None:
    """Compare the files with SHA256SUMS: it covers release.json, and release.json covers the others."""
    if not (folder / SUMS).is_file():
        return
    if RECORD in hashes and RECORD in sums and hashes[RECORD] != sums[RECORD]:
        found.problems.append(f"{RECORD} has changed: {differs(hashes[RECORD], sums[RECORD])} in {SUMS}")
    for name in sorted({RECORD, *hashes} - set(sums)):
        if name == RECORD or not sums:
            found.problems.append(f"{SUMS} has no line for {name}")


def check_files(
    folder: Path, record: dict[str, Any], sums: dict[str, str], hashes: dict[str, str], found: Findings
) -> None:
    """Compare names, hashes and sizes with release.json, and release.json with SHA256SUMS."""
    listed: dict[str, Any] = record["files"]
    extra = {name: digest for name, digest in hashes.items() if name not in listed and name != RECORD}
    for name, wanted in listed.items():
        if PurePosixPath(name).is_absolute() or ".." in PurePosixPath(name).parts:
            found.problems.append(f"{RECORD} names {name}, which lies outside of the release")
        elif name not in hashes:
            renamed = next((other for other, digest in extra.items() if digest == wanted["sha256"]), None)
            found.problems.append(f"{name} is missing" + (f"; it is called {renamed} now" if renamed else ""))
            extra.pop(renamed or "", None)
        elif hashes[name] != wanted["sha256"]:
            size, expected = (folder / name).stat().st_size, wanted["bytes"]
            resized = "" if size == expected else f"{size:,} bytes instead of {expected:,}, "
            found.problems.append(f"{name} has changed: {resized}{differs(hashes[name], wanted['sha256'])} in {RECORD}")
        if sums and name not in sums:
            found.problems.append(f"{SUMS} has no line for {name}")
        elif sums and sums[name] != wanted["sha256"]:
            found.problems.append(f"{SUMS} gives {name} {differs(sums[name], wanted['sha256'])} in {RECORD}")
    found.problems += [f"{name} is extra: the release does not list it" for name in extra]
    unknown = sorted(set(sums) - set(listed) - {RECORD})
    found.problems += [f"{SUMS} names {name}, which {RECORD} does not list" for name in unknown]


def differs(is_: str, expected: str) -> str:
    """Return in words that one hash was found and another was expected."""
    return f"sha256 {is_[:SHOWN]}, but {expected[:SHOWN]}"


def check_model(folder: Path, record: dict[str, Any], hashes: dict[str, str], found: Findings) -> None:
    """Make sure that each model file is the one that the record describes, by its hash and by what its metadata say."""
    model = record["model"]
    forms = {FULL: model, **record["variants"]}
    for form, described in forms.items():
        name = described["file"]
        if name not in hashes:
            continue
        if hashes[name] != described["sha256"]:
            about = differs(hashes[name], described["sha256"])
            found.problems.append(f"{name} is not the model of this release: {about}")
        told = read_metadata(folder / name)
        identity = identity_of(told)
        for key, expected in model["identity"].items():
            if identity.get(key) != expected:
                is_ = str(identity.get(key))[:SHOWN]
                found.problems.append(f"{name} says that its {key} are {is_}; {RECORD} names {expected[:SHOWN]}")
        if (is_ := told.get(VARIANT, FULL)) != form:
            found.problems.append(f"{name} says that it is of {is_}; {RECORD} says {form}")


def identity_of(metadata: dict[str, str]) -> dict[str, str]:
    """Return the sha256 of weights, dataset and settings that a file's metadata name."""
    return {key.removeprefix(IDENTITY): metadata[key] for key in sorted(metadata) if key.startswith(IDENTITY)}


def read_metadata(path: Path) -> dict[str, str]:
    """Return an ONNX file's metadata, of which only the places with a length are read; {} for any other file."""
    if not path.stat().st_size:
        return {}
    with path.open("rb") as stream, mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as data:
        return metadata_of(data)


def metadata_of(data: bytes | mmap.mmap) -> dict[str, str]:
    """Return an ONNX file's metadata without onnx; {} for bytes that are no such file."""
    try:
        places = [place for number, place in fields_of(data, 0, len(data)) if number == METADATA_FIELD]
        pairs = [dict(fields_of(data, *place)) for place in places]
        return {data[slice(*pair[1])].decode(): data[slice(*pair.get(2, (0, 0)))].decode() for pair in pairs}
    except (IndexError, ValueError, KeyError):
        return {}


def fields_of(data: bytes | mmap.mmap, start: int, end: int) -> Iterator[tuple[int, tuple[int, int]]]:
    """Yield number and place of each field with a length in a protobuf message; other fields are passed over."""
    while start < end:
        key, start = varint(data, start)
        number, kind = key >> 3, key & 7
        if kind == 2:
            size, start = varint(data, start)
            if start + size > end:
                raise ValueError("a field is longer than its message")
            yield number, (start, start + size)
            start += size
        elif kind == 0:
            _, start = varint(data, start)
        elif kind in (1, 5):
            start += 8 if kind == 1 else 4
        else:
            raise ValueError("no protobuf message")


def varint(data: bytes | mmap.mmap, start: int) -> tuple[int, int]:
    """Return a number of protobuf's variable length and the place after it."""
    value = shift = 0
    while True:
        byte = data[start]
        value, shift, start = value | (byte & 127) << shift, shift + 7, start + 1
        if byte < 128:
            return value, start


def check_golden(folder: Path, record: dict[str, Any], hashes: dict[str, str], provider: str, found: Findings) -> None:
    """Draw the golden pictures again and name each that differs by more than the provider or the variant may."""
    golden = record["golden"]
    tolerance = golden["tolerance"].get(provider)
    missing = [package for package in ("numpy", "onnxruntime") if not importable(package)]
    if missing:
        found.notes.append(f"pictures were not redrawn: {' and '.join(missing)} cannot be imported")
        return
    if tolerance is None:
        found.problems.append(f"{provider} has no tolerance in {RECORD}; it has {', '.join(golden['tolerance'])}")
        return
    files = {
        record["model"]["file"]: None,
        **{each["file"]: each["golden_psnr"] for each in record["variants"].values()},
    }
    for name, psnr in files.items():
        if name in hashes and golden["file"] in hashes:
            try:
                drawn, expected = redraw(folder / name, folder / golden["file"], provider)
                compare_golden(name, drawn, expected, golden["seeds"], provider, tolerance, psnr, found)
            except Exception as error:  # whatever onnxruntime or numpy say of altered files is a finding
                reason = " ".join(str(error).split())
                found.problems.append(f"{name} cannot redraw the golden pictures ({type(error).__name__}: {reason})")


def importable(package: str) -> bool:
    """Return whether a package can be imported."""
    try:
        importlib.import_module(package)
    except ImportError:
        return False
    return True


def redraw(model: Path, file: Path, provider: str) -> tuple[Any, Any]:
    """Return the pictures that a model draws for golden inputs with one provider, and the golden ones.

    Raises:
        RuntimeError: the provider does not run here.
    """
    import numpy as np
    import onnxruntime

    with np.load(file, allow_pickle=False) as arrays:
        values = {name: arrays[name] for name in arrays.files}
    session = onnxruntime.InferenceSession(str(model), providers=[provider])
    if session.get_providers()[0] != provider:
        raise RuntimeError(f"{provider} does not run here: onnxruntime took {session.get_providers()[0]} instead")
    inputs = {entry.name: values[entry.name] for entry in session.get_inputs()}
    return session.run(["pictures"], inputs)[0], values["pictures"]


def compare_golden(
    name: str,
    drawn: Any,
    expected: Any,
    seeds: list[int],
    provider: str,
    tolerance: float,
    psnr: float | None,
    found: Findings,
) -> None:
    """Compare pictures in [-1, 1]: by the largest difference of each, or of a variant by its PSNR in dB."""
    import numpy as np

    differences = [one.astype(np.float64) - other for one, other in zip(drawn, expected, strict=True)]
    largest = [float(np.abs(difference).max()) for difference in differences]
    decibels = [float(10 * np.log10(4 / max((difference**2).mean(), LEAST_ERROR))) for difference in differences]
    for seed, difference, ratio in zip(seeds, largest, decibels, strict=True):
        if psnr is None and not difference <= tolerance:  # not a number is none that agrees
            told = f"differs by {difference:.2e}; {provider} may by {tolerance:.0e}"
        elif psnr is not None and not ratio >= psnr:
            told = f"reaches {ratio:.1f} dB in {name}; it must reach {psnr:g}"
        else:
            continue
        found.problems.append(f"the golden picture of seed {seed} {told}")
    within = f"tolerance {tolerance:.0e}" if psnr is None else f"worst {min(decibels):.1f} dB of {psnr:g} allowed"
    found.notes.append(
        f"{len(seeds)} golden pictures redrawn by {name} with {provider}: they differ by at most {max(largest):.1e} "
        f"({within})"
    )


def check_signature(folder: Path, key: Path | None, found: Findings) -> None:
    """Check the signature of SHA256SUMS by a public key, and say what it or its absence proves."""
    signed = (folder / SIGNATURE).is_file()
    if key is None:
        by_whom = f"signed: give --key PUBLIC.pem to check {SIGNATURE}" if signed else "not signed"
        found.notes.append(f"{by_whom}; hashes prove that nothing was altered since, not who made it")
    elif not signed:
        found.problems.append(f"{SIGNATURE} is missing: a key was given, but the release is not signed")
    elif not importable("cryptography"):
        found.problems.append(
            "the signature was not checked: cryptography cannot be imported; `pip install cryptography`, or "
            f"`openssl pkeyutl -verify -pubin -inkey {key} -rawin -in {SUMS} -sigfile {SIGNATURE}`"
        )
    else:
        check_signed(folder, key, found)


def check_signed(folder: Path, key: Path, found: Findings) -> None:
    """Check an ed25519 signature."""
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
    from cryptography.hazmat.primitives.serialization import load_pem_public_key

    try:
        public = load_pem_public_key(key.read_bytes())
        if not isinstance(public, Ed25519PublicKey):
            raise ValueError("it is of another kind")
        public.verify((folder / SIGNATURE).read_bytes(), (folder / SUMS).read_bytes())
        found.notes.append(f"{SUMS} was signed by the holder of {key}")
    except InvalidSignature:
        found.problems.append(f"{SIGNATURE} is not a signature of {SUMS} by the key {key}")
    except (OSError, ValueError) as error:
        found.problems.append(f"{key} is no ed25519 public key in PEM ({error})")


def main() -> int:
    """Check a release from the command line and return 0 where all is as it was made, 1 otherwise."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    here = Path(__file__).resolve().parent
    parser.add_argument("folder", nargs="?", type=Path, default=here, help="the release (default: this file's folder)")
    parser.add_argument("--provider", default=CPU, help=f"draws the golden pictures (default: {CPU})")
    parser.add_argument("--key", type=Path, help="the maker's ed25519 public key in PEM, got in another way than this")
    given = parser.parse_args()
    found = check(given.folder, given.provider, given.key)
    for line in found.problems:
        print(f"verify: {line}", file=sys.stderr)
    for line in found.notes:
        print(line)
    count = len(found.problems)
    verdict = f"{count} problem{'s' if count > 1 else ''}" if count else "whole"
    print(f"{given.folder}: {verdict}")
    return 1 if found.problems else 0


if __name__ == "__main__":
    sys.exit(main())
