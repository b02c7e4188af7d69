"""Scores of one generator in each feature network, with intervals, beside floor, baselines and the training split."""

import hashlib
import itertools
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch

from stages.evaluate import picture_sets
from stages.evaluate.conditioning import captions_of, conditioned
from stages.evaluate.inputs import Inputs, Pictures, labels_of
from stages.generators.interface import Generator, TorchGenerator
from stages.generators.loading import load_untrained
from stages.metrics import distances
from stages.metrics.cache import versions
from stages.metrics.distances import Comparison, Features, Options, compare_in_full
from stages.metrics.domain import DomainNetwork, train_or_load, unavailable_reason
from stages.metrics.feature_networks import FeatureNetwork, open_network
from stages.metrics.features import Extracted, FeatureCache, PictureSet, features_of
from stages.metrics.frechet import frechet_distance
from stages.metrics.inception_score import SPLITS
from stages.metrics.inception_weights import InceptionWeights, missing_reason
from stages.metrics.intervals import smallest_difference
from stages.metrics.recipe import Recipe
from stages.metrics.shares import processes
from stages.settings import EvaluateSettings

BASELINES = ("untrained", "colour_histogram")
DOMAIN = "domain"
HELD_BYTES = 1 << 28  # of pictures that are slow to draw, which are then drawn once

AnyNetwork = FeatureNetwork | DomainNetwork


@dataclass(frozen=True)
class Measured:
    """A model's report so far, and what it was computed from: features by network and role, comparisons by network."""

    report: dict[str, Any]
    generated: PictureSet
    features: dict[str, dict[str, Extracted]]
    comparisons: dict[str, Comparison]


def open_networks(
    settings: EvaluateSettings, inputs: Inputs, pictures: Pictures, weights: InceptionWeights | None
) -> tuple[list[AnyNetwork], list[str]]:
    """Return the feature networks of the settings, Inception where its weights are given, and why others are absent.

    Networks whose features are general come first; the classifier of the data's own classes comes last.
    """
    device, networks, absent = processes().device, list[AnyNetwork](), list[str]()
    if "efficientnet_lite0" in settings.features:
        networks.append(open_network("efficientnet_lite0", engine=settings.engine, device=device))
    if weights:
        networks.append(
            open_network("inception", weights=weights, resize=settings.resize, engine=settings.engine, device=device)
        )
    if DOMAIN in settings.features:
        labels = labels_of(pictures.train)
        if reason := unavailable_reason(labels):
            absent.append(f"No `{DOMAIN}` features: {reason}.")
        else:
            pixels = pictures.train.pixels.transpose(0, 3, 1, 2)
            networks.append(train_or_load(pixels, labels, pictures.class_names, inputs.features, settings.seed, device))
    return networks, absent


def score(
    settings: EvaluateSettings,
    inputs: Inputs,
    pictures: Pictures,
    generator: TorchGenerator,
    networks: Sequence[AnyNetwork],
    warnings: list[str],
) -> Measured:
    """Return the scores that scores.json holds, and their material; the same inputs give the same bytes.

    Raises:
        InputError: a set is too small for the settings.
        GateError: the generator draws NaN or infinity.
    """
    dataset = pictures.holdout.content_hash
    warnings = warnings + find_warnings(settings, inputs, pictures, networks) + stale_warnings(generator, dataset)
    sets, notes = gather(settings, inputs, pictures, dataset, generator, networks[0].device)
    warnings += notes
    for warning in warnings:
        print(f"evaluate@{inputs.model}: warning: {warning}", file=sys.stderr, flush=True)
    cache = FeatureCache(inputs.features)
    by_role = {role: features_of(found, networks, cache) for role, found in sets.items()}
    features = {network.label: {role: found[network.label] for role, found in by_role.items()} for network in networks}
    parts: dict[str, dict[str, Any]] = {"scores": {}, "intervals": {}, "smallest_difference": {}, "floor": {}}
    parts |= {"train_reference": {}, "recipes": {}, "baselines": {role: {} for role in BASELINES}}
    comparisons = {}
    for network in networks:
        comparisons[network.label] = add_scores(parts, network, features[network.label], settings, pictures)
        parts["recipes"][network.label] = recipe(network, settings, pictures)
    about = {"warnings": warnings, "identity": {"weights": generator.identity.get("weights", ""), "dataset": dataset}}
    return Measured({"model": inputs.model, **parts, **about}, sets["scores"], features, comparisons)


def gather(
    settings: EvaluateSettings,
    inputs: Inputs,
    pictures: Pictures,
    dataset: str,
    generator: TorchGenerator,
    device: torch.device,
) -> tuple[dict[str, PictureSet], list[str]]:
    """Return the sets by their role: holdout, train, the baselines, and `scores`, the model's own; and what to note.

    Labels of generated pictures are positions in the data's class names, whatever order the model has them in.
    """
    seed, batch = settings.seed, settings.batch
    seeds = picture_sets.seeds(settings)
    train = picture_sets.split_set("train", pictures.train, dataset, "train", batch)
    untrained = load_untrained(inputs.weights, seed)
    untrained.network.to(device)
    unlearned, _, _ = asked_for_the_data(settings, pictures, untrained)
    drawing, labels, notes = asked_for_the_data(settings, pictures, generator)
    drawn = picture_sets.generated_set(inputs.model, drawing, seeds, batch)
    size = settings.count * generator.capabilities.channels * generator.capabilities.resolution**2
    colours = picture_sets.colour_histogram_set(pictures.train, settings.count, seed, batch)
    sets = {
        "holdout": picture_sets.split_set("hold-out", pictures.holdout, dataset, "holdout", batch),
        "train": train,
        "colour_histogram": picture_sets.keep(colours, dataset=dataset, seed=seed),
        "untrained": picture_sets.keep(picture_sets.generated_set("untrained", unlearned, seeds, batch), seed=seed),
        "scores": picture_sets.labelled(
            held(drawn) if generator.capabilities.steps and size <= HELD_BYTES else drawn, labels, pictures.class_names
        ),
    }
    return sets, notes


