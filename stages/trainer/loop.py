"""The training loop: steps, ticks, states, and a stop that loses nothing."""

import math
import os
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn

import psutil
import torch
from torch import Tensor

from stages.dataset import to_uint8
from stages.errors import GateError, Interrupted, ResourceError
from stages.process import STOP
from stages.progress import progress_bar
from stages.sheet import sheet
from stages.trainer.health import diversity, find_alerts, unhealthy_losses
from stages.trainer.learner import Learner, Scorer
from stages.trainer.order import PictureOrder
from stages.trainer.state import StateFolder, TrainingState

GRID = 64
SAMPLES = "samples"
RAW = "raw"  # grids of the weights as they are trained, in the folder of those of their average
BEST = "best/"  # of the best snapshot's tensors in a state
CHECKED_STEPS = 64  # losses are looked at this often: each look waits for the device
AGREED_STEPS = 8  # several processes ask each other this often whether to stop: each question waits, too


@dataclass
class Progress:
    """What a training has done so far; kept in its states."""

    seen: int = 0  # pictures
    curve: list[dict[str, Any]] = field(default_factory=list)
    sums: dict[str, float] = field(default_factory=dict)  # of statistics
    counts: dict[str, int] = field(default_factory=dict)  # of steps that had each of them
    steps: int = 0  # in this tick
    pace: list[dict[str, float]] = field(default_factory=list)  # at ticks: seconds per kimg, memory
    seconds: float = 0.0  # of training, over all sessions
    cpu_seconds: float = 0.0
    machines: list[dict[str, Any]] = field(default_factory=list)  # device and processes, with the kimg of their start
    best: dict[str, Any] | None = None  # kimg, average and score of the best snapshot, where scores are taken


