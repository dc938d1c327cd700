"""How checkpoints reach the disk, whole or not at all, and how they are read."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import torch
from lightning.fabric.plugins.io.torch_io import TorchCheckpointIO
from lightning.pytorch import LightningModule

from tinv.errors import TinvError
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


def load_weights(model: LightningModule, path: Path) -> dict[str, Any]:
    """Loads a checkpoint's weights into a built model and returns the rest of the checkpoint.

    Raises:
        TinvError: If the file is no checkpoint, or one of another network (which keys differ is said).
    """
    checkpoint = read_checkpoint(path)
    state, own = checkpoint["state_dict"], model.state_dict()
    shape = {key: tuple(value.shape) for key, value in own.items()}
    wrong = [
        *(f"{key} is missing" for key in own if key not in state),
        *(f"{key} is not in this network" for key in state if key not in own),
        *(
            f"{key} is {tuple(state[key].shape)}, here {shape[key]}"
            for key in own
            if key in state and tuple(state[key].shape) != shape[key]
        ),
    ]
    if wrong:
        more = f" and {len(wrong) - 3} more" if len(wrong) > 3 else ""
        raise TinvError(f"{path} is a checkpoint of another network: {'; '.join(wrong[:3])}{more}")
    model.load_state_dict(state)
    return checkpoint


def read_checkpoint(path: Path) -> dict[str, Any]:
    """Reads a checkpoint without running any code in it.

    Raises:
        TinvError: If it is not there or cannot be read as one.
    """
    if not path.is_file():
        raise TinvError(f"no checkpoint {path}; name a .ckpt file with --ckpt_path")
    try:
        checkpoint = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # damaged files raise many kinds of error
        reason = str(error).partition("\n")[0]
        raise TinvError(f"{path} cannot be read as a checkpoint ({type(error).__name__}: {reason})") from error
    if not isinstance(checkpoint, dict) or "state_dict" not in checkpoint:
        raise TinvError(f"{path} is not a checkpoint of a run: it holds no state_dict")
    return checkpoint
