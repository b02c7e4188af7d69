"""What the processes of one training share: the batch, gradients, moments and the request to stop."""

from collections.abc import Iterable

import torch
from accelerate import Accelerator
from torch import Tensor, distributed, nn

from stages import ranks
from stages.errors import InputError


def open_accelerator(precision: str) -> Accelerator:
    """Return the accelerator of this process, connected to the other processes of the training where there are any.

    Raises:
        InputError: more processes than GPUs, or half precision without a GPU.
    """
    count, gpus = ranks.world_size(), torch.cuda.device_count()
    if gpus and count > gpus:
        raise InputError(f"WORLD_SIZE is {count}, but {gpus} GPUs are visible; expected one per process")
    accelerator = Accelerator(cpu=count > 1 and not gpus, mixed_precision={"fp32": "no"}.get(precision, precision))
    if precision == "fp16" and accelerator.device.type == "cpu":
        raise InputError("precision is fp16, which needs a GPU; use bf16 or fp32 here")
    return accelerator


class World:
    """The processes of one training; alone, nothing is exchanged."""

    def __init__(self, accelerator: Accelerator) -> None:
        self.accelerator = accelerator
        self.rank, self.size = accelerator.process_index, accelerator.num_processes

    @property
    def leads(self) -> bool:
        """Whether this process writes what all have made."""
        return self.rank == 0

    def share(self, batch: Tensor) -> Tensor:
        """Return this process's part of a whole batch, equal parts in the order of ranks."""
        return batch.chunk(self.size)[self.rank]

    def average(self, tensors: Iterable[Tensor]) -> None:
        """Replace tensors, in place, by their means over all processes, exchanged as one."""
        mine = [tensor for tensor in tensors if tensor.is_floating_point()]
        if self.size == 1 or not mine:
            return
        flat = torch.cat([tensor.reshape(-1) for tensor in mine])
        distributed.all_reduce(flat)
        flat /= self.size
        for tensor, mean in zip(mine, flat.split([tensor.numel() for tensor in mine]), strict=True):
            tensor.copy_(mean.view_as(tensor))

    def average_gradients(self, network: nn.Module) -> None:
        """Replace a network's gradients by their means over all processes."""
        self.average(parameter.grad for parameter in network.parameters() if parameter.grad is not None)

    def any(self, flag: bool) -> bool:
        """Return whether the flag is set in any process; all must ask at the same step."""
        if self.size == 1:
            return flag
        total = torch.tensor(float(flag), device=self.accelerator.device)
        distributed.all_reduce(total)
        return bool(total > 0)

    def wait(self) -> None:
        """Wait until every process has come here."""
        self.accelerator.wait_for_everyone()

    def close(self) -> None:
        """Leave the group of processes."""
        self.accelerator.end_training()
