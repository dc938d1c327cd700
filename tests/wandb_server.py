"""A stand-in for the API of Weights & Biases on this machine: just what `wandb sweep`, `wandb agent` and a run ask for.

Keeps the sweep's configuration, hands out the cells of its grid, and takes down what runs say of themselves.
"""

from __future__ import annotations

import gzip
import itertools
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import yaml

ENTITY, PROJECT = "somebody", "tinv"


class WandbServer:
    """Answers on http://127.0.0.1:PORT until it is closed.

    Attributes:
        sweeps: configurations by sweep id.
        runs: by run id, the configuration (`config`), the `summary`, and the exit code (`exit`) of every run.
        unknown: queries that were answered with nothing.
    """

    def __init__(self) -> None:
        self.sweeps: dict[str, dict[str, Any]] = {}
        self.runs: dict[str, dict[str, Any]] = {}
        self.unknown: list[str] = []
        self.cells: list[dict[str, Any]] = []
        server = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                body = self.body()
                try:
                    request = json.loads(body)
                except ValueError:
                    request = {}  # a file
                if self.path == "/graphql":
                    answer = {"data": server.graphql(request.get("query", ""), request.get("variables") or {})}
                elif self.path.endswith("/file_stream"):
                    answer = server.file_stream(self.path.split("/")[-2], request)
                else:
                    answer = {}
                self.reply(answer)

            def do_GET(self) -> None:
                self.reply({})

            def do_PUT(self) -> None:
                self.body()
                self.reply({})

            def body(self) -> bytes:
                if self.headers.get("Transfer-Encoding") == "chunked":
                    data = b""
                    while size := int(self.rfile.readline(), 16):
                        data += self.rfile.read(size)
                        self.rfile.readline()
                    self.rfile.readline()
                else:
                    data = self.rfile.read(int(self.headers.get("Content-Length", 0)))
                return gzip.decompress(data) if self.headers.get("Content-Encoding") == "gzip" else data

            def reply(self, answer: dict[str, Any]) -> None:
                data = json.dumps(answer).encode()
                self.send_response(200)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            def log_message(self, *_: Any) -> None:
                pass

        self._http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._http.server_address[1]}"
        threading.Thread(target=self._http.serve_forever, daemon=True).start()

    def environment(self) -> dict[str, str]:
        """Returns the variables that make the client talk to this server."""
        return {
            "WANDB_BASE_URL": self.url,
            "WANDB_API_KEY": "local-" + "0123456789" * 4,
            "WANDB_ENTITY": ENTITY,
            "WANDB_PROJECT": PROJECT,
            "WANDB_MODE": "online",
        }

    def close(self) -> None:
        self._http.shutdown()

    def file_stream(self, run: str, request: dict[str, Any]) -> dict[str, Any]:
        """Takes the files and the end of a run."""
        kept = self.runs.setdefault(run, {})
        for name, content in (request.get("files") or {}).items():
            if name == "wandb-summary.json":
                for line in content["content"]:
                    kept["summary"] = json.loads(line)
        if request.get("complete"):
            kept["exit"] = request.get("exitcode")
        return {}

    def graphql(self, query: str, variables: dict[str, Any]) -> dict[str, Any]:
        """Answers one query by the names of what it asks for."""
        if "upsertBucket" in query:
            return {"upsertBucket": self._bucket(variables)}
        if "upsertSweep" in query:
            return {"upsertSweep": self._new_sweep(variables)}
        if "createAgent" in query:
            return {"createAgent": {"agent": {"id": "agent-1"}}}
        if "agentHeartbeat" in query:
            return {"agentHeartbeat": {"agent": {"id": "agent-1"}, "commands": json.dumps(self._commands(variables))}}
        if "sweep(" in query:
            identity = str(variables.get("sweep") or variables.get("sweepName"))
            config = yaml.safe_dump(self.sweeps[identity])
            return {
                "project": {
                    "id": "p", "name": PROJECT, "entity": {"name": ENTITY},
                    "sweep": {
                        "id": identity, "name": identity, "state": "RUNNING", "runCount": 0, "bestLoss": None,
                        "config": config, "createdAt": "2026-01-01T00:00:00", "heartbeatAt": None, "updatedAt": None,
                        "earlyStopJobRunning": False, "controller": None, "scheduler": None, "method": "grid",
                        "description": None, "displayName": None, "priorRuns": {"edges": []},
                        "runs": {"edges": [], "pageInfo": {"hasNextPage": False, "endCursor": None}},
                    },
                }
            }  # fmt: skip
        if "createRunFiles" in query:
            return {"createRunFiles": {"runID": "r", "uploadHeaders": [], "files": []}}
        if "viewer" in query.lower():
            viewer = {
                "id": "v", "entity": ENTITY, "username": ENTITY, "admin": False, "flags": "{}", "email": "a@b.c",
                "teams": {"edges": []}, "apiKeys": {"edges": []},
            }  # fmt: skip
            return {"viewer": viewer, "serverInfo": {"cliVersionInfo": {}, "features": []}}
        self.unknown.append(query)
        return {}

    def _new_sweep(self, variables: dict[str, Any]) -> dict[str, Any]:
        config = yaml.safe_load(variables["config"])
        identity = f"sweep{len(self.sweeps)}"
        self.sweeps[identity] = config
        spaces = [[(key, v) for v in p.get("values", [p.get("value")])] for key, p in config["parameters"].items()]
        self.cells = [dict(cell) for cell in itertools.product(*spaces)]
        project = {"id": "p", "name": PROJECT, "entity": {"id": "e", "name": ENTITY}}
        return {"sweep": {"id": identity, "name": identity, "project": project}, "configValidationWarnings": []}

    def _commands(self, variables: dict[str, Any]) -> list[dict[str, Any]]:
        if any(json.loads(variables.get("runState") or "{}").values()):
            return []  # one after the other
        if not self.cells:
            return [{"type": "exit"}]
        cell = self.cells.pop(0)
        args = {key: {"value": value} for key, value in cell.items()}
        return [{"type": "run", "run_id": f"run{len(self.cells)}", "program": None, "args": args}]

    def _bucket(self, variables: dict[str, Any]) -> dict[str, Any]:
        name = variables.get("name") or variables.get("id")
        kept = self.runs.setdefault(str(name), {})
        if variables.get("config"):
            kept["config"] = json.loads(variables["config"])
        project = {"id": "p", "name": PROJECT, "entity": {"id": "e", "name": ENTITY}}
        bucket = {
            "id": name, "name": name, "displayName": variables.get("displayName"), "description": None, "config": "{}",
            "sweepName": variables.get("sweep"), "project": project, "historyLineCount": 0,
        }  # fmt: skip
        return {"bucket": bucket, "inserted": True}
