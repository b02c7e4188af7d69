"""MODEL_CARD.md: what a person wants to know of a release before using it; every number is from its record."""

from pathlib import Path
from typing import Any

from pipelines.release.licences import ATTRIBUTION
from stages.generators.onnx_metadata import FULL, TOKENS

CARD, TEMPLATE = "MODEL_CARD.md", Path(__file__).with_name("card.template.md")
BETTER = {"fid": "less", "fd": "less", "kid": "less", "precision": "more", "recall": "more", "density": "more"}
BETTER |= {"coverage": "more", "isc": "more"}
RESULTS = ("fid", "fd", "kid", "precision", "recall")  # what goes into the card's machine-readable part
UNCONDITIONAL, BY_PROMPT = "unconditional-image-generation", "text-to-image"
SHOWN_CLASSES = 30


def write_card(record: dict[str, Any]) -> str:
    """Return the text of MODEL_CARD.md for a whole record."""
    from huggingface_hub import ModelCard

    values: dict[str, Any] = {
        "record": record,
        "attribution": ATTRIBUTION,
        "scores": score_rows(record["scores"]),
        "baselines": baseline_rows(record["scores"]),
        "memorisation": memorisation_lines(record["scores"]["memorisation"]),
        "speed": speed_rows(record["benchmark"]),
        "forms": form_rows(record),
        "torch_fd": number(record["certificate"]["torch"]["fd"]),
        "torch_recall": number(record["certificate"]["torch"]["recall"]),
        "inputs": input_rows(record["contract"]),
        "classes": classes_line(record["contract"]["class_names"]),
        "licences": ", ".join(f"{name} ({count:,})" for name, count in record["data"]["licences"].items()),
        "parity": f"{max(record['scores']['parity']['max_abs_difference'].values()):.1e}",
        "megabytes": f"{record['model']['bytes'] / 1e6:.1f}",
    }
    return str(ModelCard.from_template(card_data(record), template_path=str(TEMPLATE), **values)) + "\n"


def card_data(record: dict[str, Any]) -> Any:
    """Return the machine-readable part: name, tags, licence, and the scores with what they were measured against."""
    from huggingface_hub import EvalResult, ModelCardData

    scores = record["scores"]["scores"]
    prompted = any(entry["name"] == TOKENS[0] for entry in record["contract"]["inputs"])
    task = BY_PROMPT if prompted else UNCONDITIONAL
    results = [
        EvalResult(
            task_type=task,
            dataset_type="holdout",
            dataset_name=f"{record['data']['source']} pictures",
            dataset_revision=record["data"]["sha256"],
            metric_type=name,
            metric_value=round(value, 5),
        )
        for name, value in scores.items()
        if kind_of(name) in RESULTS and not name.endswith("_inf") and not is_spread(name)
    ]
    return ModelCardData(
        model_name=f"{record['name']} {record['version']}",
        license="other",
        license_name="see-attribution",
        license_link=ATTRIBUTION,
        library_name="onnx",
        pipeline_tag=task,
        tags=["onnx", "onnxruntime", "image-generation", record["model"]["family"]],
        eval_results=results or None,
    )


def kind_of(score: str) -> str:
    """Return what a score is, without the features that it was measured in."""
    return score.partition("_")[0]


def is_spread(score: str) -> bool:
    """Return whether a figure tells the spread of another one."""
    return score.split("_")[1:2] in (["std"], ["se"])


def score_rows(scores: dict[str, Any]) -> list[dict[str, str]]:
    """Return a row for each score: value, interval, the floor that real pictures reach, and which way is better."""
    rows = []
    for name, value in scores["scores"].items():
        if is_spread(name):
            continue
        interval, floor = scores.get("intervals", {}).get(name), scores.get("floor", {}).get(name)
        rows.append(
            {
                "name": name,
                "value": number(value),
                "interval": f"{number(interval['low'])} to {number(interval['high'])}" if interval else "-",
                "floor": number(floor) if floor is not None else "-",
                "better": BETTER.get(kind_of(name), "-"),
            }
        )
    return rows


