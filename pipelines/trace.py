"""Says where an ONNX file comes from: `python -m pipelines.trace FILE.onnx [--json]`.

The file's own metadata name its weights, data and settings. Scores, commit and run are those of the release.json beside
it, if that describes this very file. In the project's folder each claim is compared with DVC, Git and models/NAME.
"""

import argparse
import json
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from pipelines.entry import answer
from pipelines.git import ask_git
from pipelines.release.card import is_spread
from pipelines.release.locked import outputs_in
from pipelines.release.shipped.verify import RECORD, SUMS, identity_of, read_metadata
from stages.errors import InputError
from stages.generators.loading import MODELS
from stages.storage import sha256_file

SHOWN = 12  # digits of a hash
LOCK = "dvc.lock"
AGREES, DIFFERS, UNKNOWN = "agrees", "differs", "unknown"


@dataclass(frozen=True)
class Checked:
    """One claim, with what it was compared, and how that came out: agrees, differs or unknown."""

    claim: str
    outcome: str
    detail: str


@dataclass
class Trace:
    """What a file says of itself, what its release says of it, and what the repository says of that."""

    file: str
    sha256: str
    bytes: int
    identity: dict[str, str]
    release: dict[str, Any] | None = None
    checks: list[Checked] = field(default_factory=list)

    def check(self, claim: str, outcome: str, detail: str) -> None:
        """Note how a claim came out."""
        self.checks.append(Checked(claim, outcome, detail))


def trace(path: Path) -> Trace:
    """Trace a file as far as it can be.

    Raises:
        InputError: it cannot be read, or its metadata name no content.
    """
    try:
        identity, sha256, size = identity_of(read_metadata(path)), sha256_file(path), path.stat().st_size
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}; expected an ONNX file") from error
    if not identity:
        raise InputError(
            f"{path} names no weights, data or settings in its metadata; expected a file that "
            "`python -m stages.export NAME` wrote"
        )
    found = Trace(str(path), sha256, size, identity)
    found.release = release_of(path, found)
    name = found.release["name"] if found.release else None
    if Path("dvc.yaml").exists():
        check_models(found, name)
        if found.release:
            check_locked(found, found.release)
            check_commits(found, found.release)
    else:
        found.check("repository", UNKNOWN, "no dvc.yaml here; run in the project's folder to compare with DVC and Git")
    return found


def release_of(path: Path, found: Trace) -> dict[str, Any] | None:
    """Return what of the record beside a file is said of it; None where there is none, or it is of another file."""
    beside = path.with_name(RECORD)
    if not beside.exists():
        found.check("release", UNKNOWN, f"no {RECORD} beside the file: scores, commit and run are not known")
        return None
    try:
        record = json.loads(beside.read_text())
        model = record["model"]
        told = {
            "name": record["name"],
            "version": record["version"],
            "created": record["created"],
            "scores": record["scores"]["scores"],
            "commit": record["commit"],
            "training": {key: record["training"][key] for key in ("fingerprint", "git", "kimg")},
            "mlflow": record["mlflow"],
            "dvc": record["dvc"],
        }
    except (ValueError, LookupError, TypeError) as error:
        raise InputError(f"{beside} is no release's record ({type(error).__name__}: {error})") from error
    if found.sha256 not in {model["sha256"], *(each["sha256"] for each in record["variants"].values())}:
        found.check("release", DIFFERS, f"{beside} is of a file with sha256 {model['sha256'][:SHOWN]}, not of this one")
        return None
    same = model["identity"] == found.identity
    but = "" if same else ", but it names other weights, data or settings"
    about = f"{beside} is of this file: {told['name']} {told['version']}{but}"
    found.check("release", AGREES if same else DIFFERS, about)
    check_sums(beside, found)
    return told


def check_sums(record: Path, found: Trace) -> None:
    """Compare a record with the sums beside it: its claims are worth no more than its own hash."""
    sums = record.with_name(SUMS)
    line = f"{sha256_file(record)}  {record.name}"
    if not sums.exists():
        found.check("release", UNKNOWN, f"no {SUMS} beside {record.name}: nothing tells whether it was altered")
    elif line in sums.read_text().splitlines():
        found.check("release", AGREES, f"{record.name} is the one that {SUMS} names")
    else:
        found.check("release", DIFFERS, f"{record.name} is not the one that {SUMS} names; its claims may be altered")


