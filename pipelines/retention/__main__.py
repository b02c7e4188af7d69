"""Drops what is superseded and keeps champions and releases: `python -m pipelines.retention [--yes]`.

Prints what and how many bytes first; without --yes it asks on a terminal, and elsewhere only prints.
"""

import argparse
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from pipelines.backup.create import LOCK as BACKUP_LOCK
from pipelines.entry import answer
from pipelines.lifecycle import LOCK
from pipelines.publish import PUBLISHED, tracking_uri, without_secrets
from pipelines.retention.cache import find_unused
from pipelines.retention.leftovers import find_leftovers
from pipelines.retention.states import TRAIN, autoencoder_states, find_states, has_states
from pipelines.retention.superseded import Finding, in_bytes
from pipelines.retention.workspaces import other_workspaces
from stages.errors import InputError, StageError
from stages.process import stage_lock
from stages.settings import load_settings
from stages.storage import read_json, sha256_bytes

RELEASES = "releases/*/*/release.json"


@dataclass(frozen=True)
class Choice:
    """What the user has said: drop without asking, and who else uses the cache."""

    yes: bool
    projects: list[Path]
    shared_cache_is_mine: bool


def clean(choice: Choice) -> int:
    """Find what is superseded, show it, drop it if that is wanted, and return the exit code.

    Raises:
        InputError: settings are wrong, a run or back-up is at work in this workspace, or MLflow is another one than
            results were published to.
        FetchError: MLflow does not answer: what are champions is not known then.
    """
    if not Path("dvc.yaml").exists():
        raise InputError(f"{Path.cwd()} holds no dvc.yaml; run in the project's folder")
    settings = load_settings()
    with stage_lock(LOCK), stage_lock(BACKUP_LOCK):
        findings, failures = find_all([*settings.select, *map(autoencoder_states, settings.encode)], choice)
        show(findings)
        if any(finding.items for finding in findings) and wanted(choice.yes):
            failures += drop_all(findings)
    for failure in failures:
        print(f"retention: {failure}", file=sys.stderr, flush=True)
    return failures[0].code if failures else 0


def find_all(selected: list[str], choice: Choice) -> tuple[list[Finding], list[StageError]]:
    """Return what is superseded, kind by kind, and why a kind could not be judged."""
    from pipelines.retention.runs import find_runs, read_registry

    check_published(tracking_uri())
    registry = read_registry(tracking_uri(), sorted(Path().glob(RELEASES)))
    states = find_states(selected, registry.kept_fingerprints if registry else set())
    going = {item.name.split()[1] for item in states.items}
    elsewhere = [root / TRAIN for root in (*other_workspaces(), *choice.projects)]
    here = {folder.name for folder in TRAIN.glob("*/*/") if has_states(folder)} - going
    with_states = here | {folder.name for root in elsewhere for folder in root.glob("*/*/") if has_states(folder)}

    def cache() -> Finding:
        if registry:
            registry.check_files()
        kept = registry.kept_outputs() if registry else []
        return find_unused(kept, choice.projects, choice.shared_cache_is_mine)

    findings, failures = attempt([find_leftovers, cache])
    runs = [find_runs(registry, with_states)] if registry else []
    return [states, *findings, *runs], failures


def check_published(uri: str) -> None:
    """Make sure that MLflow is the one to which this workspace published: another one does not know its champions.

    Raises:
        InputError: a model was published elsewhere, such as where a shell lacks MLFLOW_TRACKING_URI.
    """
    for path in sorted(PUBLISHED.glob("*.json")):
        if read_json(path).get("tracking") != sha256_bytes(uri.encode()):
            raise InputError(
                f"{path.stem} was published to another MLflow than {without_secrets(uri)}, so that its champions are "
                "not known; set MLFLOW_TRACKING_URI as it was then, or, where MLflow has moved, run "
                f"`python -m pipelines.publish` (delete {path} for a model that is not selected)"
            )


def attempt(works: list[Callable[[], Finding]]) -> tuple[list[Finding], list[StageError]]:
    """Return what each look finds, and the failures of those that could not."""
    findings, failures = [], []
    for work in works:
        try:
            findings.append(work())
        except StageError as error:
            failures.append(error)
    return findings, failures


def show(findings: list[Finding]) -> None:
    """Print what may go, with its bytes, and what stays though one may expect otherwise."""
    for finding in findings:
        if finding.items:
            print(f"{finding.kind}: {in_bytes(finding.bytes)}")
        for item in finding.items:
            print(f"  {item.name}: {item.detail}; {in_bytes(item.bytes)}")
        for note in finding.notes:
            print(f"  {finding.kind}: {note}")
    total = sum(finding.bytes for finding in findings)
    there = any(finding.items for finding in findings)
    print(f"superseded: {in_bytes(total)} in all" if there else "nothing is superseded", flush=True)


def wanted(yes: bool) -> bool:
    """Return whether to drop: told on the command line, or answered on a terminal."""
    if yes:
        return True
    if not sys.stdin.isatty():
        print("nothing was dropped; --yes drops it (make clean-old YES=1)", flush=True)
        return False
    try:
        return input("drop all of this? [y/N] ").strip().lower() in ("y", "yes")
    except EOFError:  # Ctrl-D
        return False


def drop_all(findings: list[Finding]) -> list[StageError]:
    """Drop everything that was shown and return what failed; what changed meanwhile stays and is told."""
    failures, dropped = [], 0
    for item in (item for finding in findings for item in finding.items):
        try:
            line = item.drop()
        except StageError as error:
            failures.append(error)
            continue
        if line:
            print(line, flush=True)
        else:
            dropped += item.bytes
    print(f"dropped {in_bytes(dropped)}", flush=True)
    return failures


def main() -> int:
    """Clean up from the command line and return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m pipelines.retention", description=__doc__)
    parser.add_argument("--yes", action="store_true", help="drop without asking")
    parser.add_argument(
        "--project", type=Path, action="append", default=[], help="another project that shares DVC's cache; repeatable"
    )
    parser.add_argument(
        "--shared-cache-is-mine", action="store_true", help="nobody else uses a cache outside of this repository"
    )
    given = parser.parse_args()
    return answer("retention", lambda: clean(Choice(given.yes, given.project, given.shared_cache_is_mine)))


if __name__ == "__main__":
    sys.exit(main())
