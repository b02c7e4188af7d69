"""The `fast` engine of the CPU: a network exported to ONNX once, kept in the user's cache, run by onnxruntime."""

import contextlib
import io
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, nn

from stages.errors import InputError
from stages.metrics.backbone import Backbone, first_line
from stages.metrics.cache import code_hash, read_kept, versions, write_kept
from stages.packages import cache_folder
from stages.storage import sha256_json

if TYPE_CHECKING:
    import onnx

OPSET = 20
KEPT = 3  # graphs of one network
EXAMPLES = 3  # not 1, which tracing takes for a constant
ABOUT = "fast (onnxruntime CPUExecutionProvider, batch norms folded)"


class OnnxEngine:
    """A network in onnxruntime on the CPU.

    Each thread that calls it runs a batch of its own on one core: a fifth cheaper than to share every layer among
    threads, and the features do not depend on their number.
    """

    about = ABOUT

    def __init__(self, backbone: Backbone, workers: int) -> None:
        from stages.generators.onnx_session import CPU, open_session

        self.workers = workers
        threads = max(torch.get_num_threads() // workers, 1)
        self.session = open_session(exported(backbone), CPU, threads, spinning=False)

    def run(self, prepared: Tensor) -> tuple[np.ndarray, np.ndarray | None]:
        """Map (N, 3, size, size) to float32 features and logits."""
        features, *logits = self.session.run(None, {"pictures": prepared.numpy()})
        return features, logits[0] if logits else None


def exported(backbone: Backbone) -> bytes:
    """Return the network as ONNX, from the user's cache or exported now, which takes about 15 seconds.

    Raises:
        InputError: torch cannot export it.
    """
    path = kept_path(backbone)
    data = read_kept(path, "the network is exported again")
    if data is None:
        print(f"exporting {backbone.label} for the fast engine (once)", file=sys.stderr, flush=True)
        data = export(backbone)
        write_kept(path, data, {"features": backbone.features, "weights_sha256": backbone.weights_sha256})
        _drop_old(path.parent, backbone.label)
    return data


def _drop_old(folder: Path, label: str) -> None:
    """Delete all but the newest graphs of a network: each new version of code or libraries leaves one of up to 1 GB."""
    kept = sorted(folder.glob(f"{label}-*.onnx"), key=lambda path: path.stat().st_mtime, reverse=True)
    for old in kept[KEPT:]:
        for path in (old, old.with_suffix(".json")):
            path.unlink(missing_ok=True)


def kept_path(backbone: Backbone) -> Path:
    """Return the file in the user's cache, named after all that its bytes depend on."""
    network = {"features": backbone.features, "layer": backbone.layer, "weights": backbone.weights_sha256}
    libraries = versions(("torch", "torch-fidelity", "onnx", "onnxscript"))
    key = sha256_json({**network, "size": backbone.size, "versions": libraries, "code": code_hash(_sources(backbone))})
    return cache_folder() / "networks" / f"{backbone.label}-{key[:16]}.onnx"


def _sources(backbone: Backbone) -> set[Path]:
    """Return the files of this project that decide the graph: those of the network's layers, and this one."""
    modules = {type(module).__module__ for module in backbone.network.modules()}
    files = (sys.modules[name].__file__ for name in modules if name.startswith("stages."))
    return {Path(file) for file in files if file} | {Path(__file__)}


def export(backbone: Backbone) -> bytes:
    """Return one ONNX graph with a free batch, stripped of all that names this machine and its sources.

    Raises:
        InputError: torch cannot express the network.
    """
    outputs = ["features"] if backbone.classes is None else ["features", "logits"]
    examples = torch.zeros(EXAMPLES, 3, backbone.size, backbone.size)
    with _quiet(), torch.no_grad():
        try:
            program = torch.onnx.export(
                Outputs(backbone.network).eval(),
                (examples,),
                dynamo=True,
                opset_version=OPSET,
                external_data=False,
                input_names=["pictures"],
                output_names=outputs,
                dynamic_shapes=({0: torch.export.Dim("batch", min=1)},),
                verbose=False,
            )
        except Exception as error:  # the exporter raises what any layer raises; the exact engine needs none of it
            message = f"{backbone.label} cannot be exported for the fast engine: {first_line(error)}; use exact"
            raise InputError(message) from error
    if program is None:
        raise InputError(f"{backbone.label} cannot be exported for the fast engine; use exact")
    return _stripped(program.model_proto)


class Outputs(nn.Module):
    """A network without the logits that it does not have, since a graph has no output that is None."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, pictures: Tensor) -> tuple[Tensor, ...]:
        """Return the outputs that are there."""
        return tuple(value for value in self.network(pictures) if value is not None)


def _stripped(model: "onnx.ModelProto") -> bytes:
    """Return the graph's bytes without the source lines and names that the exporter notes on every node."""
    for item in [model, model.graph, *model.graph.node, *model.graph.value_info, *model.graph.initializer]:
        del item.metadata_props[:]
        item.doc_string = ""
    del model.functions[:]
    found: bytes = model.SerializeToString()
    return found


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        yield
