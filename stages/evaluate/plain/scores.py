"""The scores of two opened sources in the features of one network: what `plain.measure` returns."""

import sys
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from stages import ranks
from stages.errors import InputError
from stages.evaluate.conditioning import labels_by
from stages.evaluate.plain.feature_choice import Choice
from stages.evaluate.plain.measure import Options, kid_subset
from stages.evaluate.plain.sources import Source
from stages.metrics import distances, shares
from stages.metrics.classes import class_distances, class_shares
from stages.metrics.distances import Comparison, Features
from stages.metrics.feature_networks import FeatureNetwork, open_network
from stages.metrics.features import Extracted, FeatureCache, features_of
from stages.metrics.inception_score import SPLITS
from stages.metrics.intervals import smallest_difference
from stages.metrics.recipe import Recipe
from stages.packages import cache_folder

if TYPE_CHECKING:
    from stages.metrics.features import PictureSet


FEWEST_FLOOR = 10  # real pictures on either side, below which a floor says nothing


@dataclass(frozen=True)
class Pair:
    """What a network makes of both sources."""

    real: Extracted
    generated: Extracted


def score(options: Options, choice: Choice, real: Source, generated: Source, warnings: list[str]) -> dict[str, Any]:
    """Return origins, scores, intervals, recipe, scores by class and all warnings, as plain JSON values.

    Raises:
        InputError: the weights do not fit, or classes are asked for that the sources do not have.
        GateError: a generator draws NaN or infinity.
    """
    if options.per_class:
        check_classes(real.pictures, generated.pictures)
    network = open_chosen(options, choice)
    counts = generated.pictures.count, real.pictures.count
    warnings = warnings + distances.warnings(*counts, network.dimension, network.distance)
    if few := counts[0] < SPLITS:
        warnings.append(f"no Inception Score: {counts[0]} generated pictures are fewer than its {SPLITS} splits")
    for warning in dict.fromkeys(warnings):
        tell(warning)
    pair = extract(network, real, generated)
    drawn = Features(pair.generated.features, generated.pictures.name)
    reals = Features(pair.real.features, real.pictures.name)
    found = distances.compare_in_full(
        drawn, reals, metric_options(options, real, generated), None if few else pair.generated.logits
    )
    report: dict[str, Any] = {"real": about(real), "generated": about(generated), **named(found, network)}
    report |= floor(reals, network, metric_options(options, real, generated), counts[0])
    report["recipes"] = {network.label: recipe(options, network, real, generated).sealed()}
    if options.per_class:
        report["per_class"] = per_class(found, (drawn, generated.pictures), (reals, real.pictures))
    return report | {"warnings": list(dict.fromkeys(warnings))}


def open_chosen(options: Options, choice: Choice) -> FeatureNetwork:
    """Open the network on accelerate's device."""
    given = {"resize": options.resize} if options.resize else {}
    device = shares.processes().device
    return open_network(choice.features, weights=choice.weights, engine=options.engine, device=device, **given)


def extract(network: FeatureNetwork, real: Source, generated: Source) -> Pair:
    """Return both sets' features; the reference's are kept in the user's cache, since it is used again."""
    cache = FeatureCache(cache_folder() / "features")
    once = replace(generated.pictures, identity=None)
    found = features_of(real.pictures, [network], cache), features_of(once, [network], cache)
    return Pair(*(extracted[network.label] for extracted in found))


def metric_options(options: Options, real: Source, generated: Source) -> distances.Options:
    """Return the numbers of the scores."""
    subset = kid_subset(options, real, generated)
    return distances.Options(subset, options.kid_subsets, options.neighbours, options.seed, options.bootstrap)


def named(found: Comparison, network: FeatureNetwork) -> dict[str, Any]:
    """Return scores, intervals and the smallest difference that counts, by their published names."""
    names = network.names()
    intervals = {names[kind]: interval.to_json() for kind, interval in found.intervals.items()}
    smallest = {name: smallest_difference(one["standard_error"]) for name, one in intervals.items()}
    scores = {names[kind]: value for kind, value in found.scores.items()}
    return {"scores": scores, "intervals": intervals, "smallest_difference": smallest}


