"""Output that may get lost: a closed terminal or a dead reader must not cost a training its state."""

import errno
import io
import os
import sys
from typing import Any

LOST = (errno.EIO, errno.EPIPE)  # the terminal was closed; the process that read the pipe has ended


class LossyFile(io.FileIO):
    """A file descriptor that goes on to nowhere once nobody is there to read it."""

    def write(self, data: Any) -> int:
        """Write bytes and return how many were taken: all, where the reader is gone."""
        try:
            return super().write(data)
        except OSError as error:
            if error.errno not in LOST:
                raise
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, self.fileno())
            os.close(nowhere)
            return memoryview(data).nbytes


def survive_lost_output() -> None:
    """Let standard output and error of this process outlive whoever reads them."""
    sys.stdout = _lossy(sys.stdout)
    sys.stderr = _lossy(sys.stderr)


def _lossy(stream: Any) -> Any:
    """Return a stream over the same descriptor that survives its loss; one without a descriptor stays as it is."""
    try:
        descriptor = stream.fileno()
    except (OSError, AttributeError, ValueError):
        return stream
    stream.flush()
    binary = io.BufferedWriter(LossyFile(descriptor, "w", closefd=False))
    interactive = stream.isatty() or stream is sys.stderr
    return io.TextIOWrapper(
        binary, stream.encoding, stream.errors, line_buffering=interactive, write_through=interactive
    )
