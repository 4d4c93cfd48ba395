"""Searches for bytes that a parser must not be given, guided by the code that they reach (atheris).

    make fuzz                                  every target, FUZZ_SECONDS each (default 60)
    make fuzz ARGS="plan model --seconds 600"
    make fuzz ARGS="--keep"                    adds what was found on the way to the corpus
    make fuzz ARGS="plan --on crash-0a1b2c"    one input again, with the whole traceback

Every target has a process of its own, which begins with the committed corpus and valid artefacts and
changes them as `mutation` does, or as libFuzzer does. It ends with the first finding; its input is kept
in the folder that is named. Exit status: 1 if there is any.
"""

import argparse
import dataclasses
import hashlib
import os
import pathlib
import re
import subprocess
import sys
import tempfile
import time
from typing import Any

import numpy as np
from evidence import record

HERE = pathlib.Path(__file__).parent
CORPUS = HERE / "corpus"
NAMES = ("frames", "greeting", "words", "plan", "model", "hints", "stored", "onnx")
SECONDS = 60
MOST_INPUT_BYTES = 1 << 16
MOST_KEPT_BYTES = 36_000  # of a target's corpus, and
MOST_FILE_BYTES = 8_000  # of a file in it
_START_S = 180.0  # a process may take so long to begin and end
_TIMEOUT_S, _MEMORY_MB = 30, 6000  # of one input, and of the process: tighter bounds are `targets`'
_DONE = re.compile(r"Done (\d+) runs in (\d+) second")
_COVERED = re.compile(r"cov: (\d+)")


@dataclasses.dataclass(frozen=True)
class Search:
    """How a search ended.

    Attributes:
      inputs, seconds: tried, and for how long.
      covered: places of the code that were reached.
      new: inputs that reached others than those before.
      finding: what was found and in which file the input is; None: nothing.
    """

    inputs: int
    seconds: float
    covered: int
    new: tuple[bytes, ...]
    finding: str | None


def corpus(name: str) -> list[bytes]:
    """A target's committed inputs."""
    return [path.read_bytes() for path in sorted((CORPUS / name).glob("*"))]


def search(name: str, seconds: int, kept: pathlib.Path) -> Search:
    """One target, in a process of its own; an input that is a finding is left in the folder `kept`."""
    kept.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        found, begun = pathlib.Path(folder, "found"), pathlib.Path(folder, "begun")
        found.mkdir()
        begun.mkdir()
        begin = time.monotonic()
        done = _child(
            name, str(begun), str(found), str(CORPUS / name) if (CORPUS / name).is_dir() else "",
            f"-max_total_time={seconds}", f"-artifact_prefix={kept}/{name}-",
            f"-max_len={MOST_INPUT_BYTES}", f"-timeout={_TIMEOUT_S}", f"-rss_limit_mb={_MEMORY_MB}",
            timeout=seconds + _START_S,
        )  # fmt: skip
        spent = time.monotonic() - begin
        ran = _DONE.search(done.stderr)
        new = tuple(path.read_bytes() for path in sorted(found.iterdir()))
    covered = max((int(n) for n in _COVERED.findall(done.stderr)), default=0)
    if ran is not None and done.returncode == 0:
        return Search(int(ran[1]), float(ran[2]), covered, new, None)
    tail = "\n".join(done.stderr.splitlines()[-40:])
    tried = max((int(n) for n in re.findall(r"^#(\d+)", done.stderr, re.M)), default=0)
    return Search(tried, spent, covered, new, f"exit status {done.returncode}\n{tail}")


def _child(name: str, *words: str, timeout: float) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "fuzzing", name, "--child", *filter(None, words)]
    paths = (HERE.parents[1], HERE.parent, HERE)
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, paths))}
    try:
        return subprocess.run(
            command, cwd=HERE.parents[1], env=environment, timeout=timeout,
            capture_output=True, text=True, errors="replace",
        )  # fmt: skip
    except subprocess.TimeoutExpired as late:
        said = (late.stderr or b"").decode(errors="replace")
        return subprocess.CompletedProcess(command, 124, "", f"{said}\nno end in {timeout:g} s")


