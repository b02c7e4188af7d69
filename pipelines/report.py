"""The table that ends a run: each model's scores with their floors, its ONNX file, its speed, and where to look."""

from typing import Any

from pipelines.comparison import OUT as COMPARISON
from pipelines.results import Results, is_trained, read_results
from stages.settings import Settings

FEATURES, INCEPTION, DOMAIN = "efficientnet_lite0", "inception", "domain"
ABSENT = "-"
MEGABYTES = 1e-6


def print_report(settings: Settings) -> None:
    """Print the table of the selected models that are trained, and what a user may do next."""
    from rich.console import Console

    results = [read_results(name) for name in settings.select if is_trained(name)]
    if not results:
        return
    console = Console()
    if not console.is_terminal:
        console.width = max(console.width, 140)  # in a log file nothing is cut off
    console.print(build_table(results))
    for line in filter(None, (result.warning for result in results)):
        console.print(line, style="bold red", markup=False, highlight=False, soft_wrap=True)
    for line in unlike_recipes(results):
        console.print(f"note: {line}", markup=False, highlight=False, soft_wrap=True)
    for warning in dict.fromkeys(line for result in results for line in result.scores.get("warnings", [])):
        console.print(f"note: {warning}", markup=False, highlight=False, soft_wrap=True)
    console.print(next_steps(results), markup=False, highlight=False, soft_wrap=True)


def build_table(results: list[Results]) -> Any:
    """Return a rich table with a row per model; a score is followed by the floor that real pictures reach."""
    from rich.table import Table

    label = label_of(results)
    with_fid = label != INCEPTION and any("fid" in result.scores.get("scores", {}) for result in results)
    columns = ["model", "kimg", "FD (floor)", "KID (floor)", "precision", "recall"]
    columns += ["FID (floor)"] if with_fid else []
    columns += ["ONNX MB", "p50 ms, batch 1", "pictures/s (batch)", "provider"]
    table = Table(title=f"Models; FD, KID, precision and recall in {label} features, on hold-out pictures")
    for column in columns:
        table.add_column(column, justify="left" if column in ("model", "provider") else "right")
    for result in results:
        table.add_row(*_row(result, label, _hash_of(result, label) == _first_hash(results, label), with_fid))
    return table


def label_of(results: list[Results]) -> str:
    """Return the feature network whose scores the table shows: the first general one that scores are there of."""
    labels = [label for result in results for label in result.scores.get("recipes", {}) if label != DOMAIN]
    return labels[0] if labels else FEATURES


def unlike_recipes(results: list[Results]) -> list[str]:
    """Return a line for each model whose scores were measured unlike the first one's, and are left out of the table."""
    label = label_of(results)
    first = _first_hash(results, label)
    return [
        f"the scores of {result.name} in {label} features are by another recipe than those above: not comparable; "
        f"see {result.folder / 'evaluation' / 'report.html'}, or run `dvc repro`"
        for result in results
        if result.scores and _hash_of(result, label) != first
    ]


def _first_hash(results: list[Results], label: str) -> str | None:
    return next((found for result in results if (found := _hash_of(result, label))), None)


def _hash_of(result: Results, label: str) -> str | None:
    found: str | None = result.scores.get("recipes", {}).get(label, {}).get("hash")
    return found


def _row(result: Results, label: str, comparable: bool, with_fid: bool) -> list[str]:
    summary = result.benchmark.get("summary", {})
    shown = result.scores if comparable else {}
    scores = [
        _with_floor(shown, "fid" if label == INCEPTION else f"fd_{label}", 2),
        _with_floor(shown, f"kid_{label}", 4),
        _number(shown.get("scores", {}).get(f"precision_{label}"), 3),
        _number(shown.get("scores", {}).get(f"recall_{label}"), 3),
        *([_with_floor(shown, "fid", 2)] if with_fid else []),
    ]
    best = _number(summary.get("pictures_per_second_best"), 0)
    return [
        result.name,
        _number(result.record.get("kimg"), 0),
        *scores,
        _number(result.parity.get("bytes"), 1, MEGABYTES),
        _number(summary.get("p50_ms_batch1"), 2),
        f"{best} ({summary['best_batch']})" if "best_batch" in summary else best,
        str(summary.get("provider", ABSENT)).removesuffix("ExecutionProvider"),
    ]


def _with_floor(scores: dict[str, Any], name: str, digits: int) -> str:
    score, floor = (_number(scores.get(part, {}).get(name), digits) for part in ("scores", "floor"))
    return score if score == ABSENT else f"{score} ({floor})"


def _number(value: float | None, digits: int, scale: float = 1.0) -> str:
    return ABSENT if value is None else f"{value * scale:.{digits}f}"


def certified_line(result: Results) -> str:
    """Return which forms of a model's file may be released, and why others may not."""
    files, left_out = result.certificate["files"], result.certificate["left_out"]
    others = {form: "; ".join(entry["failures"]) for form, entry in files.items() if not entry["passed"]} | left_out
    return ", ".join(result.certified) + "".join(f"; not {form}: {why}" for form, why in others.items())


def next_steps(results: list[Results]) -> str:
    """Return the lines that say where pictures, curves and files are and how to draw more."""
    sheets = [result.folder / "evaluation" / "samples.png" for result in results if result.scores]
    lines = [f"pictures   {path}" for path in sheets if path.exists()]
    files = [result.folder / "onnx" / "model.onnx" for result in results if result.parity]
    lines += [f"ONNX       {path}" for path in files if path.exists()]
    lines += [f"certified  {result.name}: {certified_line(result)}" for result in results if result.certificate]
    reports = [result.folder / "evaluation" / "report.html" for result in results if result.scores]
    lines += [f"report     {path}" for path in reports if path.exists()]
    if COMPARISON.exists():
        lines.append(f"compare    {COMPARISON}")
    lines.append("track      make ui, then open the experiment image-foundry")
    lines.append(f"draw       python -m stages.generators --model {results[0].name} --seed 0 --count 16 --out grid.png")
    return "\n".join(lines)
