"""An ONNX file as a generator: what it answers, and files that are refused in one line."""

import json

import numpy as np
import onnx
import pytest
import torch
from onnx import helper

from stages.dataset import to_uint8
from stages.errors import InputError
from stages.export.run import build
from stages.generators.adversarial import AdversarialGenerator
from stages.generators.interface import Request
from stages.generators.noise import latents
from stages.generators.onnx_file import OnnxGenerator
from stages.networks.dcgan import build_generator

IDENTITY = {"weights": "a" * 64, "dataset": "b" * 64, "settings": "c" * 64}
CONFIG = {"family": "dcgan", "class_names": [], "resolution": 8, "channels": 1, "latent": 6, "width": 4}
CONFIG |= {"upsample": "nearest", "identity": IDENTITY}


@pytest.fixture(scope="module")
def trained() -> AdversarialGenerator:
    torch.manual_seed(1)
    return AdversarialGenerator(build_generator(CONFIG), CONFIG)


@pytest.fixture(scope="module")
def data(trained) -> bytes:
    return build(trained, 20)[0]


@pytest.fixture
def edited(data, tmp_path):
    """Write the file after an edit of its model, and return its path."""

    def edit(change):
        model = onnx.load_model_from_string(data)
        change(model)
        path = tmp_path / "edited.onnx"
        path.write_bytes(model.SerializeToString())
        return path

    return edit


@pytest.fixture
def opened(edited) -> OnnxGenerator:
    return OnnxGenerator(edited(lambda model: None))


def test_it_answers_as_the_trained_model_does(opened, trained):
    assert opened.capabilities == trained.capabilities
    assert opened.identity == IDENTITY


def test_it_draws_the_same_pictures(opened, trained):
    request = Request(latents(range(20), (6,)))
    drawn, expected = opened.generate(request), trained.generate(request)
    assert drawn.dtype == np.float32
    assert drawn.shape == (20, 1, 8, 8)
    np.testing.assert_allclose(drawn, expected, atol=1e-5)


def test_a_seed_gives_the_same_picture_in_any_batch(opened):
    alone = [to_uint8(picture) for picture in opened.draw(range(40, 47), batch=1)]
    for batch in (2, 5, 7):
        together = np.concatenate([to_uint8(part) for part in opened.draw(range(40, 47), batch=batch)])
        difference = np.abs(np.concatenate(alone).astype(int) - together)
        assert difference.max() <= 1
        assert together.std() > 0


def set_property(key, value):
    def change(model):
        found = {entry.key: entry.value for entry in model.metadata_props} | {key: value}
        helper.set_model_props(model, found)

    return change


def drop_metadata(model):
    model.ClearField("metadata_props")


def rename_input(model):
    model.graph.input[0].name = model.graph.node[0].input[0] = "z"


def rename_output(model):
    model.graph.output[0].name = model.graph.node[-1].output[0] = "image"


def other_capabilities(**changes):
    def change(model):
        found = {entry.key: entry.value for entry in model.metadata_props}
        value = json.loads(found["image_foundry.capabilities"]) | changes
        set_property("image_foundry.capabilities", json.dumps(value))(model)

    return change


def point_outside(model):
    tensor = model.graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.data_location = onnx.TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="../weights.bin")


def point_outside_in_a_function(model):
    function = model.functions.add(name="f", domain="d")
    node = function.node.add(op_type="Constant", output=["c"])
    tensor = onnx.TensorProto(name="hidden", data_location=onnx.TensorProto.EXTERNAL)
    node.attribute.add(name="value", type=onnx.AttributeProto.TENSOR, t=tensor)


def use_unknown_operator(model):
    model.graph.node[0].op_type = "NoSuchOperator"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (drop_metadata, r"is no image generator: it lacks metadata image_foundry\.format"),
        (set_property("image_foundry.format", "99"), "format 99, this version reads 1"),
        (set_property("image_foundry.noise", "dice"), "noise by another recipe"),
        (set_property("image_foundry.capabilities", "{"), "capabilities are not readable"),
        (set_property("image_foundry.capabilities", "[1]"), "capabilities are not readable"),
        (rename_input, "its inputs are z, not latent"),
        (rename_output, "its outputs are image, not pictures"),
        (other_capabilities(latent_shape=[7]), r"input latent is .*'batch', 6.*not .*'batch', 7"),
        (other_capabilities(resolution=16), r"output pictures is .*8, 8.*not .*16, 16"),
        (point_outside, r"keeps inner\.project\.weight in another file"),
        (point_outside_in_a_function, "keeps hidden in another file"),
        (use_unknown_operator, "cannot be run: .*NoSuchOperator"),
    ],
)
def test_a_file_of_another_kind_is_refused(edited, change, message):
    path = edited(change)
    with pytest.raises(InputError, match=message) as caught:
        OnnxGenerator(path)
    assert "\n" not in str(caught.value)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize("cut", [0, 10, 500, -100])
def test_a_torn_file_is_refused(data, tmp_path, cut):
    path = tmp_path / "torn.onnx"
    path.write_bytes(data[:cut])
    with pytest.raises(InputError, match=r"torn\.onnx") as caught:
        OnnxGenerator(path)
    assert "\n" not in str(caught.value)


def test_an_absent_file_and_a_folder_are_refused(tmp_path):
    for path in (tmp_path / "none.onnx", tmp_path):
        with pytest.raises(InputError, match="cannot be read"):
            OnnxGenerator(path)


def test_a_list_of_providers_is_refused(edited):
    path = edited(lambda model: None)
    with pytest.raises(InputError, match="expected one"):
        OnnxGenerator(path, ["CUDAExecutionProvider", "CPUExecutionProvider"])


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without a GPU")
def test_a_provider_that_cannot_run_here_is_an_error_not_the_cpu(edited):
    path = edited(lambda model: None)
    with pytest.raises(InputError, match="CUDAExecutionProvider cannot run here: "):
        OnnxGenerator(path, ["CUDAExecutionProvider"])
