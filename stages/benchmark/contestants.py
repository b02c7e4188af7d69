"""What is timed side by side: ONNX Runtime on a provider, and eager torch on the same device."""

import copy
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from stages.errors import GateError
from stages.generators.interface import TorchGenerator
from stages.generators.onnx_metadata import FULL
from stages.generators.onnx_session import CPU, DEVICES, ProviderUnavailableError, open_session

if TYPE_CHECKING:
    import onnxruntime

Inputs = Callable[[int], dict[str, np.ndarray]]
Call = Callable[[], None]


@dataclass(frozen=True)
class Contestant:
    """A runtime on a device; `prepare(batch)` puts inputs in place and returns the call that is timed."""

    runtime: str  # onnxruntime or torch
    provider: str  # an execution provider, or eager
    device: str  # cpu or cuda
    prepare: Callable[[int], Call]
    form: str = FULL  # of the file: full precision or a variant


@dataclass(frozen=True)
class Policy:
    """How threads work, the same for both runtimes."""

    threads: int
    spinning: bool  # whether idle threads wait busily, which slows whatever runs beside them

    @classmethod
    def of_environment(cls, threads: int) -> "Policy":
        """Take one thread per usable core for 0, and for ONNX Runtime the waiting policy that OpenMP has in torch."""
        usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        return cls(threads or usable, os.environ.get("OMP_WAIT_POLICY", "").upper() != "PASSIVE")


@dataclass(frozen=True)
class Opened:
    """Sessions by provider, the milliseconds that each took to open, and the providers that cannot run here."""

    sessions: dict[str, "onnxruntime.InferenceSession"]
    load_ms: dict[str, float]
    skipped: list[dict[str, str]]


def open_providers(data: bytes, providers: Sequence[str], policy: Policy) -> Opened:
    """Open a file on each provider that runs all of its nodes.

    Raises:
        ProviderFallbackError: a provider runs here, but not every node: its figure would be another one's.
        GateError: no provider is left.
    """
    opened = Opened({}, {}, [])
    for provider in dict.fromkeys(providers):
        start = time.perf_counter()
        try:
            opened.sessions[provider] = open_session(data, provider, policy.threads, policy.spinning)
        except ProviderUnavailableError as error:
            opened.skipped.append({"provider": provider, "reason": error.reason, "fix": error.fix})
            continue
        opened.load_ms[provider] = round((time.perf_counter() - start) * 1000, 3)
    if not opened.sessions:
        reasons = "; ".join(f"{entry['provider']}: {entry['reason']}" for entry in opened.skipped)
        raise GateError(f"no provider of benchmark.providers runs here ({reasons}); add {CPU} to have a figure")
    return opened


def line_up(opened: dict[str, Opened], generator: TorchGenerator) -> list[Contestant]:
    """Return each form's sessions and, on each device that one of them uses, eager torch."""
    inputs = generator.export_inputs
    sessions = [(form, *item) for form, files in opened.items() for item in files.sessions.items()]
    runtimes = [onnx_contestant(session, provider, inputs, form) for form, provider, session in sessions]
    devices = dict.fromkeys(contestant.device for contestant in runtimes)
    return runtimes + [torch_contestant(generator, device) for device in devices]


def onnx_contestant(
    session: "onnxruntime.InferenceSession", provider: str, inputs: Inputs, form: str = FULL
) -> Contestant:
    """Time a session; off the CPU, inputs and outputs stay on the device as they do for torch."""

    def prepare(batch: int) -> Call:
        feed = inputs(batch)
        if provider != CPU:
            return bound_call(session, feed, DEVICES[provider])

        def call() -> None:
            session.run(None, feed)

        return call

    return Contestant("onnxruntime", provider, DEVICES[provider], prepare, form)


def bound_call(session: "onnxruntime.InferenceSession", feed: dict[str, np.ndarray], device: str) -> Call:
    """Bind inputs and outputs to device memory, so that no copy to or from the host is timed."""
    import onnxruntime

    binding = session.io_binding()
    for name, value in feed.items():
        binding.bind_ortvalue_input(name, onnxruntime.OrtValue.ortvalue_from_numpy(value, device, 0))
    for output in session.get_outputs():
        binding.bind_output(output.name, device)

    def call() -> None:
        session.run_with_iobinding(binding)
        binding.synchronize_outputs()

    return call


def torch_contestant(generator: TorchGenerator, device: str) -> Contestant:
    """Time the eager network on a device."""
    import torch

    network = copy.deepcopy(generator.network).to(device).eval()

    def prepare(batch: int) -> Call:
        values = [torch.from_numpy(value).to(device) for value in generator.export_inputs(batch).values()]

        def call() -> None:
            with torch.inference_mode():
                network(*values)
            if device == "cuda":
                torch.cuda.synchronize()

        return call

    return Contestant("torch", "eager", device, prepare)