def floor(real: Features, network: FeatureNetwork, options: distances.Options, count: int) -> dict[str, Any]:
    """Return what real pictures score: `count` of them, or half of all, against the others; by published names.

    `floor_counts` are both numbers. Without enough pictures for KID's subsets or the neighbours there is none.
    """
    count = min(count, len(real) // 2)
    smallest = min(count, len(real) - count)
    if smallest <= max(options.neighbours, FEWEST_FLOOR):
        return {"floor": {}, "floor_counts": []}
    order = np.random.Generator(np.random.Philox(key=options.seed)).permutation(len(real))
    chosen, others = np.sort(order[:count]), np.sort(order[count:])
    fitting = replace(options, kid_subset=min(options.kid_subset, smallest))
    some, rest = Features(real.values[chosen], "floor"), Features(real.values[others], "the other real pictures")
    names = network.names()
    found = {names[kind]: value for kind, value in distances.compare(some, rest, fitting).items()}
    return {"floor": found, "floor_counts": [len(chosen), len(others)]}


def about(source: Source) -> dict[str, Any]:
    """Return where pictures come from, for the record."""
    sizes = [list(size) for size in source.sizes[:3]]
    return {"name": source.pictures.name, "count": source.pictures.count, "sizes": sizes, **source.origin}


def recipe(options: Options, network: FeatureNetwork, real: Source, generated: Source) -> Recipe:
    """Return all that the scores depend on beside the generated pictures; paths are not among it, content is."""
    reference = {name: value for name, value in real.origin.items() if name != "path"}
    subset = kid_subset(options, real, generated)
    return Recipe(
        **network.recipe,
        count=generated.pictures.count,
        reference=reference,
        reference_count=real.pictures.count,
        seed=options.seed,
        kid={"kernel": "(x.y / D + 1)^3", "subset": subset, "subsets": options.kid_subsets},
        neighbours=options.neighbours,
        isc_splits=SPLITS,
        beside={"torch": torch.__version__.split("+")[0], "numpy": np.__version__, "bootstrap": options.bootstrap},
    )


def check_classes(real: "PictureSet", generated: "PictureSet") -> None:
    """Refuse scores by class of pictures that have none, or none in common.

    Raises:
        InputError: which source it is, and what is expected.
    """
    for pictures in (real, generated):
        if pictures.labels is None:
            raise InputError(
                f"--per-class: {pictures.name} has no classes; expected a folder at the top level for each class, "
                "a labelled split or a conditional model"
            )
    if not set(real.class_names) & set(generated.class_names):
        raise InputError(f"--per-class: {real.name} and {generated.name} share no class; name their folders alike")


def per_class(
    found: Comparison, generated: tuple[Features, "PictureSet"], real: tuple[Features, "PictureSet"]
) -> dict[str, Any]:
    """Return distance, precision, recall and coverage of the reference's classes; labels are matched by name."""
    names = real[1].class_names
    real_labels = _labels(names, real[1])
    labels = _labels(names, generated[1])
    by_kind = {
        "precision": class_shares(found.manifold.inside, labels, names),
        "recall": class_shares(found.manifold.recalled, real_labels, names),
        "coverage": class_shares(found.manifold.covered, real_labels, names),
    }
    plain = {kind: {name: share.to_json() for name, share in by_class.items()} for kind, by_class in by_kind.items()}
    return class_distances(generated[0], labels, real[0], real_labels, names).to_json() | plain


def _labels(names: tuple[str, ...], pictures: "PictureSet") -> np.ndarray:
    labels = pictures.labels if pictures.labels is not None else np.full(pictures.count, -1)
    return labels_by(names, pictures.class_names, labels)


def tell(warning: str) -> None:
    """Print a warning, once for all processes."""
    if not ranks.rank():
        print(f"evaluate: warning: {warning}", file=sys.stderr, flush=True)
