"""Disks that are full, memory and descriptors that are used up: one typed error, and on it goes."""

import os
import pathlib
import resource
import subprocess
import sys

import numpy as np
import pytest
from serving import HEARING, ROOT, X
from trial import DEADLINE_S, PATIENT_S, PLAN, RIGHT, SERVED, ask, case, in_process, still_serves

import pqjax
from pqjax.engine.desk import session_bytes
from pqjax.errors import StoreError

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not hasattr(resource, "prlimit"), reason="limits another process on Linux"),
]
FULL_BYTES = 16 << 10  # a file can have no more: the log can go on, and nothing that is kept fits
NOTHING = {"PeerGone", "SessionEnded (full)", "SessionEnded (fault)", "SessionEnded (closing)"}


class limited:  # noqa: N801  reads as what it does
    """A process that has only so much of something, in the block."""

    def __init__(self, process: subprocess.Popen, what: int, most: int):
        self.pid, self.what, self.most = process.pid, what, most

    def __enter__(self):
        self.before = resource.prlimit(self.pid, self.what)
        resource.prlimit(self.pid, self.what, (self.most, self.before[1]))

    def __exit__(self, *_):
        resource.prlimit(self.pid, self.what, self.before)


def virtual_bytes(process):
    pages = pathlib.Path(f"/proc/{process.pid}/statm").read_text().split()[0]
    return int(pages) * resource.getpagesize()


def test_a_server_whose_disk_is_full_refuses_to_keep_and_serves_on(frames, tmp_path):
    client = tmp_path / "client"
    with in_process(tmp_path, "--store", tmp_path / "kept") as server:
        still_serves(server)
        with case("disk full", "the server's, as it is to keep a preparation", "StoreError"):
            with limited(server.process, resource.RLIMIT_FSIZE, FULL_BYTES):
                with pqjax.connect(server.address, store=client, deadline_s=PATIENT_S) as session:
                    with pytest.raises(StoreError):
                        session.keep()
                assert not list((tmp_path / "kept").rglob("*.half"))
                server.ended(10.0)
                still_serves(server)
        with case(
            "disk full", "the server's, and then there is room again", "right answer", "done"
        ):
            with pqjax.connect(server.address, store=client, deadline_s=PATIENT_S) as session:
                session.keep()
            options = {"store": client, "spend": 1, "deadline_s": PATIENT_S}
            with pqjax.connect(server.address, **options) as session:
                np.testing.assert_array_equal(session.infer(X).output, RIGHT)
                assert session.stored == 1


@pytest.mark.parametrize("what", ["prepare", "infer"])
def test_a_client_whose_disk_is_full_says_so_in_one_line_and_the_server_serves_on(
    what, frames, tmp_path
):
    """`prepare` keeps preparations, `infer` what the server sends once."""
    most_bytes = {"prepare": FULL_BYTES, "infer": 1 << 10}[what]  # the network's hints are short
    most = f"({most_bytes}, {most_bytes})"
    program = f"import resource; resource.setrlimit(resource.RLIMIT_FSIZE, {most})\n"
    with in_process(tmp_path, "--store", tmp_path / "kept") as server:
        still_serves(server)
        asked = {"prepare": ["1", "--store", tmp_path / "c"], "infer": [tmp_path / "x.npy"]}[what]
        with case("disk full", f"the client's: pqjax {what}", "one line", "typed"):
            done = subprocess.run(
                [sys.executable, "-c", program + SERVED + HEARING, what, server.address,
                 *map(str, asked), "--hints", str(tmp_path / "got")],
                cwd=ROOT, capture_output=True, text=True, timeout=120,
            )  # fmt: skip
            assert done.returncode == 1, done.stderr
            assert "Traceback" not in done.stderr, done.stderr
            assert done.stderr.strip().splitlines()[-1].startswith("pqjax: "), done.stderr
            end = server.ended(DEADLINE_S)
            assert end is not None and not end.what.startswith("untyped"), end
            still_serves(server)


@pytest.mark.parametrize("mib", [1, 12, 40])
def test_a_server_that_has_no_memory_left_loses_sessions_and_serves_on_when_it_has(
    mib, frames, tmp_path
):
    with in_process(tmp_path) as server:
        still_serves(server)
        name = f"the server's address space is {mib} MiB from its end"
        with case("memory", name, "typed"):
            most = virtual_bytes(server.process) + (mib << 20)
            with limited(server.process, resource.RLIMIT_AS, most):
                end = ask(server.address, deadline_s=2 * DEADLINE_S)
            assert end.name in NOTHING | {"right answer", "DeadlineExceeded"}, end
            assert server.process.poll() is None
            while server.ended(1.0):
                pass
            still_serves(server)


def test_sessions_for_which_there_is_no_memory_are_refused_and_those_that_fit_are_served(
    frames, tmp_path
):
    room = 1.5 * session_bytes(PLAN) / 1e9
    with in_process(tmp_path, "--max-memory", room) as server:
        still_serves(server)
        with case("memory", "a second session, over --max-memory", "Refused (no memory)"):
            with pqjax.connect(server.address, deadline_s=PATIENT_S) as session:
                assert ask(server.address).name == "Refused (no memory)"
                np.testing.assert_array_equal(session.infer(X).output, RIGHT)
            while server.ended(1.0):
                pass
            still_serves(server)


def test_a_server_that_has_no_descriptors_left_serves_on_when_it_has(frames, tmp_path):
    with in_process(tmp_path) as server:
        still_serves(server)
        with case("descriptors", "the server has no more", "typed"):
            count = len(os.listdir(f"/proc/{server.process.pid}/fd"))
            for more in (0, 1, 2, 3):
                with limited(server.process, resource.RLIMIT_NOFILE, count + more):
                    end = ask(server.address, deadline_s=DEADLINE_S)
                assert end.name in NOTHING | {"right answer", "DeadlineExceeded"}, end
            assert server.process.poll() is None
            while server.ended(DEADLINE_S + 4.0):  # those that were not accepted in time are now
                pass
            still_serves(server)
