"""`python -m pipelines.comparison` on folders as the stages write them: what it reads, leaves out and refuses."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from pipelines.comparison import (
    OUT,
    bring_up_to_date,
    content_of,
    evaluated,
    named,
    page_of,
    read_samples,
    write_comparison,
)
from pipelines.report import print_report
from stages.errors import InputError, StageError
from stages.settings import Settings, load_settings
from stages.sheet import sheet
from stages.storage import write_json
from tests.conftest import tiny_params
from tests.unit.test_evaluate_page import benchmark, noise, scores, words


def write_model(name: str, shift: float = 0.0, weights: str = "b" * 64) -> None:
    folder = Path("models") / name
    write_json(folder / "training/record.json", {"kimg": 0.5, "settings": {"family": "dcgan"}})
    write_json(folder / "training/curve.json", [])
    write_json(folder / "training/weights/config.json", {"identity": {"weights": "b" * 64}})
    report: dict[str, Any] = scores(shift)
    report["identity"] |= {"weights": weights}
    write_json(folder / "evaluation/scores.json", report)
    write_json(folder / "benchmark/benchmark.json", benchmark() | {"identity": {"weights": "b" * 64}})
    sheet(noise(16, 8, 8, 3), columns=8, zoom=3).save(folder / "evaluation/samples.png")


@pytest.fixture
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    """Settings of two selected models, in a folder that holds nothing else."""
    monkeypatch.chdir(tmp_path)
    params = tiny_params()
    params["select"]["second"] = params["select"]["dcgan"]
    params["models"]["second"] = params["models"]["dcgan"]
    Path("params.yaml").write_text(yaml.safe_dump(params))
    return load_settings(Path("params.yaml"))


def test_all_evaluated_models_are_compared_by_default(settings: Settings, tmp_path: Path) -> None:
    write_model("dcgan")
    write_model("second", 50.0)
    contents = [content_of(results) for results in evaluated(settings)]
    assert [one.name for one in contents] == ["dcgan", "second"]
    assert np.array_equal(contents[0].samples, noise(16, 8, 8, 3))
    out = tmp_path / "new folder" / "page.html"
    write_comparison(contents, out)
    page = words(out.read_text())
    assert "159.7 [155.1, 164.2]" in page
    assert "dcgan: seeds 0 to 15" in page


def test_models_without_scores_of_their_weights_are_left_out_and_said(
    settings: Settings, capsys: pytest.CaptureFixture[str]
) -> None:
    write_model("dcgan")
    write_model("second", weights="f" * 64)
    assert [results.name for results in evaluated(settings)] == ["dcgan"]
    assert "second" in capsys.readouterr().err
    with pytest.raises(InputError, match=r"scores of second are of other weights; run `dvc repro evaluate@second`"):
        named(["second"], settings)


def test_a_model_that_is_named_twice_is_compared_once(settings: Settings) -> None:
    write_model("dcgan")
    assert [results.name for results in named(["dcgan", "dcgan"], settings)] == ["dcgan"]


def test_without_any_scores_there_is_no_page(settings: Settings) -> None:
    with pytest.raises(InputError, match=r"none of the selected models \(dcgan, second\) has scores"):
        evaluated(settings)
    with pytest.raises(InputError, match="nobody"):
        named(["nobody"], settings)


def test_the_page_follows_the_results_and_says_whom_it_shows(settings: Settings) -> None:
    bring_up_to_date(settings)
    assert not OUT.exists() and page_of("dcgan") is None
    write_model("dcgan")
    bring_up_to_date(settings)
    assert page_of("dcgan") == OUT and page_of("second") is None
    before = OUT.stat().st_mtime_ns
    bring_up_to_date(settings)
    assert OUT.stat().st_mtime_ns == before  # nothing has changed
    write_model("second", 50.0)
    bring_up_to_date(settings)
    assert page_of("second") == OUT and "159.7 [155.1, 164.2]" in words(OUT.read_text())
    write_model("second", 50.0, weights="f" * 64)  # trained again, and not yet scored
    bring_up_to_date(settings)
    assert page_of("second") is None and "159.7" not in words(OUT.read_text())
    write_model("dcgan", weights="f" * 64)
    bring_up_to_date(settings)
    assert not OUT.exists() and page_of("dcgan") is None


def test_a_page_that_cannot_be_made_is_one_line(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    write_model("dcgan")
    monkeypatch.setattr("pipelines.comparison.content_of", lambda _: 1 / 0)
    with pytest.raises(StageError, match=r"comparison\.html could not be made: ZeroDivisionError"):
        bring_up_to_date(settings)


def test_models_of_unlike_recipes_do_not_stand_in_one_table(
    settings: Settings, capsys: pytest.CaptureFixture[str]
) -> None:
    write_model("dcgan")
    write_model("second", 50.0)
    print_report(settings)
    assert "159.70" in capsys.readouterr().out
    path = Path("models/second/evaluation/scores.json")
    report = json.loads(path.read_text())
    report["recipes"]["efficientnet_lite0"]["hash"] = "other"
    write_json(path, report)
    print_report(settings)
    told = capsys.readouterr().out
    assert "109.70" in told and "159.70" not in told
    assert "note: the scores of second in efficientnet_lite0 features are by another recipe" in told


def test_a_folder_is_no_page(settings: Settings, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="is a folder"):
        write_comparison([], tmp_path)


def test_a_damaged_sheet_is_refused_by_name(tmp_path: Path) -> None:
    file = tmp_path / "models" / "dcgan" / "evaluation" / "samples.png"
    assert len(read_samples(file)) == 0
    file.parent.mkdir(parents=True)
    file.write_bytes(b"no picture")
    with pytest.raises(InputError, match=r"samples\.png is no picture .* evaluate@dcgan"):
        read_samples(file)


def run(folder: Path, *arguments: str) -> subprocess.CompletedProcess:
    command = [sys.executable, "-m", "pipelines.comparison", *arguments]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=60)


def test_the_command_writes_the_page_and_tells_errors_in_one_line(settings: Settings, tmp_path: Path) -> None:
    write_model("dcgan")
    done = run(tmp_path)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / ".work/reports/comparison.html").read_text().startswith("<!doctype html>")
    refused = run(tmp_path, "nobody")
    assert refused.returncode == 2
    assert len(refused.stderr.strip().splitlines()) == 1
    assert refused.stderr.startswith("comparison: ")


def test_help_needs_no_heavy_import(tmp_path: Path) -> None:
    done = run(tmp_path, "--help")
    assert done.returncode == 0
    assert "MODEL" in done.stdout
    imported = subprocess.run(
        [sys.executable, "-c", "import sys, pipelines.comparison; print({'torch', 'matplotlib'} & set(sys.modules))"],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert imported.stdout.strip() == "set()", imported.stderr
