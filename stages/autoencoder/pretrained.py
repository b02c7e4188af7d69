"""Takes an autoencoder in diffusers' format that somebody else has trained."""

import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stages.dataset import ImageDataset
from stages.errors import InputError
from stages.settings.autoencoders import AutoencoderSettings
from stages.storage import sha256_file, whole_folder, write_json
from stages.trainer.reconstruction.learner import FILE

if TYPE_CHECKING:
    from diffusers.models import AutoencoderKL


def take_pretrained(where: str, settings: AutoencoderSettings, dataset: ImageDataset, training: Path) -> None:
    """Write the weights as a training would have left them.

    Raises:
        InputError: they are not there, or of another shape than the settings say.
    """
    opened = open_pretrained(where, str(settings.pretrained))
    check_fits(where, settings, opened, dataset.channels)
    with whole_folder(training) as folder:
        (folder / "samples").mkdir()
        opened.save_pretrained(folder / "weights" / "vae")
        weights = sha256_file(folder / "weights" / FILE)
        identity = {"weights": weights, "dataset": dataset.content_hash}
        write_json(folder / "weights" / "config.json", {"family": "autoencoder", "files": [FILE], "identity": identity})
        write_json(folder / "curve.json", [])
        write_json(folder / "record.json", {"pretrained": settings.pretrained, "weights": weights})


def open_pretrained(where: str, source: str) -> "AutoencoderKL":
    """Return an AutoencoderKL of a folder, or of an id that is in the local cache or can be fetched.

    Of safetensors only, which hold no code. A folder may be that of a whole pipeline, with the weights in `vae`.
    """
    from diffusers.models import AutoencoderKL

    folder = Path(source)
    inner = folder / "vae" if (folder / "vae").is_dir() else folder
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of the hub's client about itself; what fails is told below, in one line
            opened: Any = AutoencoderKL.from_pretrained(inner if folder.is_dir() else source, use_safetensors=True)
    except Exception as error:  # whatever the hub's client and the loader raise means that it is not to be had
        line = " ".join(str(error).split())[:200]
        raise InputError(
            f"{where}.pretrained is {source}: no such folder of an AutoencoderKL in diffusers' format, and it could "
            f"not be fetched ({type(error).__name__}: {line})"
        ) from error
    taken: AutoencoderKL = opened.float().eval()
    return taken


def check_fits(where: str, settings: AutoencoderSettings, opened: "AutoencoderKL", channels: int) -> None:
    """Compare an autoencoder with the settings and the pictures.

    Raises:
        InputError: factor, latent channels or picture channels differ.
    """
    config = opened.config
    found = {
        "factor": 2 ** (len(config["block_out_channels"]) - 1),
        "latent_channels": config["latent_channels"],
        "picture channels": config["in_channels"],
    }
    wanted = {"factor": settings.factor, "latent_channels": settings.latent_channels, "picture channels": channels}
    for name, value in wanted.items():
        if found[name] != value:
            raise InputError(f"{where}.pretrained has {name} {found[name]}, expected {value}")
