"""How checkpoints reach the disk: whole, or not at all."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import torch
from lightning.fabric.plugins.io.torch_io import TorchCheckpointIO

from tinv.files import write_bytes_atomically
from tinv.runs.folder import RunFolder


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
