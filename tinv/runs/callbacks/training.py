"""What guards training: one random state an epoch, losses and weights that are finite, gradients that are right."""

from __future__ import annotations

from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer

from tinv.errors import TinvError
from tinv.runs.folder import RunFolder


class SeedEachEpoch(Callback):
    """Sets torch's random state from the run's seed and the epoch, so that a resumed run draws what it would have.

    Args:
        seed: Seed of the run.
    """

    def __init__(self, seed: int) -> None:
        self.seed = seed

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Seeds; ranks draw different numbers."""
        torch.manual_seed(hash((self.seed, trainer.current_epoch, trainer.global_rank)) % 2**63)


class StopOnNaN(Callback):
    """Ends training when the loss is no longer finite, before anything of it reaches a checkpoint.

    On a CPU every step is looked at. On other devices, where looking means waiting, every 50th and an epoch's last.
    """

    def __init__(self, folder: RunFolder) -> None:
        self.folder = folder
        self.losses: list[torch.Tensor] = []

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Looks at the losses since the last look."""
        self.losses.append(outputs["loss"].detach())
        if self.losses[0].device.type == "cpu" or len(self.losses) == 50 or trainer.is_last_batch:
            bad = (~torch.isfinite(torch.stack(self.losses))).nonzero()
            if len(bad):
                number = batch_idx + 2 - len(self.losses) + int(bad[0])
                kept = [str(path) for path in (self.folder.best, self.folder.last) if path.exists()]
                raise TinvError(
                    f"the loss is {float(self.losses[int(bad[0])])} at batch {number} "
                    f"of epoch {trainer.current_epoch + 1}; "
                    f"lower the learning rate (model.init_args.optimizer.init_args.lr). Checkpoints from before it: "
                    f"{', '.join(kept) or 'none'}"
                )
            self.losses.clear()

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Looks at the weights that the epoch ends with, which its last step may have spoiled."""
        bad = next((name for name, p in pl_module.named_parameters() if not torch.isfinite(p).all()), None)
        if bad is not None:
            raise TinvError(
                f"the weights {bad} are no longer finite after epoch {trainer.current_epoch + 1} under "
                f"trainer.precision={trainer.precision}; use another precision, a lower learning rate or, in float16, "
                "a larger eps of the optimizer"
            )


class CheckBf16Conv3d(Callback):
    """Refuses what torch computes wrongly: weights of 3D convolutions trained in bfloat16 on a CPU.

    Seen with torch 2.14.1 (oneDNN): where a map has two positions in time, gradients of 3x3x3 kernels are whatever the
    memory held; with one position the process is aborted. Forward passes are right.
    """

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Raises TinvError before the first step."""
        if trainer.strategy.root_device.type != "cpu" or not str(trainer.precision).startswith("bf16"):
            return
        for name, module in pl_module.named_modules():
            if isinstance(module, torch.nn.Conv3d) and module.weight.requires_grad:
                raise TinvError(
                    f"trainer.precision={trainer.precision}: on a CPU torch's bfloat16 gradients of 3D convolutions "
                    f"such as {name} are wrong; use --trainer.precision=32-true"
                )