def check_models(found: Trace, name: str | None) -> None:
    """Look for the file among the models here: the same bytes, or at least the same weights."""
    files = sorted(MODELS.glob(f"{name or '*'}/onnx/model*.onnx"))
    for file in files:
        if sha256_file(file) == found.sha256:
            return found.check("models", AGREES, f"{file} is this file, to the byte")
    for file in files:
        if identity_of(read_metadata(file)).get("weights") == found.identity.get("weights"):
            return found.check("models", DIFFERS, f"{file} is of the same weights, exported otherwise")
    if name is None:
        return found.check("models", UNKNOWN, f"none of {len(files)} models here is this file or has its weights")
    about = f"{MODELS / name} holds another model now" if files else f"{MODELS / name / 'onnx'} holds no file"
    return found.check("models", DIFFERS if files else UNKNOWN, about)


def check_locked(found: Trace, told: dict[str, Any]) -> None:
    """Compare the md5 of the model's outputs with those in dvc.lock now, and as the release's commit has it."""
    if not told["dvc"]:
        return found.check("dvc", UNKNOWN, f"the release names no outputs of {LOCK}")
    commit = told["commit"]["commit"]
    texts: dict[str, Callable[[], str | None]] = {
        f"{LOCK} now": lambda: Path(LOCK).read_text() if Path(LOCK).exists() else None,
        f"{LOCK} at {str(commit)[:SHOWN]}": lambda: ask_git("show", f"{commit}:{LOCK}") if commit else None,
    }
    for where, read in texts.items():
        text = read()
        if text is None:
            found.check("dvc", UNKNOWN, f"there is no {where}")
            continue
        now = outputs_in(text, told["name"], where)
        other = [stage for stage, outs in told["dvc"].items() if md5s(now.get(stage, [])) != md5s(outs)]
        outcome = DIFFERS if other else AGREES
        about = f"other outputs of {', '.join(other)}" if other else f"the same outputs of {len(told['dvc'])} stages"
        found.check("dvc", outcome, f"{where} names {about}")
    return None


def md5s(outs: list[dict[str, Any]]) -> dict[str, str]:
    """Return the md5 of outputs by path."""
    return {out["path"]: out["md5"] for out in outs}


def check_commits(found: Trace, told: dict[str, Any]) -> None:
    """Ask Git whether it knows the commits of the release and of the training."""
    for what, claim in {"release": told["commit"], "training": told["training"]["git"]}.items():
        commit = claim["commit"]
        if commit is None:
            found.check("git", UNKNOWN, f"no commit of the {what} was recorded")
            continue
        known = ask_git("cat-file", "-e", f"{commit}^{{commit}}") is not None
        dirty = ", with changes that were not committed" if claim["dirty"] else ""
        detail = f"commit {commit[:SHOWN]} of the {what} is {'known' if known else 'not known here'}{dirty}"
        found.check("git", AGREES if known else UNKNOWN, detail)


def as_text(found: Trace) -> str:
    """Return a trace as lines, one per fact and one per check."""
    lines = [f"{found.file}: sha256 {found.sha256}, {found.bytes:,} bytes"]
    lines += [f"  {key}: {value}" for key, value in found.identity.items()]
    if told := found.release:
        run = told["mlflow"]
        scores = [f"{key} {value:.4g}" for key, value in told["scores"].items() if not is_spread(key)]
        lines += [
            f"  release: {told['name']} {told['version']}, {told['created']}",
            f"  scores: {', '.join(scores)}",
            f"  trained: {told['training']['kimg']:g} kimg, fingerprint {told['training']['fingerprint']}",
            f"  MLflow: run {run['run_id']}, model {run['model_id']}" if run else "  MLflow: not published",
        ]
    lines += [f"{checked.claim}: {checked.outcome}: {checked.detail}" for checked in found.checks]
    return "\n".join(lines)


def work(path: Path, as_json: bool) -> int:
    """Trace a file, print what was found, and return 0.

    Raises:
        InputError: it cannot be traced.
    """
    found = trace(path)
    print(json.dumps(asdict(found), indent=2) if as_json else as_text(found), flush=True)
    return 0


def main() -> int:
    """Trace a file from the command line and return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m pipelines.trace", description=__doc__)
    parser.add_argument("file", type=Path, help="an exported file, alone or in a release")
    parser.add_argument("--json", action="store_true", help="print the same as JSON")
    given = parser.parse_args()
    return answer("trace", partial(work, given.file, given.json))


if __name__ == "__main__":
    sys.exit(main())
