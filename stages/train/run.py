"""Trains one selected model, resuming where a state of the same fingerprint is, and writes its weights and record."""

from pathlib import Path

from stages.settings.models import TrainingSettings
from stages.trainer.session import run_session


def run(
    name: str,
    settings: TrainingSettings,
    images: Path,
    augment: Path,
    training: Path,
    adopt: str | None = None,
    data: Path | None = None,
) -> None:
    """Train a model up to its budget and write weights, samples, curve and record into `training`.

    `data` is what it learns from: the pictures themselves (None), or a folder of their latents.

    Raises:
        InputError: data is absent or too small, or there is no state to adopt.
        GateError: a loss is not a number.
        Interrupted: a signal arrived; the state is saved.
    """
    run_session(name, f"models.{name}", settings, images, data or images, augment, training, adopt)
