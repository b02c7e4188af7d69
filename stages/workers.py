"""Maps a function over the pictures of data/raw with one process per core, the same result for any number of them."""

import multiprocessing
import os
import signal
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from itertools import islice
from pathlib import Path
from typing import Any, TypeVar

from stages.archives import read_members
from stages.catalogue import Picture
from stages.decoding import UnreadablePicture
from stages.errors import ResourceError
from stages.process import die_with_parent
from stages.progress import progress

Result = TypeVar("Result")
Item = tuple[Picture, bytes]
Outcome = tuple[Picture, Any, str]
BATCH = 32
BATCHES_PER_WORKER = 3  # in flight: enough to keep workers busy, few enough that memory holds only some pictures


def map_pictures(
    raw: Path, pictures: list[Picture], function: Callable[[Picture, bytes], Result], workers: int, what: str
) -> list[tuple[Picture, Result | None, str]]:
    """Return (picture, result, reason) for every picture in the order of keys; a reason means that it is set aside.

    `function` must be picklable; UnreadablePicture is its way to refuse a picture. `workers` 0 means one per core.

    Raises:
        ResourceError: a worker was killed or ran out of memory.
    """
    items = progress(_read(raw, pictures), what, len(pictures))
    workers = workers or os.cpu_count() or 1
    try:
        outcomes = list(_map_batches(iter(items), function, workers))
    except (BrokenProcessPool, MemoryError) as error:
        raise ResourceError(
            f"{what}: a worker was killed, probably out of memory: lower normalize.workers (here {workers})"
        ) from error
    found = {outcome[0].key for outcome in outcomes}
    outcomes += [(p, None, f"{p.member} is not in {p.archive}") for p in pictures if p.key not in found]
    return sorted(outcomes, key=lambda outcome: outcome[0].key)


def _read(raw: Path, pictures: list[Picture]) -> Iterator[Item]:
    for archive in sorted({picture.archive for picture in pictures}):
        wanted = {picture.member: picture for picture in pictures if picture.archive == archive}
        for member, data in read_members(raw / archive, set(wanted)):
            yield wanted[member], data


def _map_batches(items: Iterator[Item], function: Callable, workers: int) -> Iterator[Outcome]:
    method = "forkserver" if "forkserver" in multiprocessing.get_all_start_methods() else "spawn"
    context = multiprocessing.get_context(method)
    with ProcessPoolExecutor(workers, context, initializer=_start_worker) as pool:
        pending: deque[Future] = deque()
        while batch := list(islice(items, BATCH)):
            pending.append(pool.submit(_apply, function, batch))
            if len(pending) >= workers * BATCHES_PER_WORKER:
                yield from pending.popleft().result()
        while pending:
            yield from pending.popleft().result()


def _start_worker() -> None:
    """Let Ctrl-C end the stage, which ends its workers, and let none outlive it."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    die_with_parent()


def _apply(function: Callable, batch: list[Item]) -> list[Outcome]:
    return [_apply_one(function, picture, data) for picture, data in batch]


def _apply_one(function: Callable, picture: Picture, data: bytes) -> Outcome:
    try:
        return picture, function(picture, data), ""
    except UnreadablePicture as refusal:
        return picture, None, str(refusal)
