"""Processes killed or stopped in every phase: the other side says so in time, and on it goes."""

import contextlib
import json
import os
import pathlib
import signal
import subprocess
import sys
import time

import pytest
from proxy import CLIENT, SERVER, Proxy
from trial import (
    DEADLINE_S,
    IDLE_S,
    PATIENT_S,
    End,
    Trial,
    groups,
    in_process,
    judged,
    limit_of,
    still_serves,
)

from pqjax.wire.lobby import GREETING_S

HERE = pathlib.Path(__file__).parent
ROOT = HERE.parents[1]
LATER_S = 0.2  # for a signal sent from a thread to be in effect


class Asker:
    """The client's process, warm."""

    def __init__(self):
        paths = [str(ROOT), str(ROOT / "tests"), str(HERE)]
        self.process = subprocess.Popen(
            [sys.executable, str(HERE / "asker.py")], cwd=ROOT, text=True,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(paths)},
        )  # fmt: skip
        assert self.heard().what == "right answer"

    def ask(self, address, deadline_s):
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps({"address": address, "deadline_s": deadline_s}) + "\n")
        self.process.stdin.flush()

    def heard(self):
        """How it ended; as who was killed if it says nothing any more."""
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        return End(*json.loads(line)) if line else End("killed", at=0.0)

    def close(self):
        self.process.kill()
        self.process.communicate()


@contextlib.contextmanager
def asking():
    made = Asker()
    try:
        yield made
    finally:
        made.close()


def phases(frames, victim):
    """Every phase and layer, and the frame at which it is tried: the first that the victim gets there.

    If it gets none there, the first that it sends.
    """
    found = {}
    for name, of in groups(frames).items():
        gets = [known for known in of if known.place.sender != victim]
        if name != "goodbye/begin":
            found[name] = (gets or of)[0]
    return found


def tried(server, asker, do, known=None, client_s=PATIENT_S, within_s=10.0, then=None):
    """A trial in which `do` is done before a frame goes on, or when the client has connected."""

    def act(way, piece):
        do()
        time.sleep(LATER_S)
        return piece

    while server.ended(0.0):
        pass
    acts = {} if known is None else {known.place: act}
    with Proxy(server.address, acts, met=do if known is None else None) as proxy:
        asker.ask(proxy.address, client_s)
        if then is not None:
            return then(proxy)
        client = asker.heard()
        end = server.ended(within_s)
        return Trial(client, end, proxy.acted_at, tuple(proxy.seen))


def living(trial, side):
    """The same, but for the dead side, of which nothing is expected in time."""
    at = trial.acted_at or 0.0
    if side == SERVER:
        return trial._replace(client=trial.client._replace(at=at))
    return trial._replace(server=(trial.server or End("killed"))._replace(at=at))


@pytest.mark.slow
def test_a_client_that_is_killed_in_any_phase_ends_its_session_only(served, frames):
    problems = []
    for name, known in {"connect": None, **phases(frames, CLIENT)}.items():
        with asking() as asker:
            trial = tried(served, asker, asker.process.kill, known)
            group = "client killed (SIGKILL)"
            problems += judged(group, f"in {name}", living(trial, SERVER), {"killed"}, {"PeerGone"})
            still_serves(served)

    assert problems == []


@pytest.mark.slow
def test_a_client_that_is_stopped_in_any_phase_is_given_up_in_time(served, frames):
    problems = []
    with asking() as asker:
        pid = asker.process.pid
        for name, known in {"connect": None, **phases(frames, CLIENT)}.items():
            limit_s = GREETING_S if known is None else limit_of(known, SERVER)

            def then(proxy):
                end = served.ended(GREETING_S + 5.0)
                os.kill(pid, signal.SIGCONT)
                return Trial(asker.heard(), end, proxy.acted_at, tuple(proxy.seen))

            stop = lambda: os.kill(pid, signal.SIGSTOP)
            trial = tried(served, asker, stop, known, then=then)
            gone = {
                "PeerGone",
                "SessionEnded (slow)",
                "SessionEnded (idle)",
                "SessionEnded (refused)",
            }
            if name == "online/reveal":
                gone = {"right answer"}  # it has what it needs
            if trial.server is not None and "idle for" in trial.server.text:
                limit_s = max(limit_s, IDLE_S)  # it owes no more than its next command
            case, group = f"in {name}", "client stopped (SIGSTOP)"
            problems += judged(
                group, case, living(trial, SERVER), gone, {"DeadlineExceeded"}, limit_s
            )
            still_serves(served)

    assert problems == []


@pytest.mark.slow
def test_a_server_that_is_stopped_in_any_phase_is_given_up_in_time(served, frames):
    problems = []
    with asking() as asker:
        pid = served.process.pid
        for name, known in {"connect": None, **phases(frames, SERVER)}.items():

            def then(proxy):
                client = asker.heard()
                os.kill(pid, signal.SIGCONT)
                return Trial(client, served.ended(10.0), proxy.acted_at, tuple(proxy.seen))

            stop = lambda: os.kill(pid, signal.SIGSTOP)
            trial = tried(served, asker, stop, known, client_s=DEADLINE_S, then=then)
            # Told, or as it finds out that its own time is over when it goes on.
            gone, client = (
                {"SessionEnded (slow)", "PeerGone", "DeadlineExceeded"},
                "DeadlineExceeded",
            )
            if name == "online/reveal":  # the client has what it needs, and says so when asked
                gone, client = {"done"}, "right answer"
            group = "server stopped (SIGSTOP)"
            problems += judged(
                group, f"in {name}", living(trial, CLIENT), {client}, gone, DEADLINE_S
            )
            still_serves(served)

    assert problems == []


@pytest.mark.slow
def test_a_server_that_is_killed_in_any_phase_is_noticed_and_another_goes_on(frames, tmp_path):
    problems = []
    with asking() as asker:
        for name, known in {"connect": None, **phases(frames, SERVER)}.items():
            with in_process(tmp_path) as server:
                still_serves(server)  # on what the one before has left, hints half written or not
                trial = tried(server, asker, server.process.kill, known, within_s=0.0)
                group = "server killed (SIGKILL)"
                trial = living(trial, CLIENT)._replace(
                    server=End("killed", at=trial.acted_at or 0.0)
                )
                # The last frame is the answer, all that a client needs.
                client = "right answer" if name == "online/reveal" else "PeerGone"
                problems += judged(group, f"in {name}", trial, {client}, {"killed"})
        with in_process(tmp_path) as server:
            still_serves(server)

    assert problems == []
