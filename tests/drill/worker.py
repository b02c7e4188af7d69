"""A tiny training in a forked process, with or without crashes, and what it left."""

import contextlib
import json
import os
import traceback
from dataclasses import dataclass
from pathlib import Path

from stages.settings.gans import DcganSettings
from stages.settings.models import load_preset
from stages.storage import sha256_file, sha256_tree, write_json
from tests.drill.injection import CRASHED, Points
from tests.stages.datasets import lay_out, normalize, png

NAME = "drilled"
TRAINING = Path("models") / NAME / "training"
PICTURES, BATCH = 40, 8
TINY = {"latent": 8, "width": 4, "discriminator_width": 4, "batch": BATCH, "threads": 1, "r1_gamma": 1.0}
# ticks, checkpoints and ADA's intervals end at different steps; the budget ends none of them
PACE = {"budget_kimg": 0.160, "tick_kimg": 0.048, "checkpoint_kimg": 0.040, "ema_half_life_kimg": 0.03}
POLICY = {"kind": "ada", "transforms": ["xflip", "brightness", "rotate"], "p": 0.2, "adaptive": True, "target": 0.6}
POLICY |= {"interval": 3, "kimg": 1, "mirror": True}


@dataclass(frozen=True)
class Ending:
    """How a worker ended: exit code, names of its points, the state it began from, the newest state it made sure of."""

    code: int
    names: list[str]
    begun: int | None  # it crashed before it began
    saved: int


def settings() -> DcganSettings:
    """Return the settings of the drilled training."""
    return DcganSettings.model_validate(load_preset("dcgan") | TINY | PACE)


def prepare(folder: Path) -> Path:
    """Write a data set and an adapting policy into a folder and return it."""
    lay_out(folder, {f"{number:03d}.png": png(number) for number in range(PICTURES)})
    normalize(folder, resolution=8, shards=2, duplicate_bits=None)
    write_json(folder / "data/augment/policy.json", POLICY)
    return folder


def train(data: Path, folder: Path, fatal: int = 0, torn: bool = False, seed: int = 0) -> Ending:
    """Train in a forked process of its own in `folder`, on the data of another folder, up to the fatal point."""
    folder.mkdir(exist_ok=True)
    report = folder.with_suffix(".report")
    report.unlink(missing_ok=True)
    child = os.fork()
    if child == 0:
        _work(data, folder, report, Points(folder, fatal, torn, seed))
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    lines = report.read_text().splitlines() if report.exists() else []
    told = [json.loads(line) for line in lines]
    begun = [entry["begun"] for entry in told if "begun" in entry]
    saved = [entry["saved"] for entry in told if "saved" in entry]
    names = [name for entry in told for name in entry.get("names", [])]
    return Ending(code, names, begun[-1] if begun else None, saved[-1] if saved else 0)


def _work(data: Path, folder: Path, report: Path, points: Points) -> None:
    """Do the child's work; never returns."""
    code = 1
    try:
        descriptor = os.open(report, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.chdir(folder)
        with (folder.with_suffix(".log")).open("w") as log:
            os.dup2(log.fileno(), 1)
            os.dup2(log.fileno(), 2)
        _inject(points, descriptor)
        from stages.train.run import run

        run(NAME, settings(), data / "data/images", data / "data/augment", TRAINING)
        _tell(descriptor, names=points.names)
        code = 0
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(code)


def _tell(descriptor: int, **what: object) -> None:
    os.write(descriptor, (json.dumps(what) + "\n").encode())


def _inject(points: Points, descriptor: int) -> None:
    """Make points of all that a training does, and report what it began from and what it has made sure of."""
    from stages.trainer import loop, state
    from stages.trainer.adversarial import adversaries, learner

    resume, save = loop.TrainingLoop.resume, state.StateFolder.save

    def resumed(self: loop.TrainingLoop) -> bool:
        found = resume(self)
        _tell(descriptor, begun=self.progress.seen)
        return found

    def saved(self: state.StateFolder, state: state.TrainingState) -> None:
        save(self, state)
        _tell(descriptor, saved=state.seen)

    setattr(loop.TrainingLoop, "resume", resumed)  # noqa: B010 - a method in the place of a method
    setattr(state.StateFolder, "save", saved)  # noqa: B010
    for name in ("_discriminator_step", "_generator_step", "_agree", "export_state"):
        points.before(adversaries.Adversaries, name)
    for module in (state, learner):
        points.around_file(module, "save_file", lambda _tensors, path: Path(path))
    for name in ("_finish_tick", "save", "_check_losses"):
        points.before(loop.TrainingLoop, name)
    points.before(adversaries, "update_average")
    points.watch_files()


def fingerprint(folder: Path) -> dict[str, str]:
    """Return the hashes of what two equal trainings share: weights, samples, curve."""
    training = folder / TRAINING
    trees = {name: sha256_tree(training / name) for name in ("weights", "samples")}
    return trees | {"curve": sha256_file(training / "curve.json")}


def differences(folder: Path, undisturbed: dict[str, str]) -> list[str]:
    """Name what a folder's training has other than the undisturbed one."""
    with contextlib.suppress(OSError):
        return [name for name, digest in fingerprint(folder).items() if digest != undisturbed[name]]
    return ["results are missing"]


__all__ = ["CRASHED", "Ending", "differences", "fingerprint", "prepare", "train"]
