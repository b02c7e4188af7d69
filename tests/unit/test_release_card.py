"""The model card: every number is from the record, and what was not measured is said."""

import copy
from typing import Any

import pytest
from huggingface_hub import ModelCard

from pipelines.release.card import memorisation_lines, number, score_rows, write_card
from pipelines.release.contract import contract_of
from pipelines.release.licences import attribution
from stages.generators.interface import Capabilities

STEPS = Capabilities("diffusion", (4, 2, 2), 8, 3, ("cat", "dog"), steps=7)
PARITY = {
    "inputs": [
        {"name": "latent", "shape": ["batch", 4, 2, 2], "dtype": "float32"},
        {"name": "label", "shape": ["batch"], "dtype": "int64"},
    ],
    "outputs": [{"name": "pictures", "shape": ["batch", 3, 8, 8], "dtype": "float32"}],
}
TOKENS = {"name": "input_ids", "shape": ["batch", 3], "dtype": "int64", "range": [0, None], "meaning": "tokens"}


def proportion(hits: int) -> dict[str, Any]:
    return {"value": hits / 1000, "low": hits / 2000, "high": hits / 500, "hits": hits, "count": 1000}


def certified(file: str, size: int) -> dict[str, Any]:
    figures = {"fd": 12.4567, "recall": 0.251, "psnr": {"p5": 126.02}}
    return {"file": file, "bytes": size, **figures, "passed": True, "failures": []}


LEVEL = {
    "level": 0.01,
    "expected": {"low": 0.002, "high": 0.021},
    "copies": proportion(3),
    "near": proportion(17),
    "variants": proportion(14),
    "data": proportion(114),
}
ROW = {
    "runtime": "onnxruntime",
    "provider": "CPUExecutionProvider",
    "form": "model",
    "p50_ms": 0.0981,
    "p95_ms": 12.345,
}
RECORD: dict[str, Any] = {
    "name": "ldm",
    "version": "1.2.0",
    "created": "2026-01-02T03:04:05Z",
    "model": {
        "bytes": 12_345_678,
        "family": "diffusion",
        "steps": 7,
        "opset": 20,
        "ir_version": 10,
        "identity": {"weights": "a" * 64, "dataset": "b" * 64},
    },
    "contract": contract_of(STEPS, PARITY, {}),
    "samples": {"seeds": [0, 1], "labels": ["cat", "dog"]},
    "golden": {"tolerance": {"CPUExecutionProvider": 0.001, "CUDAExecutionProvider": 0.05}},
    "data": {
        "source": "folder",
        "sha256": "b" * 64,
        "resolution": 8,
        "splits": {"train": 3395, "holdout": 918},
        "groups": 191,
        "licences": {"CC-BY-4.0": 1127, "own": 3186},
        "sources": [
            {
                "file": "a.tgz",
                "name": "a",
                "version": "2.1",
                "sha256": "c" * 64,
                "licence": "CC-BY-4.0",
                "train": 900,
            },
            {"file": "b.tar", "sha256": "d" * 64, "licence": "own", "train": 2495, "holdout": 918},
        ],
    },
    "scores": {
        "parity": {"max_abs_difference": {"1": 1e-6, "5": 2.345e-5}},
        "scores": {"fid": 12.3456, "kid": 0.0312, "kid_se": 0.0013, "recall": 0.276},
        "intervals": {"fid": {"low": 11.9, "high": 12.8}},
        "floor": {"fid": 3.21},
        "baselines": {"untrained": {"fid": 305.44}},
        "recipes": {"inception": {"count": 1000}},
        "warnings": ["few pictures"],
        "memorisation": {"levels": [LEVEL]},
    },
    "certificate": {
        "count": 500,
        "torch": {"fd": 12.5, "recall": 0.25},
        "files": {
            "model": certified("model.onnx", 12_345_678),
            "fp16": certified("model-fp16.onnx", 6_200_000) | {"psnr": {"p5": 61.25}},
            "int8": certified("model-int8.onnx", 3_100_000) | {"passed": False, "failures": ["too far"]},
        },
        "left_out": {"int4": "nobody asked"},
    },
    "benchmark": {
        "hardware": {"cpu": "some CPU", "cores": 2, "gpu": None},
        "hardware_hash": "e" * 64,
        "skipped": [{"provider": "CUDAExecutionProvider", "reason": "no driver"}],
        "summary": {"p50_ms_batch1": 0.0981},
        "variants": {"fp16": {"p50_ms_batch1": 0.0712}},
        "rows": [
            ROW | {"batch": 1, "pictures_per_second": 8829.4},
            ROW | {"batch": 4, "pictures_per_second": 9000.0, "form": "fp16"},
        ],
    },
    "training": {
        "kimg": 180.032,
        "alerts": ["no loss at kimg 3"],
        "git": {"commit": "f" * 40, "dirty": True},
    },
    "commit": {"commit": "0" * 40, "dirty": False},
    "mlflow": {"run_id": "9" * 32},
}


