"""Several models' evaluations side by side as one page that needs no network."""

from typing import Any

from stages.evaluate.page.alike import Alike, differing, group, verdicts
from stages.evaluate.page.content import ModelReport
from stages.evaluate.page.figures import Dot, Panel, dots_and_whiskers, finite, quality_against_latency
from stages.evaluate.page.guide import PARTS, guide_section
from stages.evaluate.page.images import contact_sheet
from stages.evaluate.page.measured import recipe_section
from stages.evaluate.page.numerals import NONE, number, short, words
from stages.evaluate.page.pictures import SAMPLE_PIXELS
from stages.evaluate.page.readings import reading_of
from stages.evaluate.page.render import render
from stages.evaluate.page.score_names import ScoreName, parse
from stages.evaluate.page.scores import FLOOR, cell_of, dot_of, title_of
from stages.evaluate.page.section import Figure, Section, Table

TITLE, SUBTITLE = "Models side by side", "Compared only where they were measured alike."
UNLIKE = "These models were scored by unlike recipes: their numbers stand on different scales and are not compared."
LATENCY = "milliseconds per picture at batch 1 (p50)"
BEST = "Best is the lower left corner; a chart holds models of one recipe and one machine only."
Point = tuple[Dot, float]  # a model's distance, and its latency in milliseconds


def comparison_page(contents: list[ModelReport]) -> str:
    """Return the reports of models as one HTML page; its bytes depend on the argument alone.

    Scores of unlike recipes share no axis and get no verdict; latencies of unlike hardware share no axis.
    """
    groups = group(contents)
    sections = [_overview(contents, groups)]
    for network, alike in groups.items():
        sections += _network_sections(network, alike)
    sections += [_latency_section(groups), _sample_section(contents), _unseen_section(contents)]
    sections += [recipe_section(_recipes(groups)), _guide(contents)]
    return render(TITLE, SUBTITLE, [], _warnings(contents), sections)


def _warnings(contents: list[ModelReport]) -> list[str]:
    """Return each warning once, with the models that it is about where it is not about all."""
    models: dict[str, list[str]] = {}
    for content in contents:
        for line in content.report.get("warnings") or []:
            models.setdefault(str(line), []).append(content.name)
    return [line if len(names) == len(contents) else f"{', '.join(names)}: {line}" for line, names in models.items()]


def _overview(contents: list[ModelReport], groups: dict[str, list[Alike]]) -> Section:
    """Return a row per model; scores of unlike recipes are not put into one column."""
    if not contents:
        return Section("Overview", absent="No model has been evaluated.")
    distances = [
        (one, alike) for alikes in groups.values() if len(alikes) == 1 for alike in alikes for one in _main(alike)
    ]
    head = [
        "model",
        "kimg",
        *(f"{one.title} {one.network}".strip() for one, _ in distances),
        "p50 ms",
        "pictures/s",
        "weights",
    ]
    rows = []
    for content in contents:
        cells = [cell_of(content, one) for one, _ in distances]
        summary = (content.benchmark or {}).get("summary", {})
        speed = [number(summary.get(name)) for name in ("p50_ms_batch1", "pictures_per_second_best")]
        kimg = number((content.record or {}).get("kimg"))
        rows.append((content.name, kimg, *cells, *speed, short(str(content.part("identity").get("weights", NONE)))))
    unlike = [network for network, alikes in groups.items() if len(alikes) > 1]
    notes = [f"Distances in {network} features are left out here: their recipes differ." for network in unlike]
    return Section("Overview", tables=[Table(tuple(head), rows)], notes=notes)


def _main(alike: Alike) -> list[ScoreName]:
    return [one for one in alike.names if one.kind == "fd"]


def _network_sections(network: str, groups: list[Alike]) -> list[Section]:
    """Return the sections of one feature network: one for each group of alike models, and what keeps groups apart."""
    title = title_of(network)
    if len(groups) == 1:
        return [_scores(title, groups[0])]
    parts = [_scores(f"{title}, group {place}", one) for place, one in enumerate(groups, 1)]
    return [Section(title, reading=UNLIKE, tables=[differing(groups)]), *parts]


def _scores(title: str, alike: Alike) -> Section:
    panels = [panel for panel in (_panel(alike, one) for one in alike.names) if panel]
    names = ", ".join(model.name for model in alike.models)
    charts = [dots_and_whiskers(panels, f"{title}: {names}")] if panels else []
    rows = [
        (one.title, *(cell_of(model, one).replace(" [", "\n[") for model in alike.models), number(_floor(alike, one)))
        for one in alike.names
    ]
    tables = [Table(("score", *(model.name for model in alike.models), "floor"), rows)]
    judged = [table for table in (verdicts(alike, one) for one in alike.names) if table]
    notes = ["Whiskers are 95 % intervals; the floor is what real training pictures score."] if charts else []
    if judged:
        notes.append("A verdict is on the difference row minus column with its 95 % interval; 'not shown' holds 0.")
    elif len(alike.models) > 1:
        notes.append("No verdict: the scores carry no standard errors.")
    return Section(title, charts=charts, tables=[*tables, *judged], notes=notes)


