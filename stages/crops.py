"""The table of decisions in data/crops: which square of each picture is used, or why the picture is set aside."""

from dataclasses import asdict, dataclass, field
from itertools import pairwise
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from stages.errors import InputError
from stages.tables import read_rows

NAME = "crops.parquet"
BACKGROUND, REFLECT = "background", "reflect"  # what lies outside of the picture
SCHEMA = pa.schema(
    [
        ("key", pa.string()),
        ("source", pa.string()),
        ("quad", pa.list_(pa.float64())),
        ("landmarks", pa.list_(pa.float64())),
        ("skipped", pa.string()),
        ("faceless", pa.bool_()),
        ("border", pa.string()),
    ]
)


@dataclass(frozen=True)
class Crop:
    """A crop of the picture `source`: corners x0 y0 .. x3 y3 from the upper left, counter-clockwise, in decoded pixels.

    The quad may be turned and may reach outside the picture; `skipped` is empty or the reason why the picture is not
    used, `faceless` that it can be read but shows no face. A picture's first crop has its key; further ones are called
    KEY#2, KEY#3, ... `border` tells what lies outside of the picture: the background, or the picture's reflection,
    which blurs and fades.
    """

    key: str
    source: str
    quad: list[float] = field(default_factory=list)
    landmarks: list[float] = field(default_factory=list)
    skipped: str = ""
    faceless: bool = False
    border: str = BACKGROUND


def square_quad(left: float, top: float, side: float) -> list[float]:
    """Return the corners of an upright square."""
    right, bottom = left + side, top + side
    return [left, top, left, bottom, right, bottom, right, top]


def write_crops(folder: Path, crops: list[Crop]) -> None:
    """Write the table in the order of keys.

    Raises:
        InputError: two crops have one key.
    """
    rows = [asdict(crop) for crop in sorted(crops, key=lambda crop: crop.key)]
    for one, other in pairwise(rows):
        if one["key"] == other["key"]:
            raise InputError(f"two crops are called {one['key']}; rename the picture of that name")
    pq.write_table(pa.Table.from_pylist(rows, schema=SCHEMA), folder / NAME)


def read_crops(folder: Path) -> dict[str, list[Crop]]:
    """Read the crops of every picture by the picture's key, in the order of their own keys.

    Raises:
        InputError: the align stage has not run, or the table is damaged.
    """
    crops: dict[str, list[Crop]] = {}
    for row in read_rows(folder / NAME, SCHEMA, "align"):
        crops.setdefault(row["source"], []).append(Crop(**row))
    return crops


def check_share(skipped: list[Crop], total: int, limit: float) -> None:
    """Refuse to go on when too many pictures are unreadable.

    Raises:
        InputError: their share is over `data.max_reject_share`; the first reasons are quoted.
    """
    _check(skipped, total, limit, "are unreadable", "data.max_reject_share")


def check_faceless(skipped: list[Crop], total: int, limit: float) -> None:
    """Refuse to go on when too many pictures show no face.

    Raises:
        InputError: their share is over `align.face.max_faceless_share`; the first reasons are quoted.
    """
    _check(skipped, total, limit, "show no face", "align.face.max_faceless_share")


def _check(skipped: list[Crop], total: int, limit: float, what: str, setting: str) -> None:
    if len(skipped) > limit * total:
        quoted = "; ".join(f"{crop.key}: {crop.skipped}" for crop in skipped[:3])
        raise InputError(f"{len(skipped)} of {total} pictures {what}, more than {setting} {limit}: {quoted}")
