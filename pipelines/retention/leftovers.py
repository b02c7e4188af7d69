"""Half-written files and folders that a killed process left behind."""

import shutil
import time
from pathlib import Path

from pipelines.retention.superseded import HOUR, Finding, Superseded, age, bytes_of, newest_change
from pipelines.retention.workspaces import at_work
from stages.process import WORK

PLACES = (Path("data"), Path("models"), Path("releases"), WORK)
PATTERN = ".*.partial"


def find_leftovers() -> Finding:
    """Return what is half-written and was not written to for an hour; nothing while a stage is at work here."""
    if names := at_work(Path()):
        return Finding("half-written files", [], [f"half-written files stay, since {', '.join(names)} is at work"])
    found = [path for place in PLACES for path in sorted(place.rglob(PATTERN))]
    outermost = [path for path in found if not any(parent in found for parent in path.parents)]
    old = [path for path in outermost if time.time() - newest_change(path) > HOUR]
    return Finding("half-written files", [_superseded(path) for path in old])


def _superseded(path: Path) -> Superseded:
    seen = newest_change(path)

    def drop() -> str | None:
        if not path.exists():  # it has gone with a state, or its stage has ended
            return None
        if newest_change(path) > seen or at_work(Path()):  # the next run of a stage takes the same name
            return f"{path} stays: it was written to meanwhile, or a stage is at work"
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)
        return None

    return Superseded(path.as_posix(), age(seen), bytes_of(path), drop)