def _searched(name: str, begun: str, found: str, *options: str) -> None:
    """The child: never returns."""
    import atheris  # pyright: ignore[reportMissingImports]  # of the extra `fuzz`

    instrument: Any = getattr(atheris, "instrument_imports")  # noqa: B009  in no stub
    with instrument(include=["pqjax", "nets.importing"]):
        from targets import TARGETS
    from artefacts import valid
    from mutation import changed

    target, artefacts = TARGETS[name], valid(name)
    for data in artefacts:
        pathlib.Path(begun, hashlib.sha256(data).hexdigest()[:16]).write_bytes(data)

    def mutator(data: bytes, most: int, seed: int) -> bytes:
        rng = np.random.default_rng(seed)
        if rng.random() < 0.5:
            return atheris.Mutate(data, most)
        for _ in range(int(rng.integers(1, 4))):
            data = changed(bytes(data), artefacts, lambda n: int(rng.integers(n)))
        return data[:most]

    def once(data: bytes) -> None:
        target.tried(bytes(data))

    atheris.Setup([sys.argv[0], found, begun, *options], once, custom_mutator=mutator)
    atheris.Fuzz()


def keep(name: str, new: tuple[bytes, ...]) -> int:
    """Adds inputs to a target's corpus, the shortest first, while there is room; how many."""
    folder, there = CORPUS / name, corpus(name)
    folder.mkdir(parents=True, exist_ok=True)
    room, added = MOST_KEPT_BYTES - sum(map(len, there)), 0
    for data in sorted(set(new) - set(there), key=lambda data: (len(data), data)):
        if len(data) > min(room, MOST_FILE_BYTES):
            break
        (folder / hashlib.sha256(data).hexdigest()[:16]).write_bytes(data)
        room, added = room - len(data), added + 1
    return added


def main(arguments: list[str] | None = None) -> int:
    """The command."""
    words = sys.argv[1:] if arguments is None else arguments
    if words[1:2] == ["--child"]:
        _searched(words[0], *words[2:])
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("targets", nargs="*", help=f"of {', '.join(NAMES)}; all by default")
    parser.add_argument("--seconds", type=int, default=SECONDS, metavar="N", help="for each target")
    parser.add_argument("--keep", action="store_true", help="add what was found to the corpus")
    parser.add_argument("--findings", type=pathlib.Path, default=pathlib.Path("build/fuzz"),
                        metavar="DIR", help="where inputs go that are findings")  # fmt: skip
    parser.add_argument("--on", type=pathlib.Path, metavar="FILE", help="only this input")
    options = parser.parse_args(words)
    if unknown := set(options.targets) - set(NAMES):
        parser.error(f"no such target: {', '.join(sorted(unknown))}")
    chosen = options.targets or NAMES
    if options.on is not None:
        from targets import TARGETS

        print("taken" if TARGETS[chosen[0]].tried(options.on.read_bytes()) else "refused")
        return 0
    findings = 0
    for name in chosen:
        ended = search(name, options.seconds, options.findings.resolve())
        findings += ended.finding is not None
        told(name, ended)
        if options.keep:
            print(f"{name}: {keep(name, ended.new)} inputs added to the corpus", flush=True)
    return 1 if findings else 0


def told(name: str, ended: Search) -> None:
    """A line for who looks on, and a row of evidence."""
    outcome = "no finding" if ended.finding is None else "a finding"
    numbers = {"inputs": ended.inputs, "seconds": round(ended.seconds), "covered": ended.covered}
    record("fuzz", f"{name}: guided by coverage", outcome, findings=int(ended.finding is not None),
           **numbers)  # fmt: skip
    print(f"{name}: {outcome}: {numbers}, {len(ended.new)} new inputs", flush=True)
    if ended.finding is not None:
        print(ended.finding, flush=True)


if __name__ == "__main__":
    sys.exit(main())
