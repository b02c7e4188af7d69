"""Scores of one generator in each feature network, beside the floor of real pictures and two baselines."""

import sys
from typing import Any

import numpy as np
import torch
from accelerate import PartialState
from PIL import Image

from stages.dataset import to_uint8
from stages.evaluate import picture_sets
from stages.evaluate.inputs import Inputs, Pictures
from stages.generators.interface import Generator, TorchGenerator
from stages.generators.loading import load_untrained
from stages.metrics.distances import Features, Options, compare, frechet_distance
from stages.metrics.feature_networks import FeatureNetwork, open_efficientnet_lite0, open_inception
from stages.metrics.features import FeatureCache, PictureSet, features_of
from stages.metrics.inception_weights import InceptionWeights, missing_reason
from stages.settings import EvaluateSettings
from stages.sheet import sheet
from stages.storage import sha256_bytes, sha256_json

BASELINES = ("untrained", "colour_histogram")
SHEET_PICTURES = 64
SHEET_COLUMNS = 8
SHEET_PIXELS = 600


def open_networks(weights: InceptionWeights | None) -> list[FeatureNetwork]:
    """Return the feature networks that are there: EfficientNet-Lite0 always, Inception where weights are given."""
    device = PartialState().device
    networks = [open_efficientnet_lite0(device)]
    return [*networks, open_inception(weights, device)] if weights else networks


def score(
    settings: EvaluateSettings,
    inputs: Inputs,
    pictures: Pictures,
    generator: TorchGenerator,
    networks: list[FeatureNetwork],
) -> dict[str, Any]:
    """Return what scores.json holds; the same inputs give the same bytes."""
    dataset = pictures.holdout.content_hash
    warnings = find_warnings(settings, inputs, pictures, networks)
    warnings += stale_warnings(generator, dataset)
    for warning in warnings:
        print(f"evaluate@{inputs.model}: warning: {warning}", file=sys.stderr, flush=True)
    sets = gather(settings, inputs, pictures, dataset, generator, networks[0].device)
    cache = FeatureCache(inputs.features)
    features = {role: features_of(found, networks, cache) for role, found in sets.items()}
    report: dict[str, Any] = {"model": inputs.model, "scores": {}, "floor": {}}
    report |= {"baselines": {role: {} for role in BASELINES}, "recipes": {}, "warnings": warnings}
    report |= {"identity": {"weights": generator.identity.get("weights", ""), "dataset": dataset}}
    subset = pictures.kid_subset(settings)
    options = Options(subset, settings.kid_subsets, settings.neighbours, settings.seed)
    for network in networks:
        add_scores(report, network, {role: found[network.label] for role, found in features.items()}, options)
        report["recipes"][network.label] = recipe(network, settings, pictures)
    return report


def gather(
    settings: EvaluateSettings,
    inputs: Inputs,
    pictures: Pictures,
    dataset: str,
    generator: TorchGenerator,
    device: torch.device,
) -> dict[str, PictureSet]:
    """Return the sets by their role: holdout, floor, the baselines, and `scores`, the model's own."""
    seed, batch = settings.seed, settings.batch
    seeds = picture_sets.seeds(settings)
    untrained = load_untrained(inputs.weights, seed)
    untrained.network.to(device)
    unlearned = picture_sets.generated_set("untrained", untrained, seeds, batch)
    colours = picture_sets.colour_histogram_set(pictures.train, settings.count, seed, batch)
    return {
        "holdout": picture_sets.holdout_set(pictures.holdout, dataset, batch),
        "floor": picture_sets.floor_set(pictures.train, dataset, pictures.floor_count(settings), seed, batch),
        "colour_histogram": picture_sets.keep(colours, dataset=dataset, seed=seed),
        "untrained": picture_sets.keep(unlearned, seed=seed),
        "scores": picture_sets.generated_set(inputs.model, generator, seeds, batch),
    }


def add_scores(
    report: dict[str, Any], network: FeatureNetwork, features: dict[str, np.ndarray], options: Options
) -> None:
    """Add one network's scores, floor and baselines to the report, under their published names."""
    names, real = network.names(), Features(features["holdout"])
    for role in ("scores", "floor"):
        found = compare(Features(features[role]), real, options)
        report[role] |= {names[kind]: value for kind, value in found.items()}
    for role in BASELINES:
        report["baselines"][role][names["fd"]] = frechet_distance(Features(features[role]), real)


def recipe(network: FeatureNetwork, settings: EvaluateSettings, pictures: Pictures) -> dict[str, Any]:
    """Return all that these scores depend on beside the model; only scores of equal `hash` may be compared.

    The reference is named by the hold-out's pixels, so that new train pictures do not make scores incomparable.
    Outside the hash stand torch's version, which changes rounding only, and the number of pictures of the floor.
    """
    protocol = {
        **network.recipe,
        "count": settings.count,
        "reference": "holdout",
        "reference_count": len(pictures.holdout),
        "reference_sha256": _sha256_pixels(pictures.holdout.pixels),
        "seed": settings.seed,
        "kid": {"kernel": "(x.y / D + 1)^3", "subset": pictures.kid_subset(settings), "subsets": settings.kid_subsets},
        "neighbours": settings.neighbours,
    }
    beside = {"floor_count": pictures.floor_count(settings), "torch": torch.__version__.split("+")[0]}
    return {**protocol, **beside, "hash": sha256_json(protocol)}


def find_warnings(
    settings: EvaluateSettings, inputs: Inputs, pictures: Pictures, networks: list[FeatureNetwork]
) -> list[str]:
    """Return what a reader of the scores must know of their meaning: absent FID, too few pictures."""
    reason = missing_reason(settings.inception, inputs.weights_lock)
    found = [reason] if reason else []
    generated, real = settings.count, len(pictures.holdout)
    found += [
        f"{network.distance}: {generated} generated and {real} hold-out pictures, fewer than its {network.dimension} "
        "features: the covariance is rank-deficient; compare at equal numbers only, and read it beside its floor."
        for network in networks
        if min(generated, real) < network.dimension
    ]
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


def samples(generator: Generator, batch: int) -> Image.Image:
    """Return a sheet of the pictures of seeds 0 to 63, uncurated, about 600 pixels wide."""
    drawn = np.concatenate(list(generator.draw(range(SHEET_PICTURES), batch)))
    pictures = to_uint8(drawn).transpose(0, 2, 3, 1)
    zoom = max(1, round(SHEET_PIXELS / (SHEET_COLUMNS * pictures.shape[2])))
    return sheet(pictures, columns=SHEET_COLUMNS, zoom=zoom)


def _sha256_pixels(pixels: np.ndarray) -> str:
    return sha256_bytes(repr(pixels.shape).encode() + np.ascontiguousarray(pixels).tobytes())
