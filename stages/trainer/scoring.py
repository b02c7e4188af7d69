"""Scores while training: the Fréchet distance of what an average draws to the training pictures.

Not to the hold-out: what chooses the best snapshot must not see what the result is judged by.
"""

import math

import numpy as np
import torch
from torch import distributed

from stages.dataset import ImageDataset, to_uint8
from stages.metrics.feature_networks import FeatureNetwork, open_network
from stages.metrics.frechet import frechet_distance
from stages.metrics.gaussians import Features
from stages.trainer.job import Job
from stages.trainer.learner import Learner

NETWORK = "efficientnet_lite0"
BATCH = 64


class TrainScorer:
    """The Fréchet distance in EfficientNet-Lite0's features; every process draws and looks at its share."""

    name = f"fd_{NETWORK}_train"

    def __init__(self, job: Job) -> None:
        self.world, self.images = job.world, ImageDataset(job.images, "train")
        self.count = math.ceil(job.settings.score_count / job.world.size) * job.world.size
        self._network: FeatureNetwork | None = None
        self._real: Features | None = None

    def score(self, learner: Learner, average: str) -> float:
        """Return the distance between what one average draws and all training pictures."""
        share = self.count // self.world.size
        mine = range(self.world.rank * share, (self.world.rank + 1) * share)
        drawn = to_uint8(learner.draw_sample(mine, average))
        found = self._gathered(self._features(drawn))
        return frechet_distance(Features(found, "generated"), self.real)

    @property
    def real(self) -> Features:
        """The training pictures' features."""
        if self._real is None:
            found = self._features(self.images.pixels.transpose(0, 3, 1, 2))
            self._real = Features(found, "training pictures")
        return self._real

    def _features(self, pictures: np.ndarray) -> np.ndarray:
        if self._network is None:
            self._network = open_network(NETWORK, device=self.world.accelerator.device)
        parts = [self._network.classify(pictures[n : n + BATCH])[0] for n in range(0, len(pictures), BATCH)]
        return np.concatenate(parts)

    def _gathered(self, features: np.ndarray) -> np.ndarray:
        """Return the features of all processes, in the order of ranks."""
        if self.world.size == 1:
            return features
        mine = torch.from_numpy(features).to(self.world.accelerator.device)
        all_of_them = [torch.empty_like(mine) for _ in range(self.world.size)]
        distributed.all_gather(all_of_them, mine)
        return np.concatenate([part.cpu().numpy() for part in all_of_them])
