"""Warm-up, alternating blocks of runs, and the figures that a number of runs can carry."""

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import psutil
from tqdm import tqdm

from stages.benchmark.contestants import Call, Contestant

WARM_RUNS = 5  # of each of the two windows that are compared
WARM_SECONDS = 2.0  # at most, per shape
STABLE = 0.1  # perf_analyzer's rule: windows within 10 %
BLOCK_SECONDS = 0.2  # short, so that a noisy moment of the machine hits every runtime alike
MEBIBYTE = 1 << 20


@dataclass
class Row:
    """The runs of one contestant at one batch size; times in seconds."""

    contestant: Contestant
    batch: int
    call: Call
    first: float = 0.0
    expected: float = 0.0  # seconds of one run, as the warm-up found it
    times: list[float] = field(default_factory=list)
    rss: int = 0
    cuda_peak: int | None = None

    def wants_more(self, seconds: float, min_runs: int) -> bool:
        """Tell whether runs or seconds are missing."""
        return len(self.times) < min_runs or sum(self.times) < seconds

    def planned(self, seconds: float, min_runs: int) -> int:
        """Return about how many runs there will be."""
        return max(min_runs, len(self.times), int(seconds / max(self.expected, 1e-9)))


def time_batch(
    contestants: list[Contestant], batch: int, seconds: float, min_runs: int, bar: tqdm
) -> list[dict[str, Any]]:
    """Time all contestants at one batch size in alternating blocks, and return a report of each."""
    rows = [Row(contestant, batch, contestant.prepare(batch)) for contestant in contestants]
    for row in rows:
        row.first, row.expected = warm_up(row.call)
    bar.total = (bar.total or 0) + sum(row.planned(seconds, min_runs) - min_runs for row in rows)
    while waiting := [row for row in rows if row.wants_more(seconds, min_runs)]:
        for row in waiting:
            bar.update(run_block(row))
    return [report(row) for row in rows]


def warm_up(call: Call, clock: Callable[[], float] = time.perf_counter) -> tuple[float, float]:
    """Run until two windows of runs agree or the time for it is over; return the first run's and a later one's seconds.

    A first run of a shape allocates memory and may search for algorithms: it says nothing about the next.
    """
    first = timed(call, clock)
    times = [timed(call, clock)]
    while sum(times) < WARM_SECONDS and not is_stable(times):
        times.append(timed(call, clock))
    return first, float(np.median(times[-WARM_RUNS:]))


def is_stable(times: list[float]) -> bool:
    """Tell whether the medians of the last two windows of runs are within 10 % of each other."""
    if len(times) < 2 * WARM_RUNS:
        return False
    before, last = np.median(times[-2 * WARM_RUNS : -WARM_RUNS]), np.median(times[-WARM_RUNS:])
    return bool(abs(last - before) <= STABLE * before)


def timed(call: Call, clock: Callable[[], float] = time.perf_counter) -> float:
    """Return the seconds of one call."""
    start = clock()
    call()
    return clock() - start


def run_block(row: Row) -> int:
    """Run one contestant for about a block's time, note memory, and return the number of runs."""
    runs = max(1, int(BLOCK_SECONDS / max(row.expected, 1e-9)))
    on_torch_cuda = row.contestant.runtime == "torch" and row.contestant.device == "cuda"
    if on_torch_cuda:
        import torch

        torch.cuda.reset_peak_memory_stats()
    row.times += [timed(row.call) for _ in range(runs)]
    row.rss = max(row.rss, psutil.Process().memory_info().rss)
    if on_torch_cuda:
        row.cuda_peak = max(row.cuda_peak or 0, torch.cuda.max_memory_allocated())
    return runs


def report(row: Row) -> dict[str, Any]:
    """Return one row of benchmark.json: milliseconds, pictures per second, mebibytes.

    `rss_mb` is of the whole process, in which all runtimes are loaded; `cuda_peak_mb` is torch's own allocator;
    `contention` is p50 over the fastest run: well above 1 means that something else used the machine.
    """
    times = row.times
    p50 = percentile(times, 50)
    return {
        "runtime": row.contestant.runtime,
        "provider": row.contestant.provider,
        "form": row.contestant.form,
        "device": row.contestant.device,
        "batch": row.batch,
        "runs": len(times),
        "first_run_ms": to_ms(row.first),
        **{f"p{q}_ms": to_ms(percentile(times, q)) for q in (50, 95, 99)},
        "min_ms": to_ms(min(times)),
        "contention": round(p50 / min(times), 3) if p50 else None,
        "pictures_per_second": round(row.batch * len(times) / sum(times), 3),
        "rss_mb": round(row.rss / MEBIBYTE, 1),
        "cuda_peak_mb": None if row.cuda_peak is None else round(row.cuda_peak / MEBIBYTE, 1),
    }


def percentile(times: list[float], q: int) -> float | None:
    """Return a percentile by nearest rank, a time that was really seen; None where there are too few runs for it.

    A percentile needs at least one run beyond it: 20 runs for p95, 100 for p99.
    """
    needed = -(-100 // (100 - q))
    if len(times) < needed:
        return None
    rank = -(-q * len(times) // 100)
    return sorted(times)[rank - 1]


def to_ms(seconds: float | None) -> float | None:
    """Return milliseconds to the microsecond."""
    return None if seconds is None else round(seconds * 1000, 3)
