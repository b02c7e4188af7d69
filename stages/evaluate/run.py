"""Runs evaluate: checks first, then scores and a sheet of uncurated pictures, written together."""

from pathlib import Path
from typing import Any

from stages.evaluate.inputs import Inputs, check
from stages.evaluate.table import table
from stages.settings import EvaluateSettings
from stages.storage import whole_folder, write_json


def outputs_of(model: str) -> Path:
    """Return the folder that holds a model's scores.json, metrics.json (the same in short, for DVC) and samples.png."""
    return Path("models") / model / "evaluation"


def floor_distances(report: dict[str, Any]) -> list[tuple[str, float]]:
    """Return the floor's Fréchet distances, which tables of scores show beside the model's."""
    return [(name, value) for name, value in report["floor"].items() if name.startswith(("fd_", "fid"))]


def run(settings: EvaluateSettings, inputs: Inputs, output: Path) -> dict[str, Any]:
    """Score a model and write scores.json and samples.png into the output folder; returns the scores.

    Raises:
        InputError: an input is absent or does not fit the settings.
        GateError: the generator draws NaN or infinity.
    """
    pictures, weights = check(settings, inputs)
    from stages.evaluate.scoring import open_networks, samples, score
    from stages.generators.loading import load_trained

    networks = open_networks(weights)
    generator = load_trained(inputs.weights)
    generator.network.to(networks[0].device)
    report = score(settings, inputs, pictures, generator, networks)
    with whole_folder(output) as folder:
        samples(generator, settings.batch).save(folder / "samples.png")
        write_json(folder / "scores.json", report)
        write_json(folder / "metrics.json", report["scores"] | {f"floor_{k}": v for k, v in floor_distances(report)})
    print(table(report), flush=True)
    return report
