"""A run whose W&B server is out of reach, refuses it or goes away: it finishes, and its log is kept."""

import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from tiny_run import TINY, results

pytestmark = pytest.mark.slow

FIT = [sys.executable, "-m", "tinv", "fit", *TINY, "--wandb=online", "--run_dir=run"]


def fit(monkeypatch, *options: str, **variables: str) -> list[str]:
    """Runs a fit and returns what it warns of."""
    for name, value in {"WANDB_API_KEY": "local-" + "0123456789" * 4, "WANDB_MODE": "online", **variables}.items():
        monkeypatch.setenv(name, value)
    done = subprocess.run([*FIT, *options], capture_output=True, text=True, timeout=120, stdin=subprocess.DEVNULL)
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
    assert results(Path("run"))["status"] == "finished"
    return [line for line in done.stderr.splitlines() if "warning" in line.lower()]


class Refuses(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.send_response(401)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def refusing():
    server = ThreadingHTTPServer(("127.0.0.1", 0), Refuses)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()


def check_kept_offline(warnings: list[str], reason: str) -> None:
    [line] = warnings
    assert reason in line
    kept = Path(line.rpartition("wandb sync ")[2])
    assert kept.name.startswith("offline-run-")
    assert list(kept.glob("*.wandb"))


def test_no_server(monkeypatch):
    url = "http://127.0.0.1:9"
    check_kept_offline(fit(monkeypatch, WANDB_BASE_URL=url, WANDB_INIT_TIMEOUT="2"), "W&B takes no run")


def test_a_limit_that_is_no_number(monkeypatch):
    monkeypatch.setenv("WANDB_INIT_TIMEOUT", "soon")
    done = subprocess.run([*FIT, "--wandb=offline"], capture_output=True, text=True, timeout=120)
    assert done.returncode == 2
    assert "environment variable WANDB_INIT_TIMEOUT='soon' is no number of seconds; unset it" in done.stderr


def test_a_malformed_address(monkeypatch):
    check_kept_offline(fit(monkeypatch, WANDB_BASE_URL="htp:/x"), "WANDB_BASE_URL=htp:/x is no address")


def test_a_key_that_is_refused(monkeypatch, refusing):
    check_kept_offline(fit(monkeypatch, WANDB_BASE_URL=refusing), "W&B takes no run")


SERVER = """
import sys, time
sys.path.insert(0, {folder!r})
from wandb_server import WandbServer
print(WandbServer().url, flush=True)
time.sleep(300)
"""

ENDS_SERVER = """
import os, signal
from lightning.pytorch.callbacks import Callback

class EndsServer(Callback):
    def on_train_epoch_end(self, trainer, *_):
        if trainer.current_epoch == 1:
            os.kill(int(os.environ["SERVER"]), signal.SIGKILL)
"""


def test_a_server_that_goes_away(monkeypatch):
    Path("ending.py").write_text(ENDS_SERVER)
    code = SERVER.format(folder=str(Path(__file__).parent.parent))
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as server:
        url = server.stdout.readline().strip()
        variables = {
            "SERVER": str(server.pid),
            "WANDB_BASE_URL": url,
            "WANDB_FINISH_TIMEOUT": "3",
            "PYTHONPATH": str(Path().resolve()),
        }
        [line] = fit(monkeypatch, "--trainer.callbacks+=ending.EndsServer", **variables)
    assert "W&B has not received the whole log" in line
    kept = Path(line.rpartition("wandb sync ")[2])
    assert list(kept.glob("*.wandb"))
