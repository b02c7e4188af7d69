"""Writes the augmentation policy that training obeys, what it means for this data, and how it looks."""

from pathlib import Path
from typing import Any

from stages.augment.preview import preview
from stages.dataset import ImageDataset
from stages.errors import InputError
from stages.settings import AugmentSettings
from stages.storage import whole_folder, write_json
from stages.sufficiency import expectations

COLOR_ALONE = {"hue", "saturation"}  # of ADA: what leaves a grey picture as it is


def run(settings: AugmentSettings, images: Path, augment: Path) -> None:
    """Write data/augment/policy.json and a preview sheet.

    Raises:
        InputError: data/images is absent, or a transform cannot suit the data.
    """
    dataset = ImageDataset(images, "train")
    check_channels(settings, dataset.channels)
    advice = expectations(len(dataset), dataset.resolution, settings)
    with whole_folder(augment) as folder:
        write_json(folder / "policy.json", policy(settings) | {"pictures": len(dataset), "advice": advice})
        preview(settings, dataset).save(folder / "preview.png")
    for line in advice:
        print(f"augment: {line}")


def policy(settings: AugmentSettings) -> dict[str, Any]:
    """Return what training obeys: kind, transforms, p, ADA's pace (adaptive, target, interval, kimg), mirror."""
    written = settings.model_dump(mode="json")
    return written | ({"transforms": [], "p": 0.0} if settings.kind == "none" else {})


def check_channels(settings: AugmentSettings, channels: int) -> None:
    """Refuse transforms that pictures without colour make pointless.

    Raises:
        InputError: DiffAugment's colour, or nothing but ADA's hue and saturation, on pictures of one channel.
    """
    pointless = {"diffaugment": "color" in settings.transforms, "ada": COLOR_ALONE.issuperset(settings.transforms)}
    if channels == 1 and pointless.get(settings.kind):
        name = "color" if settings.kind == "diffaugment" else " and ".join(settings.transforms)
        raise InputError(f"augment.transforms has {name}, but the pictures have one channel; take it out")
