"""One pass over a set of pictures through all feature networks that lack it: in threads, and shared by processes."""

import threading
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial

import numpy as np

from stages.errors import InputError
from stages.metrics import shares
from stages.metrics.feature_networks import FeatureNetwork
from stages.metrics.features import Extracted, Network, PictureSet
from stages.progress import progress_bar

CPU_CHUNK = 8  # larger activations are mapped and unmapped at every layer: 64 costs twice as much per picture
Result = tuple[np.ndarray, np.ndarray | None]
TURN = threading.Lock()  # for networks that may not be asked by two threads at once


@dataclass
class Rows:
    """The features and logits of a set of known size, filled in as they arrive; the first of them tell the widths."""

    count: int
    values: list[np.ndarray] = field(default_factory=list)

    def put(self, start: int, found: Result, mine: bool) -> None:
        """Store what was found for the pictures from `start` on; where it is not this process's, only its widths."""
        parts = [part for part in found if part is not None]
        if not self.values:
            self.values = [np.zeros((self.count, part.shape[1]), np.float32) for part in parts]
        for rows, part in zip(self.values, parts, strict=True):
            if mine:
                rows[start : start + len(part)] = part

    def extracted(self) -> Extracted:
        """Return all rows, those of the other processes among them."""
        for values in self.values:
            shares.add_up(values)
        return Extracted(self.values[0], self.values[1] if len(self.values) > 1 else None)


@dataclass(frozen=True)
class Chunk:
    """Neighbouring pictures, the position of the first of them, and whether this process answers for them."""

    start: int
    pictures: np.ndarray
    mine: bool


def extract(pictures: PictureSet, networks: Sequence[Network]) -> dict[str, Extracted]:
    """Compute the features of a set in one pass over its pictures, however many networks there are.

    On a CPU threads compute while the next pictures are read or drawn; only those on their way are in memory. Of
    several processes each reads or draws all pictures and computes the features of its own share.

    Raises:
        InputError: the set has another number of pictures than it says, or pictures that no network takes.
    """
    rows = {network.label: Rows(pictures.count) for network in networks}
    with progress_bar(pictures.name, pictures.count) as bar:
        bar.disable = not shares.is_first()  # one process speaks for all
        for chunk, results in _classified(_counted(pictures, networks), networks):
            for label, result in results.items():
                rows[label].put(chunk.start, result, chunk.mine)
            bar.update(len(chunk.pictures))
    return {label: found.extracted() for label, found in rows.items()}


def _counted(pictures: PictureSet, networks: Sequence[Network]) -> Iterator[Chunk]:
    """Cut the batches into chunks, and make sure that there are as many pictures as the set says.

    Raises:
        InputError: there are more, or fewer, or none.
    """
    on_cpu = all(network.device.type == "cpu" for network in networks)
    start = number = 0
    for batch in pictures.batches():
        size = CPU_CHUNK if on_cpu else max(len(batch), 1)
        for first in range(0, len(batch), size):
            part = batch[first : first + size]
            if start + len(part) > pictures.count:
                raise InputError(f"{pictures.name} gave more than the {pictures.count} pictures it said; open it again")
            yield Chunk(start, np.ascontiguousarray(part), shares.is_mine(number))
            start, number = start + len(part), number + 1
    if start != pictures.count or not start:
        raise InputError(f"{pictures.name} gave {start} pictures, {pictures.count} were expected; give at least one")


def _classified(chunks: Iterator[Chunk], networks: Sequence[Network]) -> Iterator[tuple[Chunk, dict[str, Result]]]:
    """Yield the chunks in order, each with what every network makes of it."""
    run = partial(_run, networks)
    if any(network.device.type != "cpu" for network in networks):  # cuDNN's flags belong to the process, not a thread
        yield from ((chunk, run(chunk)) for chunk in chunks)
        return
    workers = max(network.workers if isinstance(network, FeatureNetwork) else 1 for network in networks)
    pool = ThreadPoolExecutor(workers, "features")
    waiting: deque[tuple[Chunk, Future[dict[str, Result]]]] = deque()
    try:
        for chunk in chunks:
            waiting.append((chunk, pool.submit(run, chunk)))
            while len(waiting) > workers:  # one is ready when a thread becomes free
                first, future = waiting.popleft()
                yield first, future.result()
        for first, future in waiting:
            yield first, future.result()
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _run(networks: Sequence[Network], chunk: Chunk) -> dict[str, Result]:
    """Return what each network makes of a chunk; of another process's, only of the set's first, for its widths."""
    if not chunk.mine and chunk.start:
        return {}
    return {network.label: _classify(network, chunk.pictures) for network in networks}


def _classify(network: Network, pictures: np.ndarray) -> Result:
    if isinstance(network, FeatureNetwork):  # its engine takes turns where it must
        return network.classify(pictures)
    with TURN:
        return network.classify(pictures)
