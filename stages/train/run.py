"""Trains one selected model, resuming where a state of the same fingerprint is, and writes its weights and record."""

import time
from pathlib import Path
from typing import Any

import torch

from stages.dataset import ImageDataset
from stages.errors import InputError
from stages.process import STOP, WORK
from stages.settings import ModelSettings
from stages.storage import check_free, read_json, require
from stages.train.adoption import adopt_state, explain_others, prepare_folder
from stages.train.results import write_results
from stages.trainer.adversarial import Adversaries
from stages.trainer.augmentation import Policy
from stages.trainer.budget import describe_budget, disk_needed, measure_speed, state_bytes
from stages.trainer.fingerprint import Fingerprint, code_closure, effective_settings
from stages.trainer.loop import TrainingLoop
from stages.trainer.state import KEPT
from stages.trainer.world import World, open_accelerator

CONFIG_SETTINGS = ("family", "latent", "width", "discriminator_width", "upsample")


def run(
    name: str, settings: ModelSettings, images: Path, augment: Path, training: Path, adopt: str | None = None
) -> None:
    """Train a model up to its budget and write weights, samples, curve and record into `training`.

    Raises:
        InputError: data is absent or too small, or there is no state to adopt.
        GateError: a loss is not a number.
        Interrupted: a signal arrived; the state is saved.
    """
    started = time.time()
    if settings.threads:
        torch.set_num_threads(settings.threads)
    world = World(open_accelerator(settings.precision))
    dataset = ImageDataset(images, "train")
    check_training(name, settings, dataset, world.size)
    policy = Policy.read(read_json(require(augment, "augment") / "policy.json", "run `python -m stages.augment`"))
    fingerprint = fingerprint_of(settings, dataset, policy)
    root = WORK / "train" / name
    folder = root / fingerprint.digest
    if world.leads:
        prepare_folder(root, fingerprint)
        if adopt:
            adopt_state(root, fingerprint, adopt, settings.budget_kimg)
    world.wait()
    loop, config = build_loop(settings, dataset, policy, folder, world)
    if not resume(name, loop):
        for line in explain_others(root, fingerprint):
            print(f"{name}: {line}", flush=True)
    loop.run(name)
    if world.leads:
        with STOP.defer():  # results and record belong together
            write_results(name, loop, config, fingerprint, training, started)
    world.close()


def check_training(name: str, settings: ModelSettings, dataset: ImageDataset, processes: int) -> None:
    """Refuse what cannot be trained.

    Raises:
        InputError: there are fewer pictures than a batch, or the batch cannot be cut into equal parts.
    """
    if len(dataset) < settings.batch:
        raise InputError(
            f"models.{name}.batch is {settings.batch}, but only {len(dataset)} training pictures are there; "
            "lower batch or add pictures"
        )
    parts = processes * settings.accumulation
    if settings.batch % parts:
        raise InputError(
            f"models.{name}.batch is {settings.batch}, which {processes} processes (WORLD_SIZE) with "
            f"models.{name}.accumulation {settings.accumulation} cannot share equally; expected a multiple of {parts}"
        )


def fingerprint_of(settings: ModelSettings, dataset: ImageDataset, policy: Policy) -> Fingerprint:
    """Return the fingerprint of a training: settings, data, policy, and the code that it imports."""
    entries = ["stages.train.run", f"stages.networks.{settings.family}", f"stages.generators.{settings.family}"]
    effective, code = effective_settings(settings.model_dump()), code_closure(entries)
    return Fingerprint(effective, dataset.content_hash, policy.obeyed(), code)


def build_loop(
    settings: ModelSettings, dataset: ImageDataset, policy: Policy, folder: Path, world: World
) -> tuple[TrainingLoop, dict[str, Any]]:
    """Build networks and loop; say what the training will cost, measured on throw-away copies of the networks."""
    config = {key: getattr(settings, key) for key in CONFIG_SETTINGS}
    config |= {"resolution": dataset.resolution, "channels": dataset.channels, "class_names": []}
    throwaway = Adversaries(config, settings, policy, world)
    speed = measure_speed(throwaway, settings.batch, (dataset.channels, dataset.resolution, dataset.resolution))
    state = state_bytes(throwaway)
    check_free(folder, disk_needed(folder, state), "training states and results")
    holdout = ImageDataset(dataset.folder, "holdout")
    loop = TrainingLoop(Adversaries(config, settings, policy, world), dataset, holdout, settings, folder)
    loop.speed, loop.disk = speed, KEPT * state
    return loop, config


def resume(name: str, loop: TrainingLoop) -> bool:
    """Go on from a state if there is one, and print what is left to do.

    Raises:
        InputError: an adopted state is of another architecture.
        ResourceError: the state was trained on a GPU, and none is visible now.
    """
    try:
        resumed = loop.resume()
    except RuntimeError as error:
        raise InputError(
            f"the state in {loop.folder} does not fit {name}: {' '.join(str(error).split())[:300]}"
        ) from error
    done = loop.progress.seen / 1000
    if resumed:
        print(f"{name}: going on from {done:.1f} kimg")
    print(describe_budget(name, loop.settings.budget_kimg, done, loop.speed, loop.disk), flush=True)
    return resumed
