"""Export of a tiny generator: what the file holds, what it must not hold, and what is refused."""

import json
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper

from stages.errors import GateError
from stages.export.graph import trace
from stages.export.lint import check, check_names, check_shapes, strip
from stages.export.parity import compare, measure
from stages.export.run import build
from stages.generators.adversarial import AdversarialGenerator
from stages.generators.interface import Capabilities
from stages.generators.noise import RECIPE
from stages.generators.onnx_session import open_session
from stages.networks.contract import GeneratorNetwork
from stages.networks.dcgan import build_generator

IDENTITY = {"weights": "a" * 64, "dataset": "b" * 64, "settings": "c" * 64, "fingerprint": "d" * 64}
CONFIG = {"family": "dcgan", "class_names": [], "resolution": 16, "channels": 3, "latent": 8, "width": 4}
CONFIG |= {"upsample": "bilinear", "identity": IDENTITY}
CAPABILITIES = Capabilities("dcgan", (8,), 16, 3)


def make_generator(network: GeneratorNetwork | None = None) -> AdversarialGenerator:
    torch.manual_seed(3)
    return AdversarialGenerator(network or build_generator(CONFIG), CONFIG)


@pytest.fixture(scope="module")
def traced() -> bytes:
    """A traced graph as torch leaves it."""
    return trace(make_generator(), 20).SerializeToString()


@pytest.fixture(scope="module")
def built() -> tuple[bytes, dict]:
    return build(make_generator(), 20)


def hand_made(
    batch: int | str, opset: int = 20, ir: int = 10, output_batch: int | str | None = None
) -> onnx.ModelProto:
    """A valid graph of the right sizes that reshapes a latent to pictures, by hand."""
    sizes = [batch if isinstance(batch, int) else -1, 3, 16, 16]
    nodes = [
        helper.make_node("MatMul", ["latent", "weight"], ["flat"], name="project"),
        helper.make_node("Reshape", ["flat", "sizes"], ["pictures"], name="reshape"),
    ]
    graph = helper.make_graph(
        nodes,
        "generator",
        [helper.make_tensor_value_info("latent", TensorProto.FLOAT, [batch, 8])],
        [helper.make_tensor_value_info("pictures", TensorProto.FLOAT, [output_batch or batch, 3, 16, 16])],
        [
            helper.make_tensor("weight", TensorProto.FLOAT, [8, 768], np.ones(8 * 768, np.float32)),
            helper.make_tensor("sizes", TensorProto.INT64, [4], sizes),
        ],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=ir)


def test_the_file_is_as_asked(built):
    data, report = built
    model = onnx.load_model_from_string(data)
    assert report["opset"] == 20
    assert report["ir_version"] == 10
    assert report["bytes"] == len(data)
    assert report["inputs"] == [{"name": "latent", "shape": ["batch", 8], "dtype": "float32"}]
    assert report["outputs"] == [{"name": "pictures", "shape": ["batch", 3, 16, 16], "dtype": "float32"}]
    assert model.producer_name == "image-foundry"
    assert model.graph.output[0].type.denotation == "IMAGE"
    inner = {value.name: value.type.tensor_type.shape.dim[0].dim_param for value in model.graph.value_info}
    assert len(inner) == len(model.graph.node) - 1
    assert set(inner.values()) == {"batch"}


def test_metadata_carry_identity_and_how_to_draw(built):
    model = onnx.load_model_from_string(built[0])
    found = {entry.key: entry.value for entry in model.metadata_props}
    assert Capabilities.from_json(json.loads(found["image_foundry.capabilities"])) == CAPABILITIES
    assert found["image_foundry.noise"] == RECIPE
    assert found["image_foundry.value_range"] == "[-1, 1]"
    assert {key: found[f"image_foundry.identity.{key}"] for key in ("weights", "dataset", "settings")} == {
        key: IDENTITY[key] for key in ("weights", "dataset", "settings")
    }
    assert found["Image.NominalPixelRange"] == "Normalized_1_1"
    assert found["Image.BitmapPixelFormat"] == "Rgb8"


def test_where_it_was_traced_is_stripped(traced, built):
    place = str(Path(__file__).parents[2]).encode()
    assert b"stack_trace" in traced
    assert place in traced
    for trail in (b"stack_trace", b"pkg.torch", b"stages", b".py", place):
        assert trail not in built[0]


def test_functions_and_subgraphs_are_stripped_too():
    branch = helper.make_graph([helper.make_node("Identity", ["latent"], ["y"], doc_string="inner")], "g", [], [])
    node = helper.make_node("If", ["c"], ["pictures"], then_branch=branch, else_branch=branch)
    model = helper.make_model(helper.make_graph([node], "main", [], []))
    function = model.functions.add(name="f", doc_string="outer")
    function.node.add(op_type="Identity").metadata_props.add(key="pkg.torch.onnx.stack_trace", value="/home/someone")
    strip(model)
    text = str(model)
    assert not any(trail in text for trail in ("inner", "outer", "someone"))


