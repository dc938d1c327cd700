"""The data sets of docs/how-to/add-a-data-set.md, in a module unknown to tinv and as one file in tinv/data."""

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from official_formats import write_image_folders

from tinv.cli import main

ROOT = Path(__file__).parent.parent.parent
TEXT = (ROOT / "docs/how-to/add-a-data-set.md").read_text()
CODE = dict(re.findall(r"<!-- (\w+)\.py -->\n```python\n(.*?)```", TEXT, re.DOTALL))
CONFIG = """
experiment: toy
trainer: {max_epochs: 1}
model:
  class_path: tinv.tasks.Classification
  init_args:
    backbone: resnet10t
    source: timm
data:
  class_path: %s
  init_args: %s
"""
TOYS = {
    "stripes": ("Stripes", {"num_images": 36, "batch_size": 6, "canvas_size": 32}, (1, 32, 32)),
    "flowers": ("Flowers", {"size": 32, "batch_size": 3, "num_workers": 0, "test_resolution": 40}, (3, 32, 32)),
}


@pytest.fixture(autouse=True)
def flowers():
    write_image_folders(Path("flowers"))


def fit(class_path: str, options: dict, run_dir: str) -> list[str]:
    Path("toy.yaml").write_text(CONFIG % (class_path, json.dumps(options)))
    return ["fit", "--config=toy.yaml", f"--run_dir={run_dir}"]


@pytest.mark.parametrize("name", TOYS)
def test_in_a_file_of_your_own(name, monkeypatch):
    class_name, options, shape = TOYS[name]
    Path(f"{name}.py").write_text(CODE[name])
    assert len(CODE[name].splitlines()) <= 25
    monkeypatch.syspath_prepend(str(Path().resolve()))
    assert main(fit(f"{name}.{class_name}", options, "run")) == 0
    results = json.loads(Path("run/results.json").read_text())
    assert results["metrics"]["test/acc"] >= 0
    data = getattr(sys.modules.pop(name), class_name)(**options)
    assert (data.num_classes, data.input_shape) == (3 if name == "flowers" else 2, shape)


@pytest.mark.slow
def test_as_one_file_and_one_line_here():
    """A copy of tinv with the two files and a line for each lists them, checks their options and trains on them."""
    for folder in ("tinv", "configs", "sweeps"):
        shutil.copytree(ROOT / folder, Path("copy") / folder, ignore=shutil.ignore_patterns("__pycache__"))
    with Path("copy/tinv/data/__init__.py").open("a") as file:
        for name, (class_name, _, _) in TOYS.items():
            Path(f"copy/tinv/data/{name}.py").write_text(CODE[name])
            file.write(f"from tinv.data.{name} import {class_name}  # noqa: F401\n")
    mistyped = ["fit", "--config=configs/rook.yaml", "--data.class_path=tinv.data.Stripes", "--data.num_image=3"]
    words = [["list", "data"], mistyped, fit("tinv.data.Stripes", TOYS["stripes"][1], "run")]
    code = f"import sys; sys.path.insert(0, 'copy')\nfrom tinv.cli import main\nfor w in {words}: print('->', main(w))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert re.findall(r"-> (\d)", done.stdout) == ["0", "2", "0"], done.stderr
    listed = " ".join(done.stdout.split())
    assert "Stripes Gray 16x16 images of one stripe" in listed
    assert "Flowers Photographs of flowers" in listed
    assert not re.search(r"Foreign|InvarianceDataModule|\w+Data ", listed)
    assert "unknown option --data.num_image; did you mean --data.num_images" in done.stderr
    assert Path("run/results.json").exists()