def _floor(alike: Alike, one: ScoreName) -> Any:
    return next((model.part("floor")[one.name] for model in alike.models if one.name in model.part("floor")), None)


def _panel(alike: Alike, one: ScoreName) -> Panel | None:
    dots = [
        dot_of(model, one.name, model.name, strong=True)
        if finite(model.part("scores").get(one.name))
        else Dot(model.name, None)
        for model in alike.models
    ]
    if all(dot.value is None for dot in dots):
        return None
    floor = _floor(alike, one)
    return Panel(one.title, [*dots, Dot(FLOOR, floor if finite(floor) else None)], one.lower)


def _latency_section(groups: dict[str, list[Alike]]) -> Section:
    """Return quality against latency, a chart for each set of models of one recipe and one machine."""
    title = "Quality against latency"
    charts: list[str] = []
    notes = [BEST]
    for alike in (one for alikes in groups.values() for one in alikes):
        sets, missing = _on_machines(alike)
        shown = [points for points in sets.values() if len(points) > 1]
        charts += [_latency_chart(alike.network, points) for points in shown]
        notes += [
            f"{points[0][0].label} is alone with its recipe and machine."
            for points in sets.values()
            if len(points) == 1
        ]
        notes += [f"{name} has no latency at batch 1." for name in missing]
    if not charts:
        reason = "No two models share the recipe of their scores and the machine of their benchmark."
        return Section(title, absent=reason, notes=list(dict.fromkeys(notes[1:])))
    return Section(title, charts=charts, notes=list(dict.fromkeys(notes)))


def _on_machines(alike: Alike) -> tuple[dict[str, list[Point]], list[str]]:
    """Return each machine's models with distance and latency, and the names of models that have no latency."""
    sets: dict[str, list[Point]] = {}
    missing = []
    main = next(iter(_main(alike)), None)
    for model in alike.models if main else []:
        benchmark = model.benchmark or {}
        milliseconds = benchmark.get("summary", {}).get("p50_ms_batch1")
        if not finite(milliseconds):
            missing.append(model.name)
        elif main and finite(model.part("scores").get(main.name)):
            point = (dot_of(model, main.name, model.name, strong=True), milliseconds)
            sets.setdefault(str(benchmark.get("hardware_hash")), []).append(point)
    return sets, missing


def _latency_chart(network: str, points: list[Point]) -> str:
    name = f"{'FID' if network == 'inception' else 'Fréchet distance'} in {network} features"
    alt = f"{name} against latency: {', '.join(dot.label for dot, _ in points)}"
    return quality_against_latency(points, LATENCY, name.replace(" in ", "\nin "), alt)


def _sample_section(contents: list[ModelReport]) -> Section:
    figures = []
    for content in contents:
        count, first = len(content.samples), content.first_seed
        caption = f"{content.name}: seeds {first} to {first + count - 1}, none left out"
        shown = contact_sheet(content.samples, f"uncurated samples of {caption}", 2 * SAMPLE_PIXELS // len(contents))
        if shown:
            figures.append(Figure([shown], caption, size="half"))
    if not figures:
        return Section("Samples", absent="No model has samples here.")
    alike = len({(one.first_seed, len(one.samples)) for one in contents if len(one.samples)}) == 1
    reading = "Uncurated, the same seeds for every model." if alike else "Uncurated; the seeds differ, see below each."
    return Section("Samples", reading=reading, figures=figures)


def _unseen_section(contents: list[ModelReport]) -> Section:
    """Return what each model's own report says beside the scores: its one-line readings."""
    rows = []
    for part in PARTS:
        cells = [_reading(content, part) for content in contents]
        if any(cell != NONE for cell in cells):
            rows.append((words(part), *cells))
    title = "What scores cannot see"
    if not rows:
        return Section(title, absent="None of these reports measured more than scores.")
    return Section(title, tables=[Table(("", *(one.name for one in contents)), rows, text=True)])


def _reading(content: ModelReport, part: str) -> str:
    if part not in content.report:
        return NONE
    return content.absent(part) or reading_of(content, part) or NONE


def _recipes(groups: dict[str, list[Alike]]) -> dict[str, dict[str, Any]]:
    recipes = {}
    for network, alikes in groups.items():
        for place, one in enumerate(alikes, 1):
            if one.recipe:
                recipes[network if len(alikes) == 1 else f"{network}, group {place}"] = one.recipe
    return recipes


def _guide(contents: list[ModelReport]) -> Section:
    names = dict.fromkeys(name for content in contents for name in content.part("scores"))
    measured = [p for p in PARTS if any(p in one.report and one.absent(p) is None for one in contents)]
    return guide_section([parse(name) for name in names], measured)
