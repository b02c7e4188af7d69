"""Runs autoencoder: trains or opens it, encodes the pictures, measures the hold-out, and writes all of it."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from stages.autoencoder.encode import encode, write_latents
from stages.autoencoder.pretrained import take_pretrained
from stages.autoencoder.report import measure, show
from stages.dataset import ImageDataset
from stages.errors import InputError
from stages.process import STOP
from stages.progress import progress_bar
from stages.ranks import rank
from stages.settings.autoencoders import AutoencoderSettings
from stages.storage import read_json, require, write_bytes, write_json
from stages.trainer.session import run_session

if TYPE_CHECKING:
    from diffusers.models import AutoencoderKL

SHEET_PICTURES = 12


def run(
    name: str,
    settings: AutoencoderSettings,
    images: Path,
    augment: Path,
    place: Path,
    latents: Path,
    adopt: str | None = None,
) -> None:
    """Write the autoencoder, its figures and its sheet into `place`, and the latents of all pictures into `latents`.

    Raises:
        InputError: data is absent, or the pretrained weights are absent or do not fit the settings.
        GateError: a loss is not a number.
        Interrupted: a signal arrived; the state is saved.
    """
    training = place / "training"
    if not len(ImageDataset(images, "holdout")):
        raise InputError("no picture is held out (normalize.holdout): nothing tells how well it works")
    if not settings.pretrained:
        run_session(f"autoencoder-{name}", f"autoencoders.{name}", settings, images, images, augment, training, adopt)
    if rank():  # several processes train, one of them takes pretrained weights, encodes and measures
        return
    if settings.pretrained:
        take_pretrained(f"autoencoders.{name}", settings, ImageDataset(images), training)
    finish(name, settings, images, augment, place, latents)


def finish(
    name: str, settings: AutoencoderSettings, images: Path, augment: Path, place: Path, latents: Path
) -> dict[str, Any]:
    """Encode with the trained weights and measure; returns the figures."""
    if settings.threads:
        torch.set_num_threads(settings.threads)
    autoencoder = open_weights(place / "training")
    dataset, mirror = ImageDataset(images), bool(read_json(require(augment, "augment") / "policy.json")["mirror"])
    with progress_bar(f"encoding {name}", total=len(dataset) * (2 if mirror else 1)) as bar:
        encoded = {kind: encode(autoencoder, dataset, kind == "mirrored", bar) for kind in kinds(mirror)}
    figures, sheet = measure(autoencoder, ImageDataset(images, "holdout"), settings.factor, SHEET_PICTURES)
    record = read_json(place / "training" / "record.json")
    about = figures | ({"kimg": record["kimg"]} if "kimg" in record else {})  # no times: equal latents, equal bytes
    with STOP.defer():
        figures |= write_latents(latents, autoencoder, dataset, encoded, about)
        write_json(place / "metrics.json", figures)
        write_bytes(place / "sheet.png", sheet)
    print(show(name, figures))
    return figures


def kinds(mirror: bool) -> tuple[str, ...]:
    """Return which latents are written."""
    return ("posteriors", "mirrored") if mirror else ("posteriors",)


def open_weights(training: Path) -> "AutoencoderKL":
    """Return the autoencoder that the training wrote, on the device that there is."""
    from diffusers.models import AutoencoderKL

    device = "cuda" if torch.cuda.is_available() else "cpu"
    opened = AutoencoderKL.from_pretrained(training / "weights" / "vae", local_files_only=True)
    moved: AutoencoderKL = opened.to(device).eval().requires_grad_(False)
    return moved