@pytest.mark.parametrize(
    "text",
    [
        "# ldm 1.2.0",
        "| model.onnx | 12.3 | 126.0 | 12.46 | 0.2510 | 0.0981 | in this release |",
        "| model-fp16.onnx | 6.2 | 61.25 | 12.46 | 0.2510 | 0.0712 | in this release |",
        "| model-int8.onnx | 3.1 | 126.0 | 12.46 | 0.2510 | - | not released: too far |",
        "- there is no int4 variant: nobody asked",
        "beside torch's of the same: 95 % of them reach so many dB; torch itself scores 12.50 (Fréchet distance)",
        "| onnxruntime CPUExecutionProvider, fp16 | 4 |",
        "one ONNX file of 12.3 MB",
        "7 sampling steps inside of the file",
        "seeds 0 to 1 in reading order, drawn by this very file, the classes in turn",
        "--label cat",
        "| label | int64 [batch] | -1 to 1 |",
        "Classes: cat, dog.",
        "3,395 pictures were trained on and 918 held out (source folder, 191 groups",
        "CC-BY-4.0 (1,127), own (3,186)",
        "differs from torch by at most 2.3e-05",
        "| fid | 12.35 | 11.90 to 12.80 | 3.210 | less |",
        "| recall | 0.2760 | - | - | more |",
        "- baseline untrained: fid 305.4",
        "copies 3 of 1000",
        "- few pictures",
        "- while it was trained: no loss at kimg 3",
        "trained for 180.032 thousand pictures",
        "by 0.001 on a CPU and by 0.05 on a GPU",
        "some CPU, 2 cores, no GPU (hardware eeeeeeeeeeee)",
        "| onnxruntime CPUExecutionProvider | 1 | 0.0981 | 12.35 | 8,829 |",
        "- CUDAExecutionProvider was not timed: no driver",
        "ffffffffffffffffffffffffffffffffffffffff with changes that were not committed, released at 0000",
        "MLflow run 99999999999999999999999999999999.",
    ],
)
def test_what_the_record_holds_is_shown(text: str):
    assert text in write_card(RECORD)


def test_nothing_of_the_template_is_left_and_spreads_are_no_scores():
    card = write_card(RECORD)
    assert not any(mark in card for mark in ("{{", "}}", "{%", "None", "undefined"))
    assert "kid_se" not in card


def test_hugging_face_reads_the_machine_readable_part():
    data: Any = ModelCard(write_card(RECORD)).data
    assert {result.metric_type: result.metric_value for result in data.eval_results} == {
        "fid": 12.3456,
        "kid": 0.0312,
        "recall": 0.276,
    }
    assert (data.library_name, data.license, data.license_link) == ("onnx", "other", "ATTRIBUTION.md")
    assert data.pipeline_tag == "unconditional-image-generation"
    record = copy.deepcopy(RECORD)
    record["contract"]["inputs"].append(TOKENS)
    data = ModelCard(write_card(record)).data
    assert data.pipeline_tag == "text-to-image"


def test_what_is_not_there_is_said():
    record = copy.deepcopy(RECORD)
    record["mlflow"] = None
    record["scores"]["memorisation"] = {}
    record["commit"]["commit"] = record["training"]["git"]["commit"] = None
    record["contract"]["class_names"] = []
    card = write_card(record)
    assert "Not in MLflow when it was released." in card
    assert "Not measured." in card
    assert "trained at commit\nunknown" in card
    assert "Classes:" not in card
    assert "--label" not in card


def test_copies_are_told_beside_what_fresh_pictures_would_be():
    (line,) = memorisation_lines({"levels": [LEVEL]})
    assert line == (
        "at level 1%: copies 3 of 1000 (95 %: 0.1% to 0.6%); near to a training picture 17 of 1000 "
        "(95 %: 0.9% to 3.4%), 14 of them variants of what the data repeat; of fresh pictures 0.2% to 2.1% would be "
        "near; of the training pictures themselves 114 of 1000 (95 %: 5.7% to 22.8%) are near to another one"
    )


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0, "0"),
        (0.00004, "0.0000"),
        (0.0981, "0.0981"),
        (1.5, "1.500"),
        (12.345, "12.35"),
        (105.248, "105.2"),
        (8829.4, "8,829"),
        (123456.7, "123,457"),
        (-12.345, "-12.35"),
    ],
)
def test_numbers_have_four_digits(value: float, text: str):
    assert number(value) == text


def test_a_score_without_an_interval_or_floor_has_a_dash():
    assert score_rows({"scores": {"vendi": 3.0}}) == [
        {"name": "vendi", "value": "3.000", "interval": "-", "floor": "-", "better": "-"}
    ]


def test_licences_are_told_by_source_with_their_counts():
    text = attribution(RECORD["data"])
    assert "| a 2.1 | CC-BY-4.0 | 900 | 0 | `cccccccccccccccc` |" in text
    assert "| b.tar | own | 2,495 | 918 | `dddddddddddddddd` |" in text
    assert "- CC-BY-4.0: Creative Commons Attribution 4.0 International, https://creativecommons.org/" in text
    assert "- own: see its text" in text
