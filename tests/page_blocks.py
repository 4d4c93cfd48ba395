"""Blocks of code in pages: what they are, and whether they say of themselves why they are not run.

A block of Python is fenced. Commands are an indented block whose first line begins with one. A comment
before it, `<!-- not run: reason -->`, excuses the block that follows. Other indented blocks are figures,
formulas and messages.
"""

import contextlib
import os
import pathlib
import re
import shlex
import signal
import subprocess
import sys
import typing

ROOT = pathlib.Path(__file__).parents[1]
README = ROOT / "README.md"
PAGES = [README, ROOT / "SECURITY.md", *sorted((ROOT / "docs").rglob("*.md"))]
COMMANDS = {"pqjax", "pip", "make", "ray", "curl", "python"}
_EXCUSE = re.compile(r"<!-- not run: (.+) -->")
_SET = re.compile(r"[A-Z_]+=\S* ")


class Block(typing.NamedTuple):
    """One block: `python` or `commands`, its text, and why it is not run, if it says so."""

    page: pathlib.Path
    line: int
    kind: str
    text: str
    excuse: str = ""

    @property
    def name(self):
        """For test ids."""
        return f"{self.page.relative_to(ROOT)}:{self.line}"

    @property
    def lines(self):
        """Commands, continued lines joined."""
        return re.sub(r" *\\\n +", " ", self.text).splitlines()

    @property
    def commands(self):
        """Their words, comments gone."""
        return [shlex.split(line, comments=True) for line in self.lines]


def blocks(page):
    """The blocks of a page, in order."""
    found, excuse = [], ""
    lines = page.read_text().splitlines()
    at = 0
    while at < len(lines):
        line = lines[at]
        begins = line.startswith("    ") and line.strip() and (at == 0 or not lines[at - 1].strip())
        if line.startswith("```"):
            end = lines.index("```", at + 1)
            if line == "```python":
                found.append(Block(page, at + 1, "python", _text(lines[at + 1 : end]), excuse))
            excuse, at = "", end
        elif begins:
            end = at
            while end < len(lines) and lines[end].startswith("    "):
                end += 1
            text = _text(x[4:] for x in lines[at:end])
            if is_command(text):
                found.append(Block(page, at + 1, "commands", text, excuse))
            excuse, at = "", end - 1
        elif said := _EXCUSE.fullmatch(line):
            excuse = said[1]
        elif line.strip():
            assert not excuse, f"{page}:{at + 1}: a block expected after {excuse!r}"
        at += 1
    assert not excuse, f"{page}: a block expected after {excuse!r}"
    return found


def _text(lines):
    return "".join(f"{line}\n" for line in lines)


def is_command(text):
    """Whether a text begins with a command, or with a variable set for one."""
    return _SET.sub("", text).split(None, 1)[0] in COMMANDS


@contextlib.contextmanager
def started(words, folder):
    """A command of a page in a process of its own, from `folder`; yields its lines as they come."""
    process = subprocess.Popen(
        [sys.executable, "-m", "pqjax.cli", *words], cwd=folder, text=True,
        env=os.environ | {"PYTHONPATH": str(ROOT)}, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        assert process.stdout is not None
        yield process.stdout
    finally:
        process.send_signal(signal.SIGINT)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(20)
        process.kill()
        process.communicate()


@contextlib.contextmanager
def served(command, folder):
    """A page's `pqjax serve` on a free port, from `folder`; its address."""
    words = [word.replace(":7700", ":0") for word in command[1:]]
    if "--listen" not in words:
        words += ["--listen", "127.0.0.1:0"]
    with started(words, folder) as lines:
        yield next(line.split()[-1] for line in lines if "listening on" in line)
