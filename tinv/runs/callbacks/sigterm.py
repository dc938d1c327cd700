"""How a run is stopped and resumed: signals to one process of a distributed run end all of them."""

from __future__ import annotations

import os
import signal
import socket
import sys
import threading

from lightning.pytorch import Callback, LightningModule, Trainer

from tinv.runs.folder import RunFolder


class DistributedSigterm(Callback):
    """Ends all processes of a distributed run at once on SIGTERM, whether one of them gets it or, as under Slurm, all.

    Lightning would send a message from one process to the others, which waits for ever when those are in the middle of
    a reduction or gone. The state to resume from is on disk already: that of the epoch's beginning.
    """

    def __init__(self, folder: RunFolder) -> None:
        self.folder = folder

    def _listen(self, trainer: Trainer) -> None:
        if trainer.world_size < 2 or threading.current_thread() is not threading.main_thread():
            return
        # a handler of Python's waits for the interpreter, which a reduction can hold up for ever: a thread listens too
        reading, writing = socket.socketpair()
        writing.setblocking(False)
        signal.signal(signal.SIGTERM, lambda *_: None)
        signal.set_wakeup_fd(writing.fileno(), warn_on_full_buffer=False)
        self.keep = writing
        threading.Thread(target=self._wait, args=(trainer, reading), daemon=True).start()

    def _wait(self, trainer: Trainer, reading: socket.socket) -> None:
        while signal.SIGTERM not in reading.recv(1):
            pass
        for process in getattr(trainer.strategy.launcher, "procs", []):
            process.terminate()
        if trainer.is_global_zero:
            print(stopped_by("SIGTERM", self.folder), file=sys.stderr, flush=True)
        # the interpreter's own end would wait for the other processes
        os._exit(128 + signal.SIGTERM)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Listens."""
        self._listen(trainer)

    def on_test_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Listens again: Lightning has put its own handlers back in place."""
        self._listen(trainer)


def stopped_by(name: str, folder: RunFolder) -> str:
    """Returns the line that says how to resume a stopped run."""
    return f"tinv: stopped by {name}{resume_hint(folder)}"


def resume_hint(folder: RunFolder) -> str:
    """Returns how to resume a run; empty where there is no checkpoint yet."""
    return f"; resume with: --run_dir {folder.path} --ckpt_path last" if folder.last.exists() else ""


def end_processes(trainer: Trainer) -> None:
    """Ends the other processes of a distributed run, which would wait for this one without end."""
    for process in getattr(trainer.strategy.launcher, "procs", []):
        process.terminate()
