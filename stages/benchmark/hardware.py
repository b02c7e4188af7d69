"""The machine and the software of a figure: only figures of equal hardware are compared."""

import os
import platform
import shutil
import subprocess
from importlib import metadata
from pathlib import Path
from typing import Any

import psutil

from stages.benchmark.contestants import Policy

GIBIBYTE = 1 << 30
QUERY_SECONDS = 10
VERSIONED = ("torch", "onnxruntime", "onnxruntime-gpu", "onnx", "numpy")


def describe_hardware() -> dict[str, Any]:
    """Return what makes figures comparable: CPU, cores, memory in GiB, GPU with driver and CUDA, operating system."""
    return {
        "cpu": cpu_model(),
        "cores": psutil.cpu_count(logical=False),
        "logical_cores": psutil.cpu_count(),
        "memory_gib": round(psutil.virtual_memory().total / GIBIBYTE),
        "gpu": describe_gpu(),
        "os": f"{platform.system()} {platform.machine()}",
    }


def cpu_model() -> str:
    """Return the processor's name as the system knows it."""
    table = Path("/proc/cpuinfo")
    if table.exists():
        for line in table.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def describe_gpu() -> dict[str, Any] | None:
    """Return the first GPU's name, memory in GiB, driver and CUDA version; None where torch sees none."""
    import torch

    if not torch.cuda.is_available():
        return None
    properties = torch.cuda.get_device_properties(0)
    return {
        "name": properties.name,
        "memory_gib": round(properties.total_memory / GIBIBYTE),
        "driver": driver_version(),
        "cuda": torch.version.cuda,
    }


def driver_version() -> str | None:
    """Return the NVIDIA driver's version as its own tool says; None without the tool."""
    tool = shutil.which("nvidia-smi")
    if tool is None:
        return None
    command = [tool, "--query-gpu=driver_version", "--format=csv,noheader"]
    answer = subprocess.run(command, capture_output=True, text=True, timeout=QUERY_SECONDS, check=False)
    return answer.stdout.splitlines()[0].strip() if answer.returncode == 0 and answer.stdout else None


def describe_environment(policy: Policy) -> dict[str, Any]:
    """Return what may differ between two runs on the same machine."""
    return {
        "threads": policy.threads,
        "onnxruntime_spinning": policy.spinning,
        "omp_wait_policy": os.environ.get("OMP_WAIT_POLICY"),
        "load_average": round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None,
        "kernel": platform.release(),
        "host_copies_timed": False,
    }


def describe_versions() -> dict[str, str]:
    """Return the versions of Python and of the packages that decide speed."""
    names = {d.name.lower().replace("_", "-"): d.version for d in metadata.distributions()}
    installed = {name: version for name, version in names.items() if name in VERSIONED}
    return {"python": platform.python_version(), **dict(sorted(installed.items()))}
