"""What an MLflow sqlite file in the current folder holds, read without MLflow."""

import sqlite3
from pathlib import Path

DATABASE = Path("mlflow.db")


def rows(query: str, *values: str) -> list[tuple]:
    """Return the rows of a query; none where no database is."""
    if not DATABASE.exists():
        return []
    with sqlite3.connect(DATABASE) as database:
        return database.execute(query, values).fetchall()


def points(key: str) -> list[tuple[int, float]]:
    """Return steps and values of a metric, over all runs."""
    found = rows("SELECT step, value FROM metrics WHERE key = ? ORDER BY step, timestamp", key)
    return [(int(step), float(value)) for step, value in found]


def tags() -> dict[str, str]:
    """Return the tags of the only run."""
    return dict(rows("SELECT key, value FROM tags"))
