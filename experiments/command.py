"""What the commands of the experiments have in common: options, one-line errors, result and report."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from typing import NoReturn

from experiments import record
from pqjax.errors import PqjaxError


class _Parser(argparse.ArgumentParser):
    """Says what is wrong with the options in one line."""

    def error(self, message: str) -> NoReturn:
        print(f"{self.prog}: {message}", file=sys.stderr)
        raise SystemExit(1)


def parser(name: str, about: str | None) -> argparse.ArgumentParser:
    """Options of the command `make name`; bad ones end it with one line and status 1."""
    return _Parser(prog=name, description=(about or "").split("\n\n")[0])


def run(
    options: argparse.ArgumentParser,
    compute: Callable[[argparse.Namespace], dict],
    report: Callable[[dict], str],
    arguments: list[str] | None,
    name_of: Callable[[argparse.Namespace], str] | None = None,
) -> int:
    """Computes, writes `latest/<name>.json`, and from that file alone `latest/<name>.md`.

    With --record both go to `results/`, which is committed.

    Args:
      options: made by `parser`, named exp-<name>.
      compute: from the options to what `record.write` takes: `config`, `runs` and more.
      report: from the result file's tree to Markdown; it may draw pictures.
      arguments: of the command line.
      name_of: <name> by the options, where one command writes several results.

    Returns:
      The exit status.
    """
    options.add_argument(
        "--report", action="store_true", help="only make table and pictures from the result file"
    )
    options.add_argument(
        "--record", action="store_true", help="write to results/, whose files are committed"
    )
    args = options.parse_args(arguments)
    record.into = record.RESULTS if args.record else record.LATEST
    name = name_of(args) if name_of else options.prog.removeprefix("exp-")
    try:
        if not args.report:
            record.write(name, **compute(args))
        text = report(record.read(name))
    except PqjaxError as error:
        print(f"{options.prog}: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print(f"{options.prog}: interrupted", file=sys.stderr)
        return 130
    path = record.written(f"{name}.md")
    path.write_text(text)
    print(text)
    print(f"{options.prog}: written to {path.parent}", file=sys.stderr)
    return 0