class TrainingLoop:
    """Trains a learner up to a budget, saving states into a folder."""

    def __init__(self, learner: Learner, folder: Path, scorer: Scorer | None = None) -> None:
        self.learner, self.settings, self.folder, self.scorer = learner, learner.settings, folder, scorer
        self.order = PictureOrder(learner.count, self.settings.seed)
        self.states = StateFolder(folder)
        self.world = learner.world
        self.speed = 0.0  # training pictures per second, as measured before the start
        self.disk = 0  # bytes that the states take
        self.session_steps = 0  # since the start or the resumption
        self.progress = Progress()
        self.pending: list[tuple[str, Tensor]] = []  # statistics that are still on the device
        self.best: dict[str, Tensor] = {}  # the average of the best score
        self.real_diversity = diversity(learner.real_pictures(GRID))

    @property
    def total(self) -> int:
        """Pictures of the whole budget, in whole batches."""
        seen, budget = 0, self.settings.budget_kimg * 1000
        while seen < budget and (batch := self.settings.batch_at(seen)) < self.settings.batch:
            seen += batch  # while the batch ramps up
        return seen + math.ceil(max(budget - seen, 0) / self.settings.batch) * self.settings.batch

    def resume(self) -> bool:
        """Go on from the newest undamaged state within the budget, if there is one.

        Raises:
            ResourceError: it was trained on a GPU, and none is visible now.
        """
        state = self.states.load_newest(self.total)
        if state is None:
            self._note_machine()
            return False
        self.progress = Progress(seen=state.seen, **state.values["progress"])
        if self.progress.sums.keys() != self.progress.counts.keys():  # an adopted state of code that did not count
            self.progress.sums, self.progress.counts = {}, {}
        self._note_machine()
        self.best = {key.removeprefix(BEST): tensor for key, tensor in state.tensors.items() if key.startswith(BEST)}
        self.learner.restore(state)
        return True

    def _note_machine(self) -> None:
        """Keep what trains from here on, and refuse to fall from a GPU to the CPU unless that is asked for."""
        here = {"device": self.learner.device.type, "processes": self.world.size}
        before = {key: self.progress.machines[-1][key] for key in here} if self.progress.machines else here
        if here["device"] == "cpu" != before["device"] and os.environ.get("CUDA_VISIBLE_DEVICES") != "":
            raise ResourceError(
                f"the state at {self.progress.seen / 1000:.1f} kimg was trained on {before['device']}, and none is "
                "visible now; see `nvidia-smi`, or set CUDA_VISIBLE_DEVICES= to go on on the CPU"
            )
        if here != before:
            print(f"going on with {here} after {before}: not to the byte what it would have become there", flush=True)
        if here != before or not self.progress.machines:
            self.progress.machines.append({"kimg": self.progress.seen / 1000, **here})

    def run(self, name: str) -> None:
        """Train up to the budget.

        Raises:
            Interrupted: SIGTERM or SIGINT arrived; the state is saved.
            GateError: a loss is not a number; the last good state is kept.
        """
        with STOP.defer(), progress_bar(f"training {name}", self.total, initial=self.progress.seen) as bar:
            total = self.total
            while self.progress.seen < total:
                batch = self._timed_step()
                bar.update(batch)
                self._after_step(batch, total)
                if self._should_stop():
                    self.save()
                    self.world.wait()  # a process that ends ends the others soon: none may before the state is written
                    raise Interrupted(
                        f"stopped at {self.progress.seen / 1000:.1f} kimg, state saved; run again to go on"
                    )
            self._check_losses()
            self.save()
            self._score_the_end()

    def _should_stop(self) -> bool:
        """Tell whether this or another process of the training was asked to stop; all find it at the same step."""
        self.session_steps += 1
        if self.world.size > 1 and self.session_steps % AGREED_STEPS:
            return False
        return self.world.any(STOP.requested)

    def _timed_step(self) -> int:
        """Take a step; returns its pictures."""
        wall, cpu = time.perf_counter(), time.process_time()
        progress = self.progress
        batch = self.settings.batch_at(progress.seen)
        statistics = self.learner.step(self.order.positions(progress.seen, batch), progress.seen)
        self.pending += [(key, statistics[key]) for key in self.learner.statistics if key in statistics]
        progress.seen += batch
        progress.steps += 1
        progress.seconds += time.perf_counter() - wall
        progress.cpu_seconds += time.process_time() - cpu
        return batch

    def _after_step(self, batch: int, total: int) -> None:
        progress = self.progress
        tick = crossed(progress.seen, batch, self.settings.tick_kimg)
        checkpoint = crossed(progress.seen, batch, self.settings.checkpoint_kimg)
        if tick or checkpoint or progress.steps % CHECKED_STEPS == 0:
            self._check_losses()
        if tick:
            self._finish_tick(tick * self.settings.tick_kimg)
        if checkpoint and progress.seen < total:
            self.save()

    def _check_losses(self) -> None:
        """Move statistics off the device and stop where a loss is not finite."""
        fresh = dict.fromkeys(self.learner.statistics, 0.0)
        for key, value in self.pending:
            fresh[key] += float(value)
            self.progress.sums[key] = self.progress.sums.get(key, 0.0) + float(value)
            self.progress.counts[key] = self.progress.counts.get(key, 0) + 1
        self.pending.clear()
        problem = unhealthy_losses(fresh)
        if problem:
            self._diverged(problem)

    def _diverged(self, problem: str) -> NoReturn:
        counts = self.states.seen_counts()
        kept = f"the state at {counts[-1] / 1000:.1f} kimg is kept" if counts else "no state was saved yet"
        raise GateError(
            f"training diverged near {self.progress.seen / 1000:.1f} kimg: {problem}; {kept}. {self.learner.advice}"
        )

    def _finish_tick(self, kimg: float) -> None:
        progress = self.progress
        grid = self.learner.draw_grid(GRID)
        means = {key: value / progress.counts[key] for key, value in progress.sums.items()}
        row = self.learner.finish_row(means, progress.seen)
        row["diversity"] = diversity(grid) / max(self.real_diversity, 1e-9)
        if self._is_scored(kimg):
            row |= self._score(kimg)
        progress.curve.append({"kimg": round(kimg, 3), **{key: round(value, 6) for key, value in row.items()}})
        progress.sums, progress.counts, progress.steps = {}, {}, 0
        progress.pace.append(measure_pace(progress, kimg, self.learner.device))
        raw = self.learner.draw_raw_grid(GRID)
        if self.world.leads:
            save_grid(grid, self.folder / SAMPLES / grid_name(kimg))
        if self.world.leads and raw is not None:
            save_grid(raw, self.folder / SAMPLES / RAW / grid_name(kimg))
        for alert in find_alerts(progress.curve):
            if alert["kimg"] == progress.curve[-1]["kimg"]:
                print(f"\nwarning at {kimg:g} kimg: {alert['alert']}: {alert['advice']}", flush=True)

    def _is_scored(self, kimg: float) -> bool:
        """Tell whether a score belongs to this tick: the first one after every whole interval."""
        interval, tick = self.settings.score_kimg, self.settings.tick_kimg
        return bool(self.scorer) and crossed(round(kimg * 1000), round(tick * 1000), interval) > 0

    def _score(self, kimg: float) -> dict[str, float]:
        """Score each average and keep the best snapshot; returns the scores by name."""
        assert self.scorer is not None
        scores = {}
        for average in self.learner.averages:
            score = self.scorer.score(self.learner, average)
            scores[f"{self.scorer.name}{average}"] = score
            if self.progress.best is None or score < self.progress.best["score"]:
                self.progress.best = {"kimg": round(kimg, 3), "average": average, "score": score}
                self.best = self.learner.average_tensors(average)
        return scores

    def _score_the_end(self) -> None:
        """Let the last weights compete, too; not kept in a state, since a larger budget has no such score."""
        budget = self.settings.budget_kimg
        scored = self.progress.curve and self.progress.curve[-1]["kimg"] == budget and self._is_scored(budget)
        if self.scorer and not scored:
            self._score(budget)

    def save(self) -> None:
        """Write a resumable state of this moment."""
        self._check_losses()
        values = {key: value for key, value in vars(self.progress).items() if key != "seen"}
        state: TrainingState = self.learner.export_state(self.progress.seen, {"progress": values})
        state.tensors |= {f"{BEST}{key}": tensor for key, tensor in self.best.items()}
        broken = [name for name, tensor in state.tensors.items() if not bool(torch.isfinite(tensor).all())]
        if broken:
            self._diverged(f"{broken[0]} is not finite")
        if self.world.leads:
            self.states.save(state)


