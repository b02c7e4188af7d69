"""MLflow's sqlite file: a snapshot while it is in use, and its paths when it is moved."""

import contextlib
import sqlite3
from pathlib import Path
from urllib.parse import quote

from pipelines.backup.contents import ARTIFACTS
from pipelines.publish import SQLITE, tracking_uri

STORES = ("mlartifacts", "mlruns")  # below the project's folder


def database_path() -> Path | None:
    """Return MLflow's sqlite file, None where MLFLOW_TRACKING_URI names a server."""
    uri = tracking_uri()
    return Path(uri.removeprefix(SQLITE)) if uri.startswith(SQLITE) else None


def snapshot(database: Path, target: Path) -> None:
    """Copy a database as it is at one moment, whoever writes into it meanwhile."""
    target.unlink(missing_ok=True)
    with (
        contextlib.closing(sqlite3.connect(f"{database.resolve().as_uri()}?mode=ro", uri=True)) as source,
        contextlib.closing(sqlite3.connect(target)) as copy,
    ):
        source.backup(copy)


def move_paths(database: Path, old: Path, new: Path) -> int:
    """Replace the project's old folder in every address of an artifact by the new one; return how many changed.

    All text columns of all tables are searched, since experiments, runs, logged models, versions and tags hold them.
    """
    if old == new:
        return 0
    changed = 0
    with contextlib.closing(sqlite3.connect(database)) as connection, connection:
        for table, column in text_columns(connection):
            for before, after in _replacements(old, new):
                update = f'UPDATE "{table}" SET "{column}" = replace("{column}", ?, ?) WHERE instr("{column}", ?)'
                changed += connection.execute(update, (f"{before}/", f"{after}/", f"{before}/")).rowcount
                exact = f'UPDATE "{table}" SET "{column}" = ? WHERE "{column}" IN (?, ?)'
                values = (f"file://{after}", f"file://{before}", f"file://{before}/")
                changed += connection.execute(exact, values).rowcount
    return changed


def text_columns(connection: sqlite3.Connection) -> list[tuple[str, str]]:
    """Return every table and column that holds text."""
    tables = connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall()
    columns = [(name, row) for (name,) in tables for row in connection.execute(f'PRAGMA table_info("{name}")')]
    return [(name, row[1]) for name, row in columns if "CHAR" in row[2].upper() or "TEXT" in row[2].upper()]


def _replacements(old: Path, new: Path) -> list[tuple[str, str]]:
    """Return the stores' paths as they are, and as addresses write them where that differs."""
    plain = [(f"{old.as_posix()}/{store}", f"{new.as_posix()}/{store}") for store in STORES]
    return list(dict.fromkeys([*((quote(before), quote(after)) for before, after in plain), *plain]))


def foreign_locations(database: Path, project: Path) -> list[str]:
    """Return where experiments with runs keep artifacts outside of `mlartifacts`: a back-up has them not."""
    query = "SELECT DISTINCT artifact_location FROM experiments WHERE experiment_id IN (SELECT experiment_id FROM runs)"
    with contextlib.closing(sqlite3.connect(database)) as connection:
        found = [location for (location,) in connection.execute(query)]
    home = str(project / ARTIFACTS)
    homes = tuple(f"{scheme}{quoted}/" for scheme in ("", "file://") for quoted in (home, quote(home)))
    return [location for location in found if not f"{location}/".startswith(homes)]
