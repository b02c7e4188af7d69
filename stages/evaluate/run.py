"""Runs evaluate: checks first, then scores, what they cannot see, sheets and a page, written together."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from stages.evaluate.inputs import Inputs, check
from stages.evaluate.table import sampling_table, table
from stages.settings import EvaluateSettings
from stages.storage import read_json, require, whole_folder, write_json

if TYPE_CHECKING:
    import numpy as np

    from stages.evaluate.unseen.examination import Unseen
    from stages.evaluate.unseen.sampling import Sampling


def outputs_of(model: str) -> Path:
    """Return the folder that holds a model's scores.json, metrics.json (in short, for DVC), report.html and sheets."""
    return Path("models") / model / "evaluation"


def floor_distances(report: dict[str, Any]) -> list[tuple[str, float]]:
    """Return the floor's Fréchet distances, which tables of scores show beside the model's."""
    return [(name, value) for name, value in report["floor"].items() if name.startswith(("fd_", "fid"))]


def run(settings: EvaluateSettings, inputs: Inputs, output: Path) -> dict[str, Any]:
    """Score a model and write scores.json, metrics.json, report.html and sheets; returns the scores.

    What differs from run to run, the CPU-seconds of each way to sample, is printed and kept beside the cache.

    Raises:
        InputError: an input is absent or does not fit the settings, or the model needs an ffmpeg that is not there.
        GateError: the generator draws NaN or infinity.
    """
    pictures, weights = check(settings, inputs)
    curve = read_json(require(inputs.curve, f"train {inputs.model}"))
    from stages.evaluate.conditioning import captions_of
    from stages.evaluate.scoring import open_networks, score
    from stages.evaluate.sheets import samples
    from stages.evaluate.unseen.examination import Examination, figures_of
    from stages.evaluate.unseen.sampling import Trials
    from stages.evaluate.unseen.walk import check_walk
    from stages.generators.loading import load_trained

    networks, absent = open_networks(settings, inputs, pictures, weights)
    generator = load_trained(inputs.weights)
    check_walk(generator.capabilities)
    generator.network.to(networks[0].device)
    measured = score(settings, inputs, pictures, generator, networks, absent)
    unseen = Examination(settings, pictures, generator, networks, measured).all(curve)
    sampling = Trials(settings, pictures, generator, networks[0], measured).all()
    report = {**measured.report, **unseen.parts, **({"sampling": sampling.part} if sampling.part else {})}
    report["figures"] = figures_of(unseen.parts, networks[0].label)
    drawn = samples(generator, settings.batch, captions_of(pictures.holdout.rows))
    write(report, unseen, sampling, drawn, curve, output)
    print(table(report), flush=True)
    if sampling.seconds:
        print(sampling_table(sampling.seconds), flush=True)
        write_json(inputs.features.parent / "sampling" / f"{inputs.model}.json", {"rows": sampling.seconds})
    return report


def write(
    report: dict[str, Any],
    unseen: "Unseen",
    sampling: "Sampling",
    drawn: "np.ndarray",
    curve: list[dict],
    output: Path,
) -> None:
    """Write everything whole; equal inputs give equal bytes."""
    from stages.evaluate.page.model_page import model_page
    from stages.evaluate.sheets import content_of, pair_sheet, sample_sheet, strip_sheet

    with whole_folder(output) as folder:
        sample_sheet(drawn).save(folder / "samples.png")
        (folder / "sheets").mkdir()  # empty where the data or the model allows neither
        if unseen.pairs:
            pair_sheet(unseen.pairs).save(folder / "sheets" / "closest.png")
        if len(unseen.strips):
            strip_sheet(unseen.strips).save(folder / "sheets" / "interpolation.png")
        if len(unseen.mixing):
            strip_sheet(unseen.mixing).save(folder / "sheets" / "mixing.png")
        if unseen.walk:
            (folder / "sheets" / "walk.mp4").write_bytes(unseen.walk)
        for name, grid in sampling.sheets.items():
            strip_sheet(grid).save(folder / "sheets" / f"{name}.png")
        write_json(folder / "scores.json", report)
        floors = {f"floor_{name}": value for name, value in floor_distances(report)}
        write_json(folder / "metrics.json", report["scores"] | floors | report["figures"])
        page = model_page(content_of(report, unseen, sampling, drawn, curve))
        (folder / "report.html").write_text(page, encoding="utf-8")
