"""What one training is to do: settings, pictures, policy, processes."""

from dataclasses import dataclass
from pathlib import Path

from stages.settings.models import TrainingSettings
from stages.trainer.augmentation import Policy
from stages.trainer.world import World


@dataclass(frozen=True)
class Job:
    """One training; `data` is data/images or a folder of latents, `where` is how params.yaml calls the settings."""

    name: str
    where: str
    settings: TrainingSettings
    images: Path
    data: Path
    policy: Policy
    world: World
