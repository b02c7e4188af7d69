"""Maps a function over the pictures of data/raw with one process per core, the same result for any number of them."""

import multiprocessing
import os
import signal
from collections import defaultdict, deque
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
    """Return all that `stream_pictures` yields, in the order of keys.

    Raises:
        ResourceError: a worker was killed or ran out of memory.
    """
    return sorted(stream_pictures(raw, pictures, function, workers, what), key=lambda outcome: outcome[0].key)


def stream_pictures(
    raw: Path, pictures: list[Picture], function: Callable[[Picture, bytes], Result], workers: int, what: str
) -> Iterator[tuple[Picture, Result | None, str]]:
    """Yield (picture, result, reason) for every picture in the order of archives; a reason means: set aside.

    `function` must be picklable; UnreadablePicture is its way to refuse a picture. `workers` 0 means one per core; a
    single one is this process itself.

    Raises:
        ResourceError: a worker was killed or ran out of memory.
    """
    items = iter(progress(_read(raw, pictures), what, len(pictures)))
    workers = workers or os.cpu_count() or 1
    outcomes = (
        _map_batches(items, function, workers) if workers > 1 else (_apply_one(function, *item) for item in items)
    )
    missing = {picture.key: picture for picture in pictures}
    try:
        for outcome in outcomes:
            missing.pop(outcome[0].key, None)
            yield outcome
    except (BrokenProcessPool, MemoryError) as error:
        raise ResourceError(
            f"{what}: a worker was killed, probably out of memory: lower normalize.workers (here {workers})"
        ) from error
    yield from ((picture, None, f"{picture.member} is not in {picture.archive}") for picture in missing.values())


def _read(raw: Path, pictures: list[Picture]) -> Iterator[Item]:
    of_archive: dict[str, dict[str, Picture]] = defaultdict(dict)
    for picture in pictures:
        of_archive[picture.archive][picture.member] = picture
    for archive, wanted in sorted(of_archive.items()):
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
