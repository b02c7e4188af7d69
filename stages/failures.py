"""Turns what libraries throw when a machine gives out (disk, memory, GPU) into one line with an exit code."""

import errno
import re

from stages.errors import ResourceError, StageError

# libraries report an exhausted machine by text alone: safetensors, numpy, torch, process pools, sqlite
DISK_FULL = ("no space left", "storagefull", "os error 28", " requested and ", "database or disk is full")
OUT_OF_MEMORY = ("out of memory", "can't allocate memory", "cannot allocate memory", "cublas_status_alloc_failed")
GPU_LOST = re.compile(
    r"gpu is lost|illegal memory access|unspecified launch failure|uncorrectable ecc|no cuda-capable device|nccl error|"
    r"cuda error: (unknown|driver|initialization|all cuda|device not ready)|cublas_status_(execution|internal)|"
    r"cudnn_status_(execution|internal)"
)
READ_ONLY = (errno.EROFS, errno.EACCES, errno.EPERM)
LESS_MEMORY = "lower `batch`, raise `accumulation`, set `checkpointing: true` or `precision: bf16` for this model"


def translate(error: BaseException) -> StageError | None:
    """Return the one-line reason where disk, memory or device gave out; None for a defect, which keeps its trace."""
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return ResourceError(f"the disk is full: {error.filename or 'free some space'}; what was finished is kept")
    if isinstance(error, OSError) and error.errno in READ_ONLY:
        return ResourceError(f"{error.filename or 'a file'} cannot be written: {error.strerror}")
    text = str(error).lower()
    if any(sign in text for sign in DISK_FULL):
        return ResourceError("the disk is full: free some space; what was finished is kept")
    if isinstance(error, MemoryError) or any(sign in text for sign in OUT_OF_MEMORY):
        return ResourceError(f"out of memory; {LESS_MEMORY}")
    if isinstance(error, RuntimeError) and GPU_LOST.search(text):
        first = " ".join(str(error).splitlines()[0].split())[:200]
        return ResourceError(f"the GPU gave out ({first}); see `nvidia-smi`, then run again: what was saved is kept")
    return None
