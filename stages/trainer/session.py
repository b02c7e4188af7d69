"""One training from start or state to results: what the stages `train` and `autoencoder` share."""

import importlib
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from stages.errors import InputError
from stages.process import STOP, WORK
from stages.settings.gans import GANS
from stages.settings.models import TrainingSettings
from stages.storage import check_free, read_json, require
from stages.trainer.adoption import adopt_state, explain_others, prepare_folder
from stages.trainer.augmentation import Policy
from stages.trainer.budget import describe_budget, disk_needed, measure_speed
from stages.trainer.fingerprint import Fingerprint, code_closure, effective_settings
from stages.trainer.job import Job
from stages.trainer.learner import Learner, Scorer
from stages.trainer.loop import TrainingLoop
from stages.trainer.results import write_results
from stages.trainer.state import KEPT
from stages.trainer.world import World, open_accelerator

LEARNERS: dict[str, str] = {
    **dict.fromkeys(GANS, "stages.trainer.adversarial.learner"),
    "diffusion": "stages.trainer.denoising.learner",
    "vae": "stages.trainer.reconstruction.learner",
    "autoencoder": "stages.trainer.reconstruction.learner",
}
SCORING = "stages.trainer.scoring"


def run_session(
    name: str,
    where: str,
    settings: TrainingSettings,
    images: Path,
    data: Path,
    augment: Path,
    training: Path,
    adopt: str | None = None,
) -> TrainingLoop:
    """Train up to the budget, from the newest state of the same fingerprint, and write the results into `training`.

    Raises:
        InputError: data is absent or too small, or there is no state to adopt.
        GateError: a loss is not a number.
        Interrupted: a signal arrived; the state is saved.
    """
    started = time.time()
    if settings.threads:
        torch.set_num_threads(settings.threads)
    world = World(open_accelerator(settings.precision))
    policy = Policy.read(read_json(require(augment, "augment") / "policy.json", "run `python -m stages.augment`"))
    job = Job(name, where, settings, images, data, policy, world)
    open_learner = learner_of(settings.family)
    learner = open_learner(job)
    check_batch(job, learner.count)
    fingerprint = fingerprint_of(job)
    root = WORK / "train" / name
    folder = root / fingerprint.digest
    if world.leads:
        prepare_folder(root, fingerprint)
        if adopt:
            adopt_state(root, fingerprint, adopt, settings.budget_kimg)
    world.wait()
    loop = build_loop(job, learner, open_learner, folder)
    if not resume(name, loop):
        for line in [*learner.origins(), *explain_others(root, fingerprint)]:
            print(f"{name}: {line}", flush=True)
    loop.run(name)
    if world.leads:
        with STOP.defer():  # results and record belong together
            write_results(name, loop, fingerprint, training, started)
    world.close()
    return loop


def learner_of(family: str) -> Callable[[Job], Learner]:
    """Return what opens a fresh learner of a family."""
    opened: Callable[[Job], Learner] = importlib.import_module(LEARNERS[family]).open_learner
    return opened


def check_batch(job: Job, count: int) -> None:
    """Refuse a batch that cannot be trained.

    Raises:
        InputError: there are fewer pictures than a batch, or the batch cannot be cut into equal parts.
    """
    settings, where = job.settings, job.where
    if count < settings.batch:
        raise InputError(
            f"{where}.batch is {settings.batch}, but only {count} training pictures are there; "
            "lower batch or add pictures"
        )
    parts = job.world.size * settings.accumulation
    if settings.batch % parts:
        raise InputError(
            f"{where}.batch is {settings.batch}, which {job.world.size} processes (WORLD_SIZE) with "
            f"{where}.accumulation {settings.accumulation} cannot share equally; expected a multiple of {parts}"
        )


def fingerprint_of(job: Job) -> Fingerprint:
    """Return the fingerprint of a training: settings, data, what it obeys of the policy, and the code it imports."""
    settings = job.settings
    family = importlib.import_module(LEARNERS[settings.family])
    entries = ["stages.trainer.session", LEARNERS[settings.family], *family.code_of(settings.family)]
    entries += [SCORING] if settings.score_kimg else []
    effective = effective_settings(settings.model_dump())
    return Fingerprint(effective, family.data_hash(job), family.obeyed(job.policy), code_closure(entries))


def build_loop(job: Job, learner: Learner, again: Callable[[Job], Learner], folder: Path) -> TrainingLoop:
    """Build the loop; say what the training will cost, measured on throw-away copies of the networks."""
    throwaway = again(job)
    speed = measure_speed(throwaway, round(job.settings.budget_kimg * 1000))  # networks that grow are largest then
    state = 4 * throwaway.state_numbers()
    del throwaway
    check_free(folder, disk_needed(folder, state), "training states and results")
    loop = TrainingLoop(learner, folder, open_scorer(job))
    loop.speed, loop.disk = speed, KEPT * state
    return loop


def open_scorer(job: Job) -> Scorer | None:
    """Return what scores snapshots, where the settings ask for it."""
    if not job.settings.score_kimg:
        return None
    scorer: Any = importlib.import_module(SCORING)  # by name: a training without scores does not depend on its code
    opened: Scorer = scorer.TrainScorer(job)
    return opened


def resume(name: str, loop: TrainingLoop) -> bool:
    """Go on from a state if there is one, and print what is left to do.

    Raises:
        InputError: an adopted state is of another architecture.
        ResourceError: the state was trained on a GPU, and none is visible now.
    """
    try:
        resumed = loop.resume()
    except (RuntimeError, KeyError) as error:
        raise InputError(
            f"the state in {loop.folder} does not fit {name}: {' '.join(str(error).split())[:300]}"
        ) from error
    done = loop.progress.seen / 1000
    if resumed:
        print(f"{name}: going on from {done:.1f} kimg")
    print(describe_budget(name, loop.settings.budget_kimg, done, loop.speed, loop.disk), flush=True)
    return resumed
