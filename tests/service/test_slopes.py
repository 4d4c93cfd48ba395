"""The measure of the soak tests: it sees what grows, in real processes, too, and nothing else."""

import os
import pathlib
import random
import signal
import subprocess
import sys

import pytest
from slopes import Takes, descendants, grown, growth, takes

LEAK = """import sys, threading
kept = []
print("ready", flush=True)
for line in sys.stdin:
    if {leaks}:
        kept.append(bytearray(b"x" * 300_000))
        kept.append(open("/dev/null"))
        threading.Thread(target=threading.Event().wait, daemon=True).start()
    print("done", flush=True)
"""
TURNS = 40
reads_proc = pytest.mark.skipif(not pathlib.Path("/proc/self/fd").exists(), reason="reads /proc")


def test_growth_is_that_of_the_second_half():
    draw = random.Random(1)
    steps = [0] * 10 + [100] * 90  # what is made once, at the start
    noise = [1000 + draw.uniform(-5, 5) for _ in range(200)]

    assert growth(steps) == 0 and abs(growth(noise)) < 2
    assert growth([x + 0.5 * i for i, x in enumerate(noise)]) == pytest.approx(49.5, abs=2)
    assert growth([*range(50), *[50] * 50]) == 0 and growth([7]) == growth([]) == 0
    assert growth([5] * 60 + [900] * 3 + [5] * 37) == 0


@reads_proc
@pytest.mark.parametrize("leaks", [True, False])
def test_a_process_that_leaks_is_told_from_one_that_does_not(leaks):
    program = [sys.executable, "-c", LEAK.format(leaks=leaks)]
    pipe = subprocess.PIPE
    with subprocess.Popen(program, stdin=pipe, stdout=pipe, text=True) as process:
        assert process.stdin is not None and process.stdout is not None
        process.stdout.readline()
        seen = []
        for _ in range(TURNS):
            process.stdin.write("\n")
            process.stdin.flush()
            process.stdout.readline()
            seen.append(takes(process.pid))
        process.stdin.close()

    found, half = grown(seen), TURNS // 2 - 1
    assert seen[0].threads > 0 and seen[0].descriptors >= 3 and seen[0].resident_bytes > 1 << 20
    if leaks:
        assert found["descriptors"] == found["threads"] == half
        assert found["resident_bytes"] > 200_000 * half
    else:
        assert found["descriptors"] == found["threads"] == 0
        assert found["resident_bytes"] < 100_000


@reads_proc
def test_descendants_are_children_of_every_thread_and_theirs():
    inner = "import subprocess, sys; subprocess.run(['sleep', '60'])"
    outer = (
        "import subprocess, sys, threading\n"
        f"start = lambda: subprocess.run([sys.executable, '-c', {inner!r}])\n"
        "threading.Thread(target=start).start()"
    )
    with subprocess.Popen([sys.executable, "-c", outer]) as process:
        try:
            while len(found := descendants(process.pid)) < 2:
                assert process.poll() is None
            assert takes(*found).threads >= 2 and takes(-1) == Takes()
        finally:
            for pid in reversed(descendants(process.pid)):
                os.kill(pid, signal.SIGKILL)
