"""Trains MiniONN on CIFAR-10 (float, W4A4, W2A4) and writes one results JSON.

    PQJAX_DATA=... python experiments/train_minionn.py --out runs/minionn

Each run resumes where it was interrupted; finished runs are only evaluated. Needs an hour on two
CPU cores.
"""

import argparse
import json
import os
import pathlib
import platform
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from nets import train  # noqa: E402
from nets.malloc import keep_freed_memory  # noqa: E402
from pqjax.errors import PqjaxError  # noqa: E402

RUNS = {
    "float": "--mode float --epochs 14 --seed 1",
    "w4a4": "--mode qat --bits W4A4 --epochs 2 --seed 2 --rate 0.01 --erase 0 --evaluate-every 1",
    "w2a4": "--mode qat --bits W2A4 --epochs 5 --seed 2 --rate 0.02 --erase 0 --evaluate-every 1",
}


def main() -> int:
    """Runs the three trainings in order and writes `results.json`."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=pathlib.Path, default=ROOT / "runs" / "minionn")
    out = parser.parse_args().out
    teacher = out / "float" / "minionn_float.npz"
    results = {"commit": _commit(), "machine": machine(), "runs": {}}
    for name, words in RUNS.items():
        args = train.parser().parse_args([*words.split(), "--out", str(out / name)])
        args.teacher = teacher
        try:
            result = train.train_float(args) if args.mode == "float" else train.train_qat(args)
        except PqjaxError as error:
            print(f"{name}: {error}", file=sys.stderr)
            return 1
        curve = json.loads((out / name / "curve.json").read_text())
        result["network"] = pathlib.Path(result["network"]).name
        results["runs"][name] = {
            "command": f"python -m nets.train {words}",
            "config": curve["config"],
            "seconds": curve["seconds"],
            **result,
        }
        (out / "results.json").write_text(json.dumps(results, indent=1, sort_keys=True) + "\n")
        print(name, result["top1"])
    return 0


def machine() -> dict:
    """What the figures were measured on."""
    import jax

    return {
        "processor": platform.processor() or platform.machine(),
        "cores": os.cpu_count(),
        "backend": jax.default_backend(),
        "jax": jax.__version__,
        "python": platform.python_version(),
    }


def _commit() -> str:
    command = ["git", "-C", str(ROOT), "rev-parse", "HEAD"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return done.stdout.strip() or "unknown"


if __name__ == "__main__":
    keep_freed_memory()
    sys.exit(main())