def baseline_rows(scores: dict[str, Any]) -> list[str]:
    """Return a line for each baseline, which any model must beat."""
    return [
        f"{name.replace('_', ' ')}: " + ", ".join(f"{score} {number(value)}" for score, value in values.items())
        for name, values in scores.get("baselines", {}).items()
    ]


def memorisation_lines(memorisation: dict[str, Any]) -> list[str]:
    """Return a line for each level at which copies of training pictures were looked for."""
    return [
        f"at level {level['level']:.0%}: copies {share(level['copies'])}; near to a training picture "
        f"{share(level['near'])}, {level['variants']['hits']} of them variants of what the data repeat; of fresh "
        f"pictures {level['expected']['low']:.1%} to {level['expected']['high']:.1%} would be near; of the training "
        f"pictures themselves {share(level['data'])} are near to another one"
        for level in memorisation.get("levels", [])
    ]


def share(found: dict[str, Any]) -> str:
    """Return hits of a count with the interval of their share."""
    return f"{found['hits']} of {found['count']} (95 %: {found['low']:.1%} to {found['high']:.1%})"


def speed_rows(benchmark: dict[str, Any]) -> list[dict[str, str]]:
    """Return a row for each timing."""
    return [
        {
            "runtime": f"{row['runtime']} {row['provider']}{'' if row['form'] == FULL else ', ' + row['form']}",
            "batch": str(row["batch"]),
            **{name: number(row[name]) for name in ("p50_ms", "p95_ms", "pictures_per_second")},
        }
        for row in benchmark["rows"]
    ]


def form_rows(record: dict[str, Any]) -> list[dict[str, str]]:
    """Return a row for each file, those that were left out as well: size, difference to torch, scores, verdict."""
    certificate, rows = record["certificate"], []
    for form, entry in certificate["files"].items():
        passed = "in this release" if entry["passed"] else f"not released: {'; '.join(entry['failures'])}"
        figures = {key: number(entry[key]) for key in ("fd", "recall")}
        low = number(entry["psnr"]["p5"])
        rows.append({"file": entry["file"], "megabytes": f"{entry['bytes'] / 1e6:.1f}", "psnr": low, **figures})
        rows[-1] |= {"speed": number_or_dash(batch_of_one(record["benchmark"], form)), "verdict": passed}
    return rows


def batch_of_one(benchmark: dict[str, Any], form: str) -> float | None:
    """Return a form's p50 at batch 1 in milliseconds, on the provider of its summary; None where it was not timed."""
    summary = benchmark["summary"] if form == FULL else benchmark.get("variants", {}).get(form, {})
    found: float | None = summary.get("p50_ms_batch1")
    return found


def number_or_dash(value: float | None) -> str:
    """Return a number as text, a dash for none."""
    return "-" if value is None else number(value)


def input_rows(contract: dict[str, Any]) -> list[dict[str, str]]:
    """Return a row for each input and output."""
    rows = []
    for kind in ("inputs", "outputs"):
        for entry in contract[kind]:
            low, high = ("open" if bound is None else str(bound) for bound in entry["range"])
            rows.append(
                {
                    "name": entry["name"],
                    "type": f"{entry['dtype']} [{', '.join(map(str, entry['shape']))}]",
                    "range": f"{low} to {high}",
                    "meaning": entry["meaning"],
                }
            )
    return rows


def classes_line(names: list[str]) -> str:
    """Return the class names in a line, the first of many."""
    shown = ", ".join(names[:SHOWN_CLASSES])
    return f"{shown}, and {len(names) - SHOWN_CLASSES} more in release.json" if len(names) > SHOWN_CLASSES else shown


def number(value: float) -> str:
    """Return a number with four significant digits and without an exponent."""
    if value == 0:
        return "0"
    digits = max(0, 3 - len(str(int(abs(value)))) + (1 if abs(value) >= 1 else 0))
    return f"{value:,.{digits if abs(value) >= 1 else 4}f}"
