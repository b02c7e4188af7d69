"""The table that tells what each fetched picture is: data/raw/catalogue.parquet."""

from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from stages.errors import InputError
from stages.tables import read_rows

NAME, ORIGIN = "catalogue.parquet", "origin.json"
SCHEMA = pa.schema(
    [
        ("key", pa.string()),
        ("archive", pa.string()),
        ("member", pa.string()),
        ("class_name", pa.string()),
        ("caption", pa.string()),
        ("group", pa.string()),
        ("pair_id", pa.string()),
        ("licence", pa.string()),
    ]
)


@dataclass(frozen=True)
class Picture:
    """One picture of a source: a member of an archive in data/raw, and what is known of it.

    An empty group means that only identical pixels are near-duplicates; an empty class name means no class.
    """

    key: str
    archive: str
    member: str
    class_name: str = ""
    caption: str = ""
    group: str = ""
    pair_id: str = ""
    licence: str = "unknown"


def write_catalogue(folder: Path, pictures: list[Picture]) -> None:
    """Write the catalogue in the order of keys.

    Raises:
        InputError: there is no picture, or two have one key.
    """
    if not pictures:
        raise InputError("the source holds no picture; look at `data` in params.yaml")
    ordered = sorted(pictures, key=lambda picture: picture.key)
    for one, other in pairwise(ordered):
        if one.key == other.key:
            raise InputError(f"two pictures are called {one.key}: {one.member} and {other.member}")
    pq.write_table(pa.Table.from_pylist([asdict(p) for p in ordered], schema=SCHEMA), folder / NAME)


def read_catalogue(raw: Path) -> list[Picture]:
    """Read the catalogue of data/raw, in the order of keys.

    Raises:
        InputError: the download stage has not run, or the table is damaged.
    """
    return [Picture(**row) for row in read_rows(raw / NAME, SCHEMA, "download")]
