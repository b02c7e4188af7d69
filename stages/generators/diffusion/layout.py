"""A trained diffusion model as a folder that diffusers opens: DiffusionPipeline.from_pretrained(folder)."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from stages.generators.diffusion.generator import schedule_of
from stages.generators.diffusion.schedules import build_scheduler
from stages.networks.diffusion import FOLDERS, Denoiser

if TYPE_CHECKING:
    from diffusers import AutoencoderKL

    from stages.generators.diffusion.text import TextEncoder


def write_pipeline(
    folder: Path,
    denoiser: Denoiser,
    autoencoder: "AutoencoderKL | None",
    text: "TextEncoder | None",
    config: dict[str, Any],
) -> list[str]:
    """Write denoiser, decoder, text encoder and scheduler; returns the names of the files that hold weights."""
    denoiser.network.save_pretrained(folder / FOLDERS[config["denoiser"]])
    build_scheduler(schedule_of(config), config["sampler"]).save_pretrained(folder / "scheduler")
    if autoencoder is not None:
        autoencoder.save_pretrained(folder / "vae")
    if text is not None:
        from stages.generators.diffusion.text import save_text_encoder

        save_text_encoder(text, folder)
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*.safetensors"))
