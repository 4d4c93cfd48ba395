"""Ctrl-C on a run of two processes: everything ends, nothing is left behind."""

import os
import pathlib
import signal
import subprocess
import sys
import time

import pytest

ROOT = pathlib.Path(__file__).parents[2]
MODEL = ROOT / "nets/checkpoints/minionn_w2a4.npz"
ASKING = (
    "import numpy as np, pathlib;"
    "from experiments.two_processes import run_two_processes;"
    f"run_two_processes(pathlib.Path({str(MODEL)!r}), 'privquant', np.zeros((50, 32, 32, 3), int))"
)


def mentioning(word):
    """Command lines of running processes that contain a word."""
    found = []
    for path in pathlib.Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = path.read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:
            continue  # it has just ended
        if word in words:
            found.append(words)
    return found


@pytest.mark.slow
@pytest.mark.skipif(not pathlib.Path("/proc").exists(), reason="looks at processes by /proc")
@pytest.mark.parametrize("whom", ["everyone", "the parent alone"])
def test_ctrl_c_ends_both_processes_and_leaves_no_files(tmp_path, whom):
    asking = subprocess.Popen(
        [sys.executable, "-c", ASKING], cwd=ROOT, start_new_session=True,
        env={**os.environ, "TMPDIR": str(tmp_path)}, stderr=subprocess.PIPE,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )  # fmt: skip
    limit = time.monotonic() + 60
    while len(mentioning(str(tmp_path))) < 2:
        assert asking.poll() is None and time.monotonic() < limit, "server and client did not start"
        time.sleep(0.1)
    assert any("serve" in words for words in mentioning(str(tmp_path)))
    time.sleep(1)

    if whom == "everyone":
        os.killpg(asking.pid, signal.SIGINT)
    else:
        os.kill(asking.pid, signal.SIGINT)
    asking.communicate(timeout=30)

    assert asking.returncode != 0
    assert mentioning(str(tmp_path)) == []
    assert list(tmp_path.iterdir()) == []
