"""Exports a generator, proves that the file draws what torch draws, and writes it with the proof beside it."""

from pathlib import Path
from typing import Any

from stages.export.components import FILE, build_components
from stages.export.graph import trace
from stages.export.lint import check, mark_as_image, strip
from stages.export.packing import pack, sign
from stages.export.parity import measure
from stages.export.variants import build_variants
from stages.generators.interface import TorchGenerator
from stages.generators.loading import load_trained
from stages.generators.onnx_metadata import describe, file_name
from stages.process import STOP
from stages.progress import progress_bar
from stages.settings import ExportSettings
from stages.storage import whole_folder, write_bytes, write_json


def run(settings: ExportSettings, weights: Path, folder: Path) -> dict[str, Any]:
    """Write model.onnx, its variants, the generator's parts and parity.json; returns what parity.json holds.

    Raises:
        InputError: the weights are absent or of an unknown family.
        GateError: torch cannot export the network, the graph is not as asked, or its pictures differ from torch's.
    """
    with progress_bar("exporting", total=5, unit="steps") as bar:
        generator = load_trained(weights)
        bar.update()
        data, described = build(generator, settings.opset)
        bar.update()
        tolerance = settings.sampled_tolerance if generator.capabilities.steps else settings.tolerance
        differences = measure(generator, data, tolerance)
        bar.update()
        parts = build_components(generator, settings.opset, settings.tolerance)
        bar.update()
        variants = build_variants(generator, data, settings.opset, settings.variants)
        bar.update()
    identity = {"weights": generator.identity.get("weights", "")}
    report = {"identity": identity, "max_abs_difference": differences, "tolerance": tolerance, **described}
    report["variants"] = {name: variant.report for name, variant in variants.items()}
    if parts:
        report["components"] = {name: part.report for name, part in parts.items()}
    with STOP.defer(), whole_folder(folder) as partial:
        write_bytes(partial / FILE, data)
        for name, variant in variants.items():
            if variant.data is not None:
                write_bytes(partial / file_name(name), variant.data)
        for name, part in parts.items():
            write_bytes(partial / name / FILE, part.data)
        generator.write_layout(partial)
        write_json(partial / "parity.json", report)
    worst = max(differences.values())
    print(f"{folder / FILE}: {len(data):,} bytes, largest difference to torch {worst:.1e}")
    for name, variant in variants.items():
        told = f"{variant.report['bytes']:,} bytes" if variant.data is not None else variant.report["left_out"]
        print(f"{folder / file_name(name)}: {told}")
    return report


def build(generator: TorchGenerator, opset: int) -> tuple[bytes, dict[str, Any]]:
    """Return the file's bytes, which depend on content alone, and what they hold.

    Raises:
        GateError: torch cannot export the network, or the graph is not as asked.
    """
    import onnx

    model = trace(generator, opset)
    strip(model)
    mark_as_image(model.graph.output[0])
    sign(model)
    onnx.helper.set_model_props(model, describe(generator.capabilities, generator.identity, generator.metadata()))
    check(model, generator.capabilities, opset)
    return pack(model)
