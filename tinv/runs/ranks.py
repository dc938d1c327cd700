"""Which process of a distributed run this is, and what the first one tells the others before torch connects them.

Three launchers are known by the variables they set: Lightning's own, which starts the other processes itself, torchrun,
and `srun` with several tasks.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

from tinv.errors import TinvError

Launcher = Literal["own", "torchrun", "srun"]
WAIT_S = 120.0
"""Seconds that processes wait for what the first one tells them."""
VARIABLES = (
    *("RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE"),
    *("SLURM_PROCID", "SLURM_LOCALID", "SLURM_NODEID", "SLURM_NTASKS", "SLURM_NNODES", "SLURM_JOB_NUM_NODES"),
)
"""Variables of the environment that launchers set to a number."""


def launcher() -> Launcher:
    """Returns what has started, or will start, the processes of a distributed run."""
    if "TORCHELASTIC_RUN_ID" in os.environ:
        return "torchrun"
    shell = os.environ.get("SLURM_JOB_NAME") in ("bash", "interactive")
    if _number("SLURM_NTASKS", 1) > 1 and "SLURM_STEP_ID" in os.environ and not shell:
        return "srun"
    return "own"


def rank() -> int:
    """Returns the number of this process among all of a distributed run, 0 for the first or only one."""
    names = {"torchrun": "RANK", "srun": "SLURM_PROCID", "own": "LOCAL_RANK"}
    return _number(names[launcher()], 0)


def ranks() -> int:
    """Returns how many processes the launcher has started; 1 where Lightning starts the others."""
    names = {"torchrun": "WORLD_SIZE", "srun": "SLURM_NTASKS"}
    return _number(names[launcher()], 1) if launcher() in names else 1


def check_variables() -> None:
    """Checks the variables of the environment in which launchers say how many processes there are.

    Lightning reads them while it is imported, so that this comes before.

    Raises:
        TinvError: For one that is no number.
    """
    for name in VARIABLES:
        if not os.environ.get(name, "0").isdecimal():
            raise TinvError(f"environment variable {name}={os.environ[name]!r} is no number; unset it")


def _number(name: str, default: int) -> int:
    text = os.environ.get(name, "")
    return int(text) if text.isdecimal() else default


def trainer_options(options: dict[str, Any]) -> dict[str, Any]:
    """Returns options of the Trainer that fit the processes that a launcher has started.

    Raises:
        TinvError: For numbers of devices or nodes that say something else.
    """
    if launcher() == "own" and "SLURM_NTASKS" in os.environ and "SLURM_STEP_ID" not in os.environ:
        # within an allocation, but not started by srun: Lightning would wait for tasks that nobody has started
        from lightning.fabric.plugins.environments.lightning import LightningEnvironment

        return {**options, "plugins": [*(options.get("plugins") or []), LightningEnvironment()]}
    if ranks() < 2:
        return options
    if launcher() == "torchrun":
        here = _number("LOCAL_WORLD_SIZE", ranks())
    else:
        here = max(1, ranks() // max(1, _number("SLURM_NNODES", _number("SLURM_JOB_NUM_NODES", 1))))
    wanted = {"devices": here, "num_nodes": ranks() // here}
    found = dict(options)
    for key, value in wanted.items():
        given = options.get(key)
        # Lightning's defaults say nothing of what was started
        if given not in (None, "auto", 1, "1", -1, "-1", value, str(value)):
            raise TinvError(f"trainer.{key}={given}, but {launcher()} has started {value}; leave the key out")
        found[key] = value
    if found.get("strategy") in (None, "auto"):
        found["strategy"] = "ddp"
    return found


def agreed(name: str, decide: Callable[[], str]) -> str:
    """Returns what the first process decides, in all processes.

    Args:
        name: Name of the decision.
        decide: Called in the first process alone.

    Raises:
        TinvError: What `decide` raises, in all processes; or if the first process says nothing in time.
    """
    if ranks() < 2:
        return decide()
    store = _TorchrunStore() if launcher() == "torchrun" else _FolderStore()
    if rank():
        decision = store.get(name)
        if decision.startswith("error:"):
            raise TinvError(decision.removeprefix("error:"))
        return decision
    try:
        decision = decide()
    except TinvError as error:
        store.set(name, f"error:{error}")
        raise
    store.set(name, decision)
    return decision


class _TorchrunStore:
    """The store that torchrun itself keeps for its processes."""

    def __init__(self) -> None:
        from datetime import timedelta

        from torch.distributed import TCPStore  # type: ignore[attr-defined]

        address, port = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
        # without a store of torchrun's own the first process would be the one that torch connects later
        self.owns = os.environ.get("TORCHELASTIC_USE_AGENT_STORE") != "True" and rank() == 0
        self.store = TCPStore(address, port, None, self.owns, timedelta(seconds=WAIT_S), wait_for_workers=False)
        self.prefix = f"tinv/{os.environ.get('TORCHELASTIC_RESTART_COUNT', 0)}/"

    def set(self, name: str, text: str) -> None:
        self.store.set(self.prefix + name, text)

    def get(self, name: str) -> str:
        try:
            return self.store.get(self.prefix + name).decode()
        except Exception as error:  # torch's own kinds differ between versions
            raise TinvError(
                f"the first process of this run has said nothing for {WAIT_S:.0f} s; see its output"
            ) from error


class _FolderStore:
    """Files in the folder that all tasks of an `srun` have been started in."""

    def __init__(self) -> None:
        restarts = os.environ.get("SLURM_RESTART_COUNT", "0")
        self.begin = f".tinv-{os.environ['SLURM_JOB_ID']}-{os.environ['SLURM_STEP_ID']}-{restarts}-"
        self.folder = Path(os.environ.get("SLURM_SUBMIT_DIR", "."))
        if not os.access(self.folder, os.W_OK):
            self.folder = Path()

    def set(self, name: str, text: str) -> None:
        temporary = self.folder / f"{self.begin}{name}.tmp"
        temporary.write_text(text)
        temporary.replace(self.folder / f"{self.begin}{name}")

    def get(self, name: str) -> str:
        path, end = self.folder / f"{self.begin}{name}", time.monotonic() + WAIT_S
        while not path.exists():
            if time.monotonic() > end:
                raise TinvError(f"the first task of this step has said nothing for {WAIT_S:.0f} s; see its output")
            time.sleep(0.1)
        return path.read_text()

    def remove(self, name: str) -> None:
        """Takes a decision away, once all processes know it."""
        (self.folder / f"{self.begin}{name}").unlink(missing_ok=True)


def forget(name: str) -> None:
    """Takes away what a decision has left on disk; called by the first process when all are connected."""
    if launcher() == "srun" and ranks() > 1 and rank() == 0:
        _FolderStore().remove(name)
