"""Work on one set that several processes of accelerate share: who does what, and how all get the whole."""

from typing import TYPE_CHECKING

import numpy as np
import torch

from stages import ranks

if TYPE_CHECKING:
    from accelerate import PartialState

BLOCK = 1 << 24  # values that are exchanged at once: 64 MiB


def processes() -> "PartialState":
    """Return accelerate's view of this process among its peers, and the device that it should use.

    Whatever needs the device asks here: accelerate settles on first use, and by itself on one process without a GPU.
    """
    from accelerate import PartialState

    count = ranks.world_size() if ranks.is_rank() else 1
    state = PartialState(cpu=count > 1 and not torch.cuda.is_available())
    if state.num_processes != count:
        raise RuntimeError(f"accelerate was set up for {state.num_processes} processes, but WORLD_SIZE is {count}")
    return state


def is_mine(number: int) -> bool:
    """Tell whether this process does the part of this number; parts go round."""
    state = processes()
    return bool(number % state.num_processes == state.process_index)


def is_first() -> bool:
    """Tell whether this process is the one that writes files."""
    return bool(processes().is_main_process)


def all_agree(value: bool) -> bool:
    """Tell whether all processes say yes, so that they all take the same way."""
    return _total(torch.tensor([float(value)])).item() == processes().num_processes


def wait() -> None:
    """Return when all processes have come here."""
    processes().wait_for_everyone()


def add_up(rows: np.ndarray) -> None:
    """Fill in, in place, the rows of the other processes, which are zero here; float32, any shape."""
    if processes().num_processes == 1:
        return
    flat = torch.from_numpy(rows).view(-1)
    for start in range(0, len(flat), BLOCK):
        flat[start : start + BLOCK] = _total(flat[start : start + BLOCK])


def _total(values: torch.Tensor) -> torch.Tensor:
    from accelerate.utils import reduce

    state = processes()
    if state.num_processes == 1:
        return values
    found: torch.Tensor = reduce(values.to(state.device), reduction="sum").cpu()
    return found
