"""Runs a server and a client as two processes over TCP, as a user would, and collects their traces."""

from __future__ import annotations

import dataclasses
import json
import os
import pathlib
import subprocess
import sys
import tempfile
import time

import numpy as np
from jaxtyping import Int, Integer

from pqjax import load_model, plan, reference
from pqjax.errors import PqjaxError, WireError
from pqjax.planner import Plan
from pqjax.wire.link import Link

INFERENCES = 100  # of a client that comes back, for which plans are made
_START_S = 120.0


@dataclasses.dataclass(frozen=True)
class Run:
    """One session of several inferences, seen from both sides.

    Attributes:
      outputs: the client's answers (n, ...).
      server, client: the reports that the command line wrote.
      server_start: seconds from starting the server process until it listened.
      hint_seconds: of making, once, what every client gets, before the server was started.
      differing: answers that are not the integer reference's; none unless the plan is inexact.
    """

    outputs: Int[np.ndarray, "n ..."]
    server: dict
    client: dict
    server_start: float
    hint_seconds: float
    differing: int = 0

    @property
    def joined_seconds(self) -> float:
        """Seconds from dialling to a new client's first answer."""
        seconds, times = self.client["seconds"], self.each[0]
        return seconds["connect"] + seconds["install"] + times["offline"] + times["online"]

    @property
    def each(self) -> list[dict]:
        """Seconds of offline and online phase, per inference, at the client."""
        return self.client["seconds"]["each"]


def run_two_processes(
    model: pathlib.Path,
    protocol: str,
    inputs: Integer[np.ndarray, "n ..."],
    link: Link | None = None,
    cache: pathlib.Path | None = None,
    batch: int = 1,
) -> Run:
    """Serves `model` in one process and asks about `inputs` (n, ...) from another, a new client.

    Args:
      model: network file.
      protocol: preset.
      inputs: integers.
      link: network to emulate.
      cache: keep compiled kernels here instead of the user's cache.
      batch: how many inputs an inference answers.
    """
    command = [sys.executable, "-m", "pqjax.cli"]
    root = str(pathlib.Path(__file__).parents[1])
    path = os.pathsep.join([root, *filter(None, [os.environ.get("PYTHONPATH")])])
    environment = {**os.environ, "PYTHONPATH": path}
    if cache is not None:
        environment["XDG_CACHE_HOME"] = str(cache)
    with tempfile.TemporaryDirectory() as folder:
        place = pathlib.Path(folder)
        np.save(place / "inputs.npy", inputs)
        pipe = subprocess.PIPE
        planned = ["--protocol", protocol, "--inferences", str(INFERENCES), "--batch", str(batch)]
        planned += ["--hints", str(place / "served")]
        begin = time.perf_counter()
        hinting = [*command, "hint", str(model), *planned]
        hinted = subprocess.run(hinting, capture_output=True, text=True, env=environment)
        if hinted.returncode:
            raise WireError(f"no hints: {hinted.stderr.strip()}")
        hint_seconds = time.perf_counter() - begin
        begin = time.perf_counter()
        serving = [*command, "serve", str(model), *planned, "--listen", "127.0.0.1:0"]
        serving += ["--sessions", "1", "--trace", str(place / "server.json")]
        server = subprocess.Popen(serving, stdout=pipe, stderr=pipe, text=True, env=environment)
        try:
            assert server.stdout is not None
            address = server.stdout.readline().strip().removeprefix("listening on ")
            started = time.perf_counter() - begin
            if not address:
                raise WireError(f"the server did not start: {server.communicate()[1].strip()}")
            asked = [*command, "infer", address, str(place / "inputs.npy")]
            asked += ["--trace", str(place / "client.json"), "--hints", str(place / "kept")]
            if link is not None:
                asked += ["--link", str(link)]
            client = subprocess.run(asked, capture_output=True, text=True, env=environment)
            if client.returncode:  # the server may wait for another client
                server.kill()
            said = server.communicate(timeout=_START_S)[1]
        finally:
            server.kill()
            server.wait()
        if client.returncode or server.returncode:
            raise WireError(f"client: {client.stderr.strip()}\nserver: {said.strip()}")
        reports = {
            side: json.loads((place / f"{side}.json").read_text()) for side in ("server", "client")
        }
    outputs = np.array(reports["client"]["outputs"])
    return Run(outputs, reports["server"], reports["client"], started, hint_seconds)


def differences(made: Plan, run: Run) -> list[str]:
    """Where either party's measured bits or flows depart from the plan; empty if nowhere."""
    for side in (run.server, run.client):
        if side["digest"] != made.digest.hex():
            return [f"rank {side['rank']} ran another plan"]
    return run.server["differences"] + run.client["differences"]


def checked(
    path: pathlib.Path,
    protocol: str,
    inputs: Integer[np.ndarray, "n ..."],
    link: Link | None = None,
    batch: int = 1,
) -> tuple[Plan, Run]:
    """A session of several inferences, every answer and every layer's bits and flows checked.

    Answers of an inexact plan are counted where they differ.

    Raises:
      PqjaxError: an answer of an exact plan is not the reference's, or a layer is not as predicted.
    """
    graph, weights, meta = load_model(path)
    made = plan(
        graph, protocol, inferences=INFERENCES, batch=batch, classes=meta.get("classes"),
        shorter=meta.get("shorter"),
    )  # fmt: skip
    got = run_two_processes(path, protocol, inputs, link, batch=batch)
    wrong = got.outputs != reference(graph, weights, inputs)
    got = dataclasses.replace(got, differing=int(wrong.reshape(len(inputs), -1).any(1).sum()))
    if made.preset.exact and got.differing:
        raise PqjaxError(f"{path.stem}, {protocol}: an answer differs from the integer reference")
    found = differences(made, got)
    if found:
        raise PqjaxError(f"{path.stem}, {protocol}: not as predicted: {found[0]}")
    return made, got


def phase_bytes(run: Run, phase: str) -> int:
    """Serialized bytes of the first inference's phase, both directions, frame headers included."""
    first = [e for e in run.client["trace"] if e["inference"] == 0 and e["phase"] == phase]
    return sum(e["sent_bytes"] + e["received_bytes"] for e in first)