def test_two_exports_are_the_same_bytes(built):
    assert build(make_generator(), 20)[0] == built[0]


def test_parity_holds_at_every_batch(built):
    found = measure(make_generator(), built[0], 1e-4)
    assert list(found) == ["1", "2", "5"]
    assert all(0 <= value < 1e-5 for value in found.values())


def test_a_planted_difference_is_refused(built):
    other = make_generator()
    with torch.no_grad():
        list(other.network.parameters())[-1][1] += 0.01  # the bias of the last convolution's second channel
    with pytest.raises(GateError, match=r"at batch 1 .* differs from torch by 1\.000e-02 .* channel 1, .* 1\.000e-04"):
        measure(other, built[0], 1e-4)


def test_pictures_that_are_not_finite_are_refused():
    broken = np.zeros((1, 3, 2, 2), np.float32)
    broken[0, 0, 0, 0] = np.nan
    with pytest.raises(GateError, match="not finite"):
        compare(np.zeros((1, 3, 2, 2), np.float32), broken, 1, 1e-4)


def test_a_file_that_cannot_run_another_batch_is_refused():
    model = hand_made(2)
    with pytest.raises(GateError, match="cannot run a batch of 1"):
        measure(make_generator(), model.SerializeToString(), 1e-4)


class BakedBatch(GeneratorNetwork):
    """Treats the batch as a number that it knows."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = build_generator(CONFIG)

    def forward(self, latent: torch.Tensor, *others: object, **more: object) -> torch.Tensor:
        """Run a fixed batch."""
        return self.inner(latent.reshape(3, 8))


def test_a_network_with_a_baked_batch_is_refused():
    # torch exports it without a word and with a batch of 3 for ever
    with pytest.raises(GateError, match=r"takes latent \[3, 8\].*expected latent \[None, 8\]"):
        build(make_generator(BakedBatch()), 20)


class DataDependent(GeneratorNetwork):
    """Decides by a value, which a graph cannot."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = build_generator(CONFIG)

    def forward(self, latent: torch.Tensor, *others: object, **more: object) -> torch.Tensor:
        """Run or not."""
        return self.inner(latent if latent.sum().item() > 0 else -latent)


def test_a_network_that_torch_cannot_export_is_refused_in_one_line(capfd):
    with pytest.raises(GateError, match="torch cannot export family dcgan to opset 20") as caught:
        build(make_generator(DataDependent()), 20)
    assert "\n" not in str(caught.value)
    written = capfd.readouterr()
    assert "Failed to export" in written.err  # torch's own report
    assert not written.out


def test_a_batch_that_was_fixed_in_silence_is_refused():
    with pytest.raises(GateError, match=r"takes latent \[2, 8\].*expected latent \[None, 8\]"):
        check(hand_made(2), CAPABILITIES, 20)


def test_a_declared_shape_that_the_graph_does_not_have_is_refused():
    model = hand_made("batch")
    model.graph.output[0].type.tensor_type.shape.dim[2].dim_value = 32
    with pytest.raises(GateError, match=r"declares pictures as \[None, 3, 32, 16\], but it is \[None, 3, 16, 16\]"):
        check_shapes(model)


def test_a_stale_note_on_an_inner_shape_is_refused():
    model = hand_made("batch")
    model.graph.value_info.append(helper.make_tensor_value_info("flat", TensorProto.FLOAT, ["batch", 700]))
    with pytest.raises(GateError, match="declares flat as"):
        check(model, CAPABILITIES, 20)


def test_a_fixed_batch_behind_a_free_name_is_refused():
    model = hand_made("batch")
    sizes = next(tensor for tensor in model.graph.initializer if tensor.name == "sizes")
    sizes.int64_data[0] = 2
    with pytest.raises(GateError, match=r"declares pictures as \[None, .*but it is \[2, 3, 16, 16\]"):
        check(model, CAPABILITIES, 20)


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (hand_made("batch", opset=21), r"export\.opset asks for .*20"),
        (hand_made("batch", ir=11), "IR version 11; expected 10"),
    ],
)
def test_other_versions_than_asked_are_refused(model, message):
    with pytest.raises(GateError, match=message):
        check(model, CAPABILITIES, 20)


def test_a_good_graph_passes():
    model = hand_made("batch")
    check(model, CAPABILITIES, 20)
    assert measure_shape(model, 7) == (7, 3, 16, 16)


def measure_shape(model: onnx.ModelProto, batch: int) -> tuple[int, ...]:
    session = open_session(model.SerializeToString())
    return session.run(None, {"latent": np.zeros((batch, 8), np.float32)})[0].shape


def test_nodes_without_a_name_of_their_own_are_refused():
    model = hand_made("batch")
    model.graph.node[1].name = "project"
    with pytest.raises(GateError, match="project"):
        check_names(model)


def test_an_invalid_graph_is_refused():
    model = hand_made("batch")
    model.graph.node[0].input[1] = "nowhere"
    with pytest.raises(GateError, match="not valid ONNX"):
        check(model, CAPABILITIES, 20)
