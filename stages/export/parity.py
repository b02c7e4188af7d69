"""Whether a file draws the pictures that torch draws."""

import numpy as np

from stages.errors import GateError
from stages.generators.interface import TorchGenerator
from stages.generators.onnx_session import open_session

BATCHES = (1, 2, 5)  # 1 and a batch larger than the traced one show a batch that was fixed in silence


def measure(generator: TorchGenerator, data: bytes, tolerance: float) -> dict[str, float]:
    """Return the largest absolute difference of pictures in [-1, 1] for each batch size.

    Raises:
        GateError: the file cannot run a batch, or a difference is above the tolerance; where and how much.
    """
    try:
        session = open_session(data, threads=1)
    except Exception as error:
        raise GateError(f"onnxruntime cannot open the exported graph: {' '.join(str(error).split())}") from error
    found = {}
    for batch in BATCHES:
        inputs = generator.export_inputs(batch)
        try:
            drawn = session.run(None, inputs)[0]
        except Exception as error:
            line = " ".join(str(error).split())
            raise GateError(f"the exported graph cannot run a batch of {batch}: {line}") from error
        found[str(batch)] = compare(draw_with_torch(generator, inputs), drawn, batch, tolerance)
    return found


def draw_with_torch(generator: TorchGenerator, inputs: dict[str, np.ndarray]) -> np.ndarray:
    """Run the network itself on named inputs; float32, shape (N, C, H, W)."""
    import torch

    with torch.inference_mode():
        drawn: np.ndarray = generator.network(*(torch.from_numpy(value) for value in inputs.values())).numpy()
    return drawn


def compare(expected: np.ndarray, drawn: np.ndarray, batch: int, tolerance: float) -> float:
    """Return the largest absolute difference.

    Raises:
        GateError: shapes differ, values are not finite, or the difference is above the tolerance.
    """
    if drawn.shape != expected.shape:
        raise GateError(f"at batch {batch} the exported graph gives shape {drawn.shape}; torch gives {expected.shape}")
    difference = np.abs(drawn.astype(np.float64) - expected)
    if not np.isfinite(difference).all():
        raise GateError(f"at batch {batch} pictures hold values that are not finite; the weights may be damaged")
    largest = float(difference.max())
    if largest > tolerance:
        picture, channel, row, column = (int(i) for i in np.unravel_index(difference.argmax(), difference.shape))
        raise GateError(
            f"at batch {batch} the exported graph differs from torch by {largest:.3e} in picture {picture}, channel "
            f"{channel}, row {row}, column {column}; export.tolerance allows {tolerance:.3e}"
        )
    return largest
