"""How the processes of a distributed run part at its end."""

from __future__ import annotations

import atexit

import torch.distributed
from lightning.pytorch import Callback, LightningModule, Trainer


class LeaveProcessGroup(Callback):
    """Leaves the process group before the interpreter ends, in every process of a distributed run.

    Lightning does so for NCCL alone. A process that ends while gloo's threads still run is aborted now and then
    ("terminate called without an active exception", SIGABRT) after its work is done. The run then counts as failed, and
    torchrun on another node waits five minutes for this one.
    """

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Registers what happens at the end of this process."""
        if trainer.world_size > 1:
            atexit.unregister(leave_process_group)  # once, however many stages there are
            atexit.register(leave_process_group)


def leave_process_group() -> None:
    """Leaves the process group of this process, if there is one."""
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()