def asked_for_the_data(
    settings: EvaluateSettings, pictures: Pictures, generator: Generator
) -> tuple[Generator, np.ndarray | None, list[str]]:
    """Return what `conditioned` does for the train split's classes and the captions of the hold-out."""
    train = picture_sets.split_set("train", pictures.train, "", "train", settings.batch)
    captions = captions_of(pictures.holdout.rows)
    return conditioned(generator, picture_sets.seeds(settings), train, settings.seed, captions)


def held(pictures: PictureSet) -> PictureSet:
    """Return the same set, each batch of which is made once and then kept in memory."""
    source, kept = pictures.batches(), list[np.ndarray]()

    def batches() -> Iterator[np.ndarray]:
        for number in itertools.count():
            if number == len(kept):
                if (batch := next(source, None)) is None:
                    return
                kept.append(batch)
            yield kept[number]

    return replace(pictures, batches=batches)


def add_scores(
    parts: dict[str, dict[str, Any]],
    network: AnyNetwork,
    found: dict[str, Extracted],
    settings: EvaluateSettings,
    pictures: Pictures,
) -> Comparison:
    """Add one network's scores, floor, baselines and scores against the train split, under their published names."""
    names = network.names()
    holdout, train = Features(found["holdout"].features, "hold-out"), Features(found["train"].features, "train")
    chosen = picture_sets.floor_positions(len(train), pictures.floor_count(settings), settings.seed)
    floor, drawn = Features(train.values[chosen], "floor"), Features(found["scores"].features, "generated")
    options = metric_options(settings, pictures)
    own = compare_in_full(drawn, holdout, options, _logits(network, found["scores"]))
    parts["scores"] |= {names[kind]: value for kind, value in own.scores.items()}
    parts["intervals"] |= {names[kind]: interval.to_json() for kind, interval in own.intervals.items()}
    parts["smallest_difference"] |= {
        names[kind]: smallest_difference(interval.standard_error) for kind, interval in own.intervals.items()
    }
    if network.label != DOMAIN:  # which has learnt the train pictures: nothing may be judged by how it sees these
        for role, (first, second) in {"floor": (floor, holdout), "train_reference": (drawn, train)}.items():
            other = distances.compare(first, second, options)
            parts[role] |= {names[kind]: value for kind, value in other.items()}
    for role in BASELINES:
        parts["baselines"][role][names["fd"]] = frechet_distance(Features(found[role].features, role), holdout)
    return own


def metric_options(settings: EvaluateSettings, pictures: Pictures) -> Options:
    """Return the numbers of the scores."""
    subset = pictures.kid_subset(settings)
    return Options(subset, settings.kid_subsets, settings.neighbours, settings.seed, settings.resamples)


def _logits(network: AnyNetwork, found: Extracted) -> np.ndarray | None:
    """Return what an Inception Score needs: logits of many pictures, by a network that knows more than this data."""
    return found.logits if network.label != DOMAIN else None


def recipe(network: AnyNetwork, settings: EvaluateSettings, pictures: Pictures) -> dict[str, Any]:
    """Return all that these scores depend on beside the model; only scores of equal `hash` may be compared.

    The reference is named by the hold-out's pixels, so that new train pictures do not make scores incomparable.
    Outside the hash, under `beside`, stand versions, which change rounding only, and the numbers of floor and train.
    """
    return Recipe(
        **network.recipe,
        count=settings.count,
        reference="holdout",
        reference_count=len(pictures.holdout),
        reference_sha256=_sha256_pixels(pictures.holdout.pixels),
        seed=settings.seed,
        kid={"kernel": "(x.y / D + 1)^3", "subset": pictures.kid_subset(settings), "subsets": settings.kid_subsets},
        neighbours=settings.neighbours,
        isc_splits=SPLITS,
        beside={
            "floor_count": pictures.floor_count(settings),
            "train_count": len(pictures.train),
            "versions": versions(),
        },
    ).sealed()


def find_warnings(
    settings: EvaluateSettings, inputs: Inputs, pictures: Pictures, networks: Sequence[AnyNetwork]
) -> list[str]:
    """Return what a reader of the scores must know: no FID, rank-deficient covariances, a floor of fewer pictures."""
    reason = missing_reason(settings.inception, inputs.weights_lock)
    found = [reason] if reason else []
    generated, real = settings.count, len(pictures.holdout)
    for network in networks:
        found += distances.warnings(generated, real, network.dimension, network.distance)
    if (count := pictures.floor_count(settings)) < generated:
        found.append(f"The floor is of {count} pictures, all that the train split has, not of {generated}.")
    if (subset := pictures.kid_subset(settings)) < settings.kid_subset:
        found.append(
            f"KID is of subsets of {subset} pictures, all that the smallest set has, not {settings.kid_subset}."
        )
    return found


def stale_warnings(generator: Generator, dataset: str) -> list[str]:
    """Return a warning where the weights come from other data, whose train split may hold today's hold-out."""
    trained_on = generator.identity.get("dataset")
    if trained_on in (None, dataset):
        return []
    return [f"The model was trained on dataset {trained_on}, not on {dataset}: it may have seen hold-out pictures."]


def _sha256_pixels(pixels: np.ndarray) -> str:
    digest = hashlib.sha256(repr(pixels.shape).encode())
    digest.update(np.ascontiguousarray(pixels).data)
    return digest.hexdigest()
