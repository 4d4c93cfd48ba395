"""1,000 resets, 200 silent sockets and 50 slow writers at once: honest clients are served, and
nothing of it is left afterwards."""

import contextlib
import json
import os
import pathlib
import subprocess
import sys
import time

import pytest
from serving import PLAN, answers

import pqjax
from pqjax.wire.lobby import GREETING_S

HERE = pathlib.Path(__file__).parent
ROOT = HERE.parents[1]
RESETS, SILENT, SLOW = 1000, 200, 50
CONNECT_S = 2.0
GROWTH_BYTES = 16 << 20  # of some 300 MB: a thread's stack a connection would be 8 MB each


@contextlib.contextmanager
def program(name, *words):
    """One of the programs beside this file, told to end by closing its standard input."""
    with subprocess.Popen(
        [sys.executable, str(HERE / name), *map(str, words)], cwd=ROOT, text=True,
        stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "tests")])},
    ) as process:  # fmt: skip
        try:
            yield process
        finally:
            process.kill()


def takes(server):
    """Threads, descriptors and memory of the server at this moment."""
    server.stdin.write("\n")
    server.stdin.flush()
    return json.loads(server.stdout.readline())


@pytest.mark.slow
@pytest.mark.skipif(not pathlib.Path("/proc/self/fd").exists(), reason="reads /proc")
@pytest.mark.parametrize("kind", ["plain", "tls"])
def test_a_siege_keeps_no_honest_client_out_and_leaves_nothing_behind(kind, tmp_path):
    tls, words = None, []
    if kind == "tls":
        pytest.importorskip("cryptography")
        pqjax.make_certificates(tmp_path)
        tls = pqjax.Tls(*(tmp_path / name for name in ("client.pem", "client.key", "ca.pem")))
        words = [tmp_path]
    seconds, most = [], {"threads": 0, "descriptors": 0, "bytes": 0}

    def connect_once(address):
        began = time.monotonic()
        session = pqjax.connect(address, plan=PLAN, tls=tls, deadline_s=30.0)
        seconds.append(time.monotonic() - began)
        session.close()

    with program("watched_server.py", *words) as server:
        assert server.stdin is not None and server.stdout is not None
        address = server.stdout.readline().strip()
        answers(address, tls=tls)
        connect_once(address)
        alone = seconds.pop()
        time.sleep(1.0)  # for the last session's thread to end
        before = takes(server)
        with program("besieger.py", address, kind, RESETS, SILENT, SLOW) as besieger:
            assert besieger.stdin is not None and besieger.stdout is not None
            assert besieger.stdout.readline() == "all are there\n"
            until = time.monotonic() + 2 * GREETING_S + 2
            while time.monotonic() < until:
                connect_once(address)
                now = takes(server)
                most = {name: max(most[name], now[name]) for name in most}
            answers(address, tls=tls)
            besieger.stdin.close()
            crowd = json.loads(besieger.stdout.read())
        time.sleep(GREETING_S + 1)
        after = takes(server)
        server.stdin.close()
        assert server.wait(30) == 0

    print(f"\n{kind}: {crowd}; connects: {len(seconds)}, longest {max(seconds):.2f} s, ", end="")
    print(f"alone {alone:.2f} s\n  before {before}\n  most   {most}\n  after  {after}")
    assert crowd["resets"] == RESETS and crowd["silent"] >= SILENT and crowd["slow"] >= SLOW
    assert max(seconds) < CONNECT_S
    assert after["threads"] == before["threads"]
    assert after["descriptors"] == before["descriptors"]
    assert after["bytes"] < before["bytes"] + GROWTH_BYTES
