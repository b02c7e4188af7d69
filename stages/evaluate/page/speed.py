"""How fast a model draws, from its benchmark."""

from typing import Any

from stages.evaluate.page.content import ModelReport
from stages.evaluate.page.figures import finite, latency, runtime_name
from stages.evaluate.page.numerals import NONE, number
from stages.evaluate.page.section import Section, Table

COLUMNS = ("p50_ms", "p95_ms", "p99_ms", "pictures_per_second", "first_run_ms", "runs", "contention")
HEAD = ("runtime", "batch", "p50 ms", "p95 ms", "p99 ms", "pictures/s", "first run ms", "runs", "contention")
CONTENDED = 1.5


def speed_section(content: ModelReport) -> Section:
    """Return latency and throughput with the machine that they were measured on."""
    title, benchmark = "Speed", content.benchmark
    if not benchmark:
        return Section(title, absent="There is no benchmark of these weights.")
    rows = [row for row in benchmark.get("rows", []) if finite(row.get("p50_ms")) and row["p50_ms"] > 0]
    alt = f"latency and throughput of {content.name} against batch size"
    charts = [latency(rows, alt)] if rows else []
    cells = [(runtime_name(row), str(row["batch"]), *(number(row.get(name)) for name in COLUMNS)) for row in rows]
    notes = [f"{one['provider']} was not timed: {one['reason']}." for one in benchmark.get("skipped", [])]
    versions = ", ".join(f"{name} {version}" for name, version in benchmark.get("versions", {}).items())
    notes += [f"Versions: {versions}."] if versions else []
    if any((row.get("contention") or 0) > CONTENDED for row in rows):
        notes.append("A contention (p50 over the fastest run) far above 1 says that other programs slowed the machine.")
    return Section(title, charts=charts, facts=machine_facts(benchmark), tables=[Table(HEAD, cells)], notes=notes)


def machine_facts(benchmark: dict[str, Any]) -> list[tuple[str, str]]:
    """Return the machine of a benchmark in words."""
    hardware, environment = benchmark.get("hardware", {}), benchmark.get("environment", {})
    gpu = (hardware.get("gpu") or {}).get("name", "none")
    return [
        ("processor", f"{hardware.get('cpu', NONE)}, {hardware.get('cores', NONE)} cores"),
        ("threads", str(environment.get("threads", NONE))),
        ("GPU", gpu),
        ("load average", number(environment.get("load_average"))),
    ]
