"""Progress bars with pictures per second and remaining time, on a terminal and in a log file alike."""

import sys
from collections.abc import Iterable
from typing import TypeVar

from tqdm import tqdm

Item = TypeVar("Item")
QUIET_SECONDS = 2.0
LOG_INTERVAL_SECONDS = 15.0


def progress_bar(what: str, total: int, unit: str = "pictures", initial: int = 0) -> tqdm:
    """Return a bar that appears after two seconds; `unit` is what `update(n)` counts."""
    interval = 0.2 if sys.stderr.isatty() else LOG_INTERVAL_SECONDS
    return tqdm(
        total=total,
        desc=what,
        unit=f" {unit}",
        initial=initial,
        delay=QUIET_SECONDS,
        mininterval=interval,
        maxinterval=max(interval, 10.0),
        dynamic_ncols=True,
        smoothing=0.1,
    )


def progress(items: Iterable[Item], what: str, total: int, unit: str = "pictures") -> Iterable[Item]:
    """Iterate with a bar of one step per item."""
    with progress_bar(what, total, unit) as bar:
        for item in items:
            yield item
            bar.update(1)
