"""The process group is left before the interpreter ends."""

import subprocess
import sys

import pytest

SCRIPT = """
import atexit
from types import SimpleNamespace
import torch.distributed as dist
from tinv.runs.callbacks.process_group import LeaveProcessGroup

dist.init_process_group("gloo", rank=0, world_size=1, store=dist.HashStore())
atexit.register(lambda: print("in a group" if dist.is_initialized() else "left"))  # runs after what is registered later
callback = LeaveProcessGroup()
for stage in ("fit", "test"):
    callback.setup(SimpleNamespace(world_size={processes}), None, stage)
print("trained" if dist.is_initialized() else "left too early")
"""


@pytest.mark.parametrize(("processes", "said"), [(2, ["trained", "left"]), (1, ["trained", "in a group"])])
def test_a_process_of_several_leaves_its_group_before_it_ends(processes, said):
    script = SCRIPT.replace("{processes}", str(processes))
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stdout.split("\n")[:-1]) == (0, said), done.stderr
