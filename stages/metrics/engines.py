"""What runs a feature network: `exact`, the reference tools' own arithmetic, or `fast`, within 1e-3 of its distances.

Inception on one core of an EPYC with AVX-512, per picture of 299 pixels: 117 to 140 ms in torch as the reference tools
run it (`exact`), 65 to 80 channels_last with folded batch norms, 52 in onnxruntime (`fast`), 34 in bfloat16. The last
is not offered: with random weights it is 2e-2 off in the Fréchet distance, and so are TF32 and half precision by 2e-3.
onnxruntime's distance is 1.5e-6 off.
"""

import threading
from typing import Protocol

import numpy as np
import torch
from torch import Tensor, nn

from stages.errors import InputError
from stages.metrics.backbone import Backbone
from stages.metrics.inception import fold_batch_norms

ENGINES = ("exact", "fast")
MOST_WORKERS = 16  # pictures are prepared in as many threads, and each may start its own of torch


class Engine(Protocol):
    """Runs prepared pictures; `workers` is how many threads may do so at once, `about` goes into the recipe."""

    about: str
    workers: int

    def run(self, prepared: Tensor) -> tuple[np.ndarray, np.ndarray | None]:
        """Map (N, 3, size, size) to float32 features (N, D) and logits (N, K), where the network has any."""


class TorchEngine:
    """A network in torch; one batch at a time, since torch's own threads share each of them."""

    workers = 2  # the second one prepares its pictures while the first has its turn

    def __init__(self, network: nn.Module, about: str) -> None:
        self.network = network
        self.about = about
        self.turn = threading.Lock()

    @torch.inference_mode()
    def run(self, prepared: Tensor) -> tuple[np.ndarray, np.ndarray | None]:
        """Map (N, 3, size, size) to float32 features and logits in host memory."""
        # TF32 would change the third digit of a feature, and benchmark mode may choose another kernel on the next run
        exactly = torch.backends.cudnn.flags(enabled=True, benchmark=False, deterministic=True, allow_tf32=False)
        with self.turn, exactly:
            features, logits = self.network(prepared)
        return _to_host(features), None if logits is None else _to_host(logits)


def open_engine(name: str, backbone: Backbone, device: torch.device, precision: str) -> Engine:
    """Return an engine for a network on a device.

    `exact` leaves layout and layers as they are, so that Inception's features are torch-fidelity's bit for bit on the
    CPU. `fast` is onnxruntime on the CPU and channels_last torch with folded batch norms elsewhere.

    Raises:
        InputError: there is no such engine, or it does not have this precision.
    """
    if name not in ENGINES:
        raise InputError(f"engine is {name!r}; expected one of {', '.join(ENGINES)}")
    if precision not in ("float32", "float64") or (name == "fast" and precision != "float32"):
        raise InputError(f"precision is {precision!r}; expected float32, or float64 with the engine exact")
    if name == "exact":
        return TorchEngine(backbone.network.to(device, getattr(torch, precision)), "exact (torch)")
    fold_batch_norms(backbone.network)
    if device.type == "cpu":
        from stages.metrics.fast_engine import OnnxEngine

        return OnnxEngine(backbone, most_workers())
    network = backbone.network.to(device).to(memory_format=torch.channels_last)
    return TorchEngine(network, "fast (torch channels_last, batch norms folded)")


def most_workers() -> int:
    """Return how many threads may run pictures at once: torch's number, which OMP_NUM_THREADS decides."""
    return min(torch.get_num_threads(), MOST_WORKERS)


def _to_host(values: Tensor) -> np.ndarray:
    found: np.ndarray = values.float().cpu().numpy()
    return found
