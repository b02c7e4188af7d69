"""Smaller forms of an exported file: what they keep, what they change, and when there is none."""

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from stages.errors import GateError
from stages.export.run import build
from stages.export.variants import CONVERTERS, NoGainError, build_variants, calibration_inputs, to_int8
from stages.generators.interface import TorchGenerator
from stages.generators.onnx_metadata import file_name, read_identity
from stages.generators.onnx_session import open_session
from tests.unit.gans import opened

OPSET = 20
FORMS = ("fp16", "int8")


def draw(data: bytes, inputs: dict[str, np.ndarray]) -> np.ndarray:
    drawn: np.ndarray = open_session(data, threads=1).run(None, inputs)[0]
    return drawn


def metadata(data: bytes) -> dict[str, str]:
    return dict(open_session(data).get_modelmeta().custom_metadata_map)


@pytest.fixture(scope="module")
def resized() -> TorchGenerator:
    """A generator of ordinary convolutions."""
    return opened("dcgan", resolution=32, upsample="nearest", width=16)


@pytest.fixture(scope="module")
def data(resized: TorchGenerator) -> bytes:
    return build(resized, OPSET)[0]


@pytest.mark.parametrize(("form", "least"), [("fp16", 50), ("int8", 25)])
def test_a_variant_takes_and_gives_what_the_file_does_and_is_smaller(resized, data, form, least):
    variant = build_variants(resized, data, OPSET, [form])[form]
    assert variant.data is not None
    model = onnx.load_model_from_string(variant.data)
    whole = onnx.load_model_from_string(data)
    assert list(model.graph.input) == list(whole.graph.input)
    assert list(model.graph.output) == list(whole.graph.output)
    assert variant.report["bytes"] == len(variant.data) < len(data)
    for batch in (1, 2, 5):
        inputs = resized.export_inputs(batch)
        error = draw(variant.data, inputs).astype(np.float64) - draw(data, inputs)
        assert 10 * np.log10(4 / (error**2).mean()) > least
    found = metadata(variant.data)
    assert found["image_foundry.variant"] == form
    assert read_identity(found) == read_identity(metadata(data))
    assert {key: value for key, value in found.items() if key != "image_foundry.variant"} == metadata(data)


def test_half_precision_keeps_no_weight_in_full(resized, data):
    half = build_variants(resized, data, OPSET, ["fp16"])["fp16"].data or b""
    weights = onnx.load_model_from_string(half).graph.initializer
    assert {weight.data_type for weight in weights if weight.name.endswith("weight")} == {TensorProto.FLOAT16}


def test_convolutions_have_8_bits_but_for_the_one_that_makes_pictures(resized, data):
    eight_bits = build_variants(resized, data, OPSET, ["int8"])["int8"].data or b""
    graph = onnx.load_model_from_string(eight_bits).graph
    made_by = {name: node for node in graph.node for name in node.output}
    convolutions = [node for node in graph.node if node.op_type == "Conv"]
    eight = [made_by.get(node.input[1]) is not None for node in convolutions]
    assert len(convolutions) > 1
    assert eight == [True] * (len(convolutions) - 1) + [False]
    assert {made_by[node.input[1]].op_type for node in convolutions[:-1]} == {"DequantizeLinear"}


def test_bytes_depend_on_content_alone(resized, data):
    one, other = (build_variants(resized, data, OPSET, FORMS) for _ in range(2))
    assert [one[form].data for form in FORMS] == [other[form].data for form in FORMS]
    assert b"/tmp" not in (one["int8"].data or b"/tmp")


def test_transposed_convolutions_have_no_8_bit_form_and_the_reason_is_told():
    generator = opened("dcgan")
    variants = build_variants(generator, build(generator, OPSET)[0], OPSET, FORMS)
    assert variants["fp16"].data is not None
    assert variants["int8"].data is None
    assert "no convolution but the last" in variants["int8"].report["left_out"]


def test_what_runs_inside_a_loop_has_no_8_bit_form():
    loop = helper.make_node("Loop", ["n", "c", "x"], ["y"], name="loop", body=helper.make_graph([], "b", [], []))
    with pytest.raises(NoGainError, match="inside a loop"):
        to_int8(helper.make_model(helper.make_graph([loop], "g", [], [])), [])


CLASSES = {"cgan": 3, "sngan": 3, "biggan_cifar": 3}


@pytest.mark.parametrize("preset", ["gan", "cgan", "sngan", "biggan_cifar", "progan", "stylegan2", "r3gan"])
def test_every_architecture_has_a_half_precision_form_that_draws(preset):
    generator = opened(preset, CLASSES.get(preset, 0))
    data = build(generator, OPSET)[0]
    variants = build_variants(generator, data, OPSET, FORMS)
    inputs = generator.export_inputs(4)
    for form, variant in variants.items():
        if variant.data is None:
            assert form == "int8"
            continue
        drawn = draw(variant.data, inputs)
        assert drawn.dtype == np.float32
        assert np.abs(drawn - draw(data, inputs)).mean() < 0.05


def test_calibration_draws_many_seeds_and_all_classes():
    batches = calibration_inputs(opened("cgan", classes=3))
    assert len(batches) == 8
    assert {len(value) for batch in batches for value in batch.values()} == {16}
    rows = np.concatenate([batch["latent"] for batch in batches])
    assert len(np.unique(rows, axis=0)) == 128
    assert set(np.concatenate([batch["label"] for batch in batches])) == {0, 1, 2}


def test_a_conversion_that_fails_is_a_gate(resized, data, monkeypatch):
    def broken(model, inputs):
        raise ValueError("no\nsuch operator")

    monkeypatch.setitem(CONVERTERS, "fp16", broken)
    with pytest.raises(GateError, match="no fp16 variant: no such operator"):
        build_variants(resized, data, OPSET, ["fp16"])


def test_a_graph_that_is_no_longer_asked_for_is_a_gate(resized, data, monkeypatch):
    def shrunk(model, inputs):
        model.graph.input[0].type.tensor_type.shape.dim[1].dim_value = 3
        return model

    monkeypatch.setitem(CONVERTERS, "fp16", shrunk)
    with pytest.raises(GateError, match="fp16 variant: the exported graph takes latent"):
        build_variants(resized, data, OPSET, ["fp16"])


def test_files_are_named_by_their_form():
    assert [file_name(form) for form in ("model", "fp16", "int8")] == [
        "model.onnx",
        "model-fp16.onnx",
        "model-int8.onnx",
    ]
