"""Opens ONNX Runtime sessions that really run every node on the provider asked for, or says why they cannot."""

import contextlib
import io
import os
import re
import sys
import tempfile
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING

from stages.errors import GateError, InputError

if TYPE_CHECKING:
    import onnxruntime

CPU = "CPUExecutionProvider"
CUDA = "CUDAExecutionProvider"
TENSORRT = "TensorrtExecutionProvider"
DEVICES = {CPU: "cpu", CUDA: "cuda", TENSORRT: "cuda"}
RUNTIME_WHEELS = ("onnxruntime", "onnxruntime-gpu", "onnxruntime-directml", "onnxruntime-openvino", "onnxruntime-qnn")
SHOWN_NODES = 3

# What ONNX Runtime writes to stderr when a provider cannot start -> the cause and what helps.
CAUSES = (
    (
        r"libcuda\.so|CUDA failure 35|driver version is insufficient",
        "no working NVIDIA driver (libcuda.so.1)",
        "run on a machine with an NVIDIA GPU and its driver",
    ),
    (
        r"CUDA failure 100|no CUDA-capable device|cudaErrorNoDevice",
        "the driver sees no GPU",
        "give this machine or container a GPU",
    ),
    (
        r"TensorRT libraries|libnvinfer",
        "the TensorRT libraries are not installed",
        "install the TensorRT version that this onnxruntime was built for",
    ),
    (
        r"(lib[\w+-]+\.so[.\d]*|[\w-]+\.dll)\S* ?(?:: cannot open|.{0,40}is missing)",
        "{0} was not found",
        "install onnxruntime-gpu[cuda,cudnn], or a torch of the same CUDA version",
    ),
)


class ProviderUnavailableError(InputError):
    """A provider cannot run on this machine; `reason` says why and `fix` what would help."""

    def __init__(self, provider: str, reason: str, fix: str) -> None:
        super().__init__(f"{provider} cannot run here: {reason}; {fix}")
        self.provider, self.reason, self.fix = provider, reason, fix


class ProviderFallbackError(GateError):
    """A provider runs here, but ONNX Runtime gave some of the nodes to another one."""


def check_single_runtime() -> None:
    """Make sure that only one wheel owns the `onnxruntime` folder: the last one installed overwrites the others.

    Raises:
        InputError: several are installed; they are named.
    """
    names = {distribution.name.lower().replace("_", "-") for distribution in metadata.distributions()}
    found = sorted(names.intersection(RUNTIME_WHEELS))
    if len(found) > 1:
        raise InputError(
            f"{' and '.join(found)} are installed together and overwrite each other's files; "
            f"`pip uninstall {' '.join(found)}`, then install one of them"
        )


def load_provider_libraries(provider: str) -> None:
    """Make the CUDA libraries that came with torch or as wheels known to the loader, before a session wants them."""
    if DEVICES[provider] == "cpu":
        return
    import onnxruntime
    import torch  # noqa: F401 - its import loads the CUDA libraries that it brings

    with contextlib.redirect_stdout(io.StringIO()):  # it prints what it misses; the session's own error names it, too
        onnxruntime.preload_dlls()


def open_session(
    model: bytes | Path, provider: str = CPU, threads: int = 0, spinning: bool = True
) -> "onnxruntime.InferenceSession":
    """Open a session in which one provider runs every node.

    `threads` 0 leaves their number to ONNX Runtime; `spinning` lets idle threads wait busily.

    Raises:
        ProviderUnavailableError: the provider cannot run on this machine.
        ProviderFallbackError: ONNX Runtime placed nodes elsewhere; some of them are named.
    """
    import onnxruntime

    source = str(model) if isinstance(model, Path) else model
    if provider not in onnxruntime.get_available_providers():
        raise ProviderUnavailableError(provider, "this onnxruntime was built without it", "install onnxruntime-gpu")
    if provider == CPU:
        return onnxruntime.InferenceSession(source, session_options(threads, spinning), providers=[CPU])
    load_provider_libraries(provider)
    with native_stderr() as messages:
        session, refusal = _open_without_fallback(source, provider, threads, spinning)
    if provider not in session.get_providers():
        raise ProviderUnavailableError(provider, *diagnose("".join(messages)))
    check_assignment(session, provider)
    if refusal:
        raise ProviderFallbackError(f"{provider}: {_first_line(refusal)}")
    return session


def _open_without_fallback(
    source: str | bytes, provider: str, threads: int, spinning: bool
) -> tuple["onnxruntime.InferenceSession", Exception | None]:
    """Open a session that may not use the CPU; if that is refused, also one that may, to find out what it would do."""
    import onnxruntime

    options = session_options(threads, spinning)
    options.add_session_config_entry("session.disable_cpu_ep_fallback", "1")
    try:
        return onnxruntime.InferenceSession(source, options, providers=[provider]), None
    except Exception as refusal:
        options = session_options(threads, spinning)
        return onnxruntime.InferenceSession(source, options, providers=[provider]), refusal


def session_options(threads: int, spinning: bool) -> "onnxruntime.SessionOptions":
    """Return options that record which provider each node is given to."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.add_session_config_entry("session.intra_op.allow_spinning", "1" if spinning else "0")
    options.add_session_config_entry("session.record_ep_graph_assignment_info", "1")
    options.log_severity_level = 3  # its warnings on shape nodes are answered by check_assignment
    return options


def check_assignment(session: "onnxruntime.InferenceSession", provider: str) -> None:
    """Read back which provider each node was given to.

    Raises:
        ProviderFallbackError: not every node runs on the one asked for.
    """
    parts = session.get_provider_graph_assignment_info()
    elsewhere = [(node, part.ep_name) for part in parts for node in part.get_nodes() if part.ep_name != provider]
    total = sum(len(part.get_nodes()) for part in parts)
    if elsewhere or not total:
        shown = ", ".join(f"{node.op_type} on {name}" for node, name in elsewhere[:SHOWN_NODES])
        raise ProviderFallbackError(
            f"{provider} runs {total - len(elsewhere)} of {total} nodes ({shown or 'none was assigned'}); "
            "expected all: a partial run is not this provider's figure"
        )


def diagnose(messages: str) -> tuple[str, str]:
    """Return the cause why a provider could not start and the fix, from what ONNX Runtime wrote to stderr."""
    for pattern, reason, fix in CAUSES:
        if found := re.search(pattern, messages):
            return reason.format(*found.groups()), fix
    return (
        _first_line(messages) or "onnxruntime did not start it and gave no reason",
        "see the execution provider's requirements in ONNX Runtime's documentation",
    )


@contextlib.contextmanager
def native_stderr() -> Iterator[list[str]]:
    """Catch what native code and Python write to stdout's and stderr's place meanwhile; yields a list to read after."""
    messages: list[str] = []
    printed = io.StringIO()
    sys.stderr.flush()
    saved = os.dup(2)
    with tempfile.TemporaryFile() as caught:
        os.dup2(caught.fileno(), 2)
        try:
            with contextlib.redirect_stdout(printed), contextlib.redirect_stderr(printed):
                yield messages
        finally:
            os.dup2(saved, 2)
            os.close(saved)
            caught.seek(0)
            messages += [caught.read().decode(errors="replace"), printed.getvalue()]


def _first_line(text: object) -> str:
    return next((line.strip() for line in str(text).splitlines() if line.strip()), "")
