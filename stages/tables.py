"""Reads the parquet tables that stages hand on; one that is absent or torn is told with the stage that makes it."""

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from stages.errors import InputError
from stages.storage import require


def read_rows(path: Path, schema: pa.Schema, stage: str) -> list[dict[str, Any]]:
    """Return a table's rows in its order.

    Raises:
        InputError: the table is absent, torn or has other columns than the schema; `stage` is the one to run.
    """
    require(path.parent, stage)
    try:
        table = pq.read_table(require(path, stage))
        rows: list[dict[str, Any]] = table.to_pylist()
    except (pa.ArrowException, OSError, ValueError) as error:
        raise InputError(
            f"{path} is damaged ({' '.join(str(error).split())}); run `python -m stages.{stage}`"
        ) from error
    if table.schema.names != schema.names:
        raise InputError(
            f"{path} has columns {', '.join(table.schema.names)}, expected {', '.join(schema.names)}; "
            f"run `python -m stages.{stage}`"
        )
    return rows
