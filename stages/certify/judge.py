"""Scores any generator's pictures against the hold-out: the same latents, classes or captions, and features for all."""

from collections.abc import Iterator
from typing import Any

import numpy as np

from stages.dataset import to_uint8
from stages.evaluate import picture_sets
from stages.evaluate.conditioning import captions_of, conditioned
from stages.evaluate.inputs import Inputs, Pictures
from stages.generators.interface import Generator
from stages.metrics.distances import Features, Options, compare_in_full
from stages.metrics.feature_networks import open_network
from stages.metrics.features import FeatureCache, PictureSet, features_of
from stages.metrics.shares import processes
from stages.settings import CertifySettings, EvaluateSettings

NETWORK = "efficientnet_lite0"
KINDS = ("fd", "precision", "recall", "density", "coverage")


class Judge:
    """The hold-out in one network's features, and what is asked of every generator; `seeds` are all of its latents."""

    def __init__(
        self, settings: CertifySettings, evaluate: EvaluateSettings, inputs: Inputs, pictures: Pictures
    ) -> None:
        content = pictures.holdout.content_hash
        self.batch, self.seed, self.captions = evaluate.batch, evaluate.seed, captions_of(pictures.holdout.rows)
        first = evaluate.seed * picture_sets.SEEDS_PER_SEED
        self.seeds = range(first, first + settings.count)
        self.train = picture_sets.split_set("train", pictures.train, content, "train", evaluate.batch)
        subset = min(pictures.kid_subset(evaluate), settings.count)
        self.options = Options(
            subset, evaluate.kid_subsets, evaluate.neighbours, evaluate.seed, resamples=evaluate.resamples
        )
        self.network = open_network(NETWORK, engine=evaluate.engine, device=processes().device)
        self.cache = FeatureCache(inputs.features)
        holdout = picture_sets.split_set("hold-out", pictures.holdout, content, "holdout", evaluate.batch)
        self.real = self._features(holdout)

    def asked(self, generator: Generator) -> Generator:
        """Return a generator that draws classes or captions as frequent as in the data."""
        return conditioned(generator, self.seeds, self.train, self.seed, self.captions)[0]

    def scores(self, name: str, drawn: np.ndarray) -> dict[str, Any]:
        """Return the scores of drawn pictures, float32 (N, C, H, W) in [-1, 1], with their 95 % intervals."""
        compared = compare_in_full(self._features(self._as_set(name, drawn)), self.real, self.options)
        intervals = {kind: compared.intervals[kind].to_json() for kind in KINDS if kind in compared.intervals}
        return {**{kind: float(compared.scores[kind]) for kind in KINDS}, "intervals": intervals}

    def _features(self, pictures: PictureSet) -> Features:
        found = features_of(pictures, [self.network], self.cache)
        return Features(found[self.network.label].features, pictures.name)

    def _as_set(self, name: str, drawn: np.ndarray) -> PictureSet:
        def batches() -> Iterator[np.ndarray]:
            for start in range(0, len(drawn), self.batch):
                yield to_uint8(drawn[start : start + self.batch])

        return PictureSet(name, len(drawn), batches)
