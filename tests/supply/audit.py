"""Known vulnerabilities of what is installed: `make audit`, with pip-audit.

    python tests/supply/audit.py PYTHON [--service osv]

Exit status 0: none are known. 1: some are, and which is said. 2: the service could not be asked.
"""

import argparse
import json
import pathlib
import subprocess
import sys

OURS = "pqjax"  # of no registry
WAIT_S = 600


class Unasked(Exception):
    """The service that knows vulnerabilities did not answer."""


def folder_of(python: str) -> str:
    """Where an environment's packages lie."""
    words = [python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"]
    return subprocess.run(words, check=True, capture_output=True, text=True).stdout.strip()


def asked(folder: str, service: str) -> str:
    """What pip-audit says of all that is in a folder, JSON.

    Raises:
      Unasked: it got no answer.
    """
    tool = pathlib.Path(sys.executable).with_name("pip-audit")
    words = [tool, "--path", folder, "--format", "json", "--progress-spinner", "off", "-s", service]
    try:
        done = subprocess.run(words, capture_output=True, text=True, timeout=WAIT_S)
    except subprocess.TimeoutExpired as error:
        raise Unasked(f"no answer in {WAIT_S} s") from error
    if not done.stdout.strip():
        raise Unasked((done.stderr.strip().splitlines() or ["it says nothing"])[-1])
    return done.stdout


def told(out: str) -> tuple[list[str], int, list[str]]:
    """Of its JSON: vulnerabilities in lines, how many packages were looked up, and which were not."""
    found, looked, skipped = [], 0, []
    for each in json.loads(out)["dependencies"]:
        if "skip_reason" in each:
            skipped += [each["name"]] * (each["name"] != OURS)
            continue
        looked += 1
        for known in each["vulns"]:
            mended = ", ".join(known["fix_versions"]) or "no version yet"
            found.append(f"{each['name']} {each['version']}: {known['id']}, mended in {mended}")
    return found, looked, skipped


def main() -> int:
    """Asks, and says."""
    options = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    options.add_argument("python", help="of the environment that is looked at")
    options.add_argument("--service", choices=("pypi", "osv"), default="pypi", help="who is asked")
    args = options.parse_args()
    try:
        found, looked, skipped = told(asked(folder_of(args.python), args.service))
    except Unasked as error:
        print(
            f"audit: {args.service}'s vulnerabilities could not be asked for: {error}",
            file=sys.stderr,
        )
        print(
            "audit: NOTHING WAS AUDITED. Run `make audit` where that service can be reached, or try "
            "ARGS='--service osv'", file=sys.stderr,
        )  # fmt: skip
        return 2
    for line in found:
        print(line)
    if not looked:
        print(
            "audit: NOTHING WAS AUDITED: the service knows none of these packages", file=sys.stderr
        )
        return 2
    unknown = f"; not looked up: {', '.join(skipped)}" if skipped else ""
    print(f"audit: {looked} packages, {len(found)} known vulnerabilities{unknown}")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