def measure_pace(progress: Progress, tick: float, device: torch.device) -> dict[str, float]:
    """Return what training cost since the last tick: seconds per kimg, and the memory at its end in MB.

    Of a GPU what torch had allocated at most; else what the process holds. It differs from run to run and so is not
    in the curve.
    """
    last = progress.pace[-1] if progress.pace else {"seen": 0, "seconds": 0.0}
    on_gpu = device.type == "cuda"
    memory = torch.cuda.max_memory_allocated(device) if on_gpu else psutil.Process().memory_info().rss
    speed = (progress.seconds - last["seconds"]) / (progress.seen - last["seen"]) * 1000
    return {
        "kimg": round(tick, 3),
        "seen": progress.seen,
        "seconds": round(progress.seconds, 3),
        "seconds_per_kimg": round(speed, 4),
        "memory_mb": round(memory / 1e6, 1),
    }


def crossed(seen: int, batch: int, interval_kimg: float) -> int:
    """Return how many intervals are complete if the last batch completed one, else 0."""
    interval = interval_kimg * 1000
    complete = int(seen // interval)
    return complete if complete > int((seen - batch) // interval) else 0


def grid_name(kimg: float) -> str:
    """Return the file name of the grid at a number of kimg, in order of names; decimals only where ticks have them."""
    return f"kimg-{round(kimg):06d}.png" if float(kimg).is_integer() else f"kimg-{kimg:010.3f}.png"


def save_grid(pictures: Tensor, path: Path) -> None:
    """Write the grid of the fixed latents, pictures in [-1, 1], shape (N, C, H, W)."""
    path.parent.mkdir(parents=True, exist_ok=True)
    zoom = max(1, 64 // pictures.shape[-1])
    sheet(to_uint8(pictures.permute(0, 2, 3, 1).numpy()), zoom=zoom, gap=2).save(path)
