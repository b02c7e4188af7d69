"""Write one page that compares models side by side: `python -m pipelines.comparison [MODEL...] [--out FILE]`."""

import argparse
import json
import sys
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from pipelines.entry import answer
from pipelines.results import Results, is_trained, read_results
from stages.errors import InputError, StageError
from stages.settings import Settings, load_settings
from stages.storage import sha256_json, sha256_tree, write_bytes, write_json

if TYPE_CHECKING:
    from stages.evaluate.page.content import ModelReport

OUT = Path(".work/reports/comparison.html")
NOTE = OUT.with_suffix(".json")  # which results the page shows


def main() -> int:
    """Write the page and return 0, or 2 with one line where no model can be compared."""
    parser = argparse.ArgumentParser(prog="python -m pipelines.comparison", description=__doc__)
    parser.add_argument("models", nargs="*", metavar="MODEL", help="selected models; default: all that are evaluated")
    parser.add_argument("--out", type=Path, metavar="FILE", help=f"the page; default, for all models: {OUT}")
    parser.add_argument("--params", type=Path, default=Path("params.yaml"), help="settings; default: params.yaml")
    arguments = parser.parse_args()
    return answer("comparison", partial(_compare, arguments.models, arguments.out, arguments.params))


def _compare(names: list[str], out: Path | None, params: Path) -> int:
    if names and out is None:
        raise InputError(f"{OUT} is of all models; name another file by --out for {', '.join(names)}")
    settings = load_settings(params)
    chosen = named(names, settings) if names else evaluated(settings)
    if out is None:
        bring_up_to_date(settings)
    else:
        write_comparison([content_of(results) for results in chosen], out)
    print(f"{len(chosen)} models compared: {out or OUT}")
    return 0


def bring_up_to_date(settings: Settings) -> None:
    """Write the page of all models that have scores, unless it shows just these results; without any, drop it.

    Raises:
        StageError: the page could not be made.
    """
    found = with_scores(settings)
    if not found:
        OUT.unlink(missing_ok=True)
        NOTE.unlink(missing_ok=True)
        return
    note = {"models": [results.name for results in found], "key": key_of(found)}
    if OUT.exists() and read_note() == note:
        return
    try:
        NOTE.unlink(missing_ok=True)  # of a page that is about to be replaced
        write_comparison([content_of(results) for results in found], OUT)
    except StageError:
        raise
    except Exception as error:  # a page must not cost the publication of what it shows
        raise StageError(f"the page {OUT} could not be made: {type(error).__name__}: {error}") from error
    write_json(NOTE, note)


def key_of(found: list[Results]) -> str:
    """Return one sha256 over all that the page shows and the code that shows it."""
    from stages.evaluate import page

    code = sha256_tree(Path(str(page.__file__)).parent)
    return sha256_json([code, [[results.name, results.digest] for results in found]])


def read_note() -> dict[str, Any]:
    """Return which models the page shows, and the key of their results; empty where there is no page."""
    try:
        return dict(json.loads(NOTE.read_text()))
    except (OSError, ValueError):
        return {}


def page_of(name: str) -> Path | None:
    """Return the page if it shows a model."""
    return OUT if name in read_note().get("models", []) and OUT.exists() else None


def write_comparison(contents: "list[ModelReport]", out: Path) -> None:
    """Write the page of these reports to a file, whole or not at all.

    Raises:
        InputError: `out` is a folder.
    """
    from stages.evaluate.page.comparison_page import comparison_page

    if out.is_dir():
        raise InputError(f"--out {out} is a folder; name a file, such as {out / OUT.name}")
    write_bytes(out, comparison_page(contents).encode())


def named(names: list[str], settings: Settings) -> list[Results]:
    """Return the results of models that a user named, each once.

    Raises:
        InputError: one is not selected, not trained, or has no scores of its present weights.
    """
    found = []
    for name in dict.fromkeys(names):
        settings.model(name)
        results = read_results(name)
        if not results.scores:
            why = "are of other weights" if "scores" in results.foreign else "are absent"
            raise InputError(f"the scores of {name} {why}; run `dvc repro evaluate@{name}`")
        found.append(results)
    return found


def evaluated(settings: Settings) -> list[Results]:
    """Return the results of all selected models that have scores of their present weights; says which have none.

    Raises:
        InputError: there is none.
    """
    found = with_scores(settings)
    left_out = [name for name in settings.select if name not in {results.name for results in found}]
    if not found:
        raise InputError(f"none of the selected models ({', '.join(left_out)}) has scores; run `dvc repro`")
    if left_out:
        print(f"left out, since they have no scores of their present weights: {', '.join(left_out)}", file=sys.stderr)
    return found


def with_scores(settings: Settings) -> list[Results]:
    """Return the results of all selected models that have scores of their present weights."""
    trained = [read_results(name) for name in settings.select if is_trained(name)]
    return [results for results in trained if results.scores]


def content_of(results: Results) -> "ModelReport":
    """Return what the comparison shows of a model's results."""
    from stages.evaluate.page.content import ModelReport

    samples = read_samples(results.folder / "evaluation" / "samples.png")
    return ModelReport(
        results.name, results.scores, samples, benchmark=results.benchmark or None, record=results.record
    )


def read_samples(path: Path) -> np.ndarray:
    """Return the pictures of a sheet of samples, uint8 (N, H, W, C), none where the file is absent.

    Raises:
        InputError: the file is no such sheet.
    """
    from PIL import Image

    from stages.evaluate.page.images import SHEET_COLUMNS, cut_sheet

    if not path.exists():
        return np.empty((0, 0, 0, 3), np.uint8)
    try:
        with Image.open(path) as image:
            pixels = np.asarray(image if image.mode == "L" else image.convert("RGB"))
    except OSError as error:
        raise InputError(f"{path} is no picture ({error}); run `dvc repro evaluate@{path.parents[1].name}`") from error
    return cut_sheet(pixels[..., None] if pixels.ndim == 2 else pixels, SHEET_COLUMNS, str(path))


if __name__ == "__main__":
    sys.exit(main())
