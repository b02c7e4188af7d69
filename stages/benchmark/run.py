"""Times a model's ONNX file beside eager torch, and writes figures that say where and how they were taken."""

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from stages.benchmark.contestants import Contestant, Policy, line_up, open_providers
from stages.benchmark.hardware import describe_environment, describe_hardware, describe_versions
from stages.benchmark.plot import plot
from stages.benchmark.timing import time_batch
from stages.errors import InputError
from stages.generators.interface import Generator, TorchGenerator
from stages.generators.loading import load_trained
from stages.generators.onnx_file import OnnxGenerator
from stages.generators.onnx_metadata import FULL, files_in
from stages.generators.onnx_session import check_single_runtime
from stages.process import STOP
from stages.progress import progress_bar
from stages.settings import BenchmarkSettings
from stages.storage import require, sha256_json, whole_folder, write_json

CONTENTION = 1.5  # p50 over the fastest run, above which a figure says more of the neighbours than of the model


def run(settings: BenchmarkSettings, weights: Path, onnx: Path, folder: Path) -> dict[str, Any]:
    """Write benchmark.json and latency.png for a folder's files, and return the report.

    All are timed beside the weights that they were exported from.

    Raises:
        InputError: an input is absent, they do not belong together, or two onnxruntime wheels overwrite each other.
        ProviderFallbackError: a provider runs only a part of the nodes.
        GateError: none of the providers runs here.
    """
    check_single_runtime()
    files = files_in(onnx)
    require(files[FULL], f"export {onnx.parent.name}")
    trained = load_trained(weights)
    for file in files.values():
        check_same_weights(OnnxGenerator(file), trained, file, weights)
    policy = Policy.of_environment(settings.threads)
    opened = {form: open_providers(file.read_bytes(), settings.providers, policy) for form, file in files.items()}
    with torch_threads(policy.threads):
        environment = describe_environment(policy)
        rows = time_all(line_up(opened, trained), settings)
    hardware = describe_hardware()
    report = {
        "hardware": hardware,
        "hardware_hash": sha256_json(hardware),
        "environment": environment,
        "versions": describe_versions(),
        "identity": trained.identity,
        "skipped": opened[FULL].skipped,
        "load_ms": opened[FULL].load_ms,
        "summary": summarise(rows),
        "variants": {
            form: {"load_ms": opened[form].load_ms, **summarise(rows, form)} for form in files if form != FULL
        },
        "rows": rows,
    }
    write(report, onnx.parent.name, folder)
    return report


def check_same_weights(exported: Generator, trained: TorchGenerator, file: Path, weights: Path) -> None:
    """Refuse to compare a file with weights that it was not exported from."""
    found, expected = exported.identity.get("weights"), trained.identity.get("weights")
    if found != expected:
        raise InputError(
            f"{file} was exported from weights {str(found)[:12]}, but {weights} holds {str(expected)[:12]}; "
            "export it again"
        )


def time_all(contestants: list[Contestant], settings: BenchmarkSettings) -> list[dict[str, Any]]:
    """Time all contestants at all batch sizes."""
    batches = sorted(set(settings.batches))
    rows: list[dict[str, Any]] = []
    with progress_bar("timing", len(contestants) * len(batches) * settings.min_runs, "runs") as bar:
        for batch in batches:
            rows += time_batch(contestants, batch, settings.seconds, settings.min_runs, bar)
        bar.total = bar.n
    return rows


def summarise(rows: list[dict[str, Any]], form: str = FULL) -> dict[str, Any]:
    """Return the best throughput of a form in ONNX Runtime, its batch and provider, and that one's p50 at batch 1."""
    ours = [row for row in rows if row["runtime"] == "onnxruntime" and row["form"] == form]
    best = max(ours, key=lambda row: row["pictures_per_second"])
    single = [row["p50_ms"] for row in ours if row["provider"] == best["provider"] and row["batch"] == 1]
    return {
        "p50_ms_batch1": single[0] if single else None,
        "pictures_per_second_best": best["pictures_per_second"],
        "best_batch": best["batch"],
        "provider": best["provider"],
    }


def write(report: dict[str, Any], model: str, folder: Path) -> None:
    """Write the report and its plot together, and print what a reader wants to know first."""
    hardware = report["hardware"]
    machine = (hardware["gpu"] or {}).get("name") or f"{hardware['cpu']}, {report['environment']['threads']} threads"
    with STOP.defer(), whole_folder(folder) as partial:
        write_json(partial / "benchmark.json", report)
        summary = report["summary"]
        short = {"onnx_p50_ms_batch1": "p50_ms_batch1", "onnx_pictures_per_second": "pictures_per_second_best"}
        write_json(partial / "metrics.json", {name: summary[key] for name, key in short.items()})
        plot(report["rows"], f"{model} on {machine}", partial / "latency.png")
    for entry in report["skipped"]:
        print(f"skipped {entry['provider']}: {entry['reason']}; {entry['fix']}")
    for row in report["rows"]:
        print(as_line(row))


def as_line(row: dict[str, Any]) -> str:
    """Return one row as text, with a remark where something else used the machine."""
    remark = "  (contended)" if (row["contention"] or 1) > CONTENTION else ""
    return (
        f"{row['runtime']:<11} {row['provider']:<24} {row['form']:<5} batch {row['batch']:>4}: "
        f"p50 {row['p50_ms']:>9.3f} ms, {row['pictures_per_second']:>9.1f} pictures/s, {row['runs']} runs{remark}"
    )


@contextlib.contextmanager
def torch_threads(threads: int) -> Iterator[None]:
    """Give torch the same number of threads as ONNX Runtime, and set it back after."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        yield
    finally:
        torch.set_num_threads(before)
