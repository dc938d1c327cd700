"""How checkpoints reach the disk, whole or not at all, and how they are read."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import torch
from lightning.fabric.plugins.io.torch_io import TorchCheckpointIO
from lightning.pytorch import LightningModule

from tinv.errors import TinvError
from tinv.models.weights import differences, read_torch_file, without_policies
from tinv.runs.folder import RunFolder
from tinv.utils.io import write_bytes_atomically


class AtomicCheckpoints(TorchCheckpointIO):
    """Writes each checkpoint beside its place and renames it, so that a full disk leaves the last whole one."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        """Writes a checkpoint.

        Raises:
            OSError: If the disk takes no more; what stood at the path before is untouched.
        """
        content = io.BytesIO()
        torch.save(checkpoint, content)
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        write_bytes_atomically(Path(path), content.getvalue())


def disk_message(error: OSError, folder: RunFolder) -> str:
    """Returns one line that says what is whole after a disk took no more, and how to resume."""
    reason = f"cannot write to {folder.path} ({error.strerror or error})"
    if not folder.last.exists():
        return f"{reason}; no checkpoint was written yet; free some space and start again"
    return f"{reason}; {folder.last} is whole; free some space and resume with --run_dir {folder.path} --ckpt_path last"


def load_weights(model: LightningModule, path: Path, resumes: bool = False) -> dict[str, Any]:
    """Loads a checkpoint's weights into a built model and returns the rest of the checkpoint.

    Args:
        model: The task, its network built.
        path: Path of the checkpoint.
        resumes: Whether training is resumed from it; if not, it may be of a network without policies that learn.

    Raises:
        TinvError: If the file is no checkpoint, or one of another network (which keys differ is said).
    """
    checkpoint = read_checkpoint(path)
    own, found = model.state_dict(), checkpoint["state_dict"]
    if not resumes:
        found = {**found, **without_policies(own, found, path)}
    if wrong := differences(own, found):
        raise TinvError(f"{path} is a checkpoint of another network: {wrong}")
    model.load_state_dict(found)
    return checkpoint


def read_checkpoint(path: Path) -> dict[str, Any]:
    """Reads a checkpoint without running any code in it.

    Raises:
        TinvError: If it is not there or cannot be read as one.
    """
    if not path.exists():
        raise TinvError(f"no checkpoint {path}; name a .ckpt file with --ckpt_path")
    checkpoint = read_torch_file(path, "a checkpoint")
    if not isinstance(checkpoint.get("state_dict"), dict):
        raise TinvError(f"{path} is not a checkpoint of a run: it holds no state_dict")
    return checkpoint


TRAINING_STATE = {
    **{"epoch": int, "global_step": int, "loops": dict, "callbacks": dict},
    **{"optimizer_states": list, "lr_schedulers": list},
}
"""What a checkpoint holds of training, and its types."""


def check_resumable(checkpoint: dict[str, Any], path: Path) -> None:
    """Checks that training can be resumed from a checkpoint.

    Raises:
        TinvError: If its state of training is missing or is not what it should be.
    """
    for key, kind in TRAINING_STATE.items():
        value = checkpoint.get(key)
        if not isinstance(value, kind) or (not value and key in ("loops", "callbacks", "optimizer_states")):
            raise TinvError(f"{path} holds no {key} to resume training from; begin again in another --run_dir")
