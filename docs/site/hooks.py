"""What the site needs beside docs/: pages of the rest of the repository, and the command line's help.

Pages link to files by their place in the repository. What they link to outside of docs/ is put into the
site at that same place, and links are turned; what is no page, picture or data stays a name.
"""

import argparse
import os
import pathlib
import posixpath
import re
import typing
from collections.abc import Iterable, Iterator
from unittest import mock

if typing.TYPE_CHECKING:
    from mkdocs.config.defaults import MkDocsConfig
    from mkdocs.structure.files import Files
    from mkdocs.structure.pages import Page

ROOT = pathlib.Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"
README = ROOT / "README.md"
COMMANDS = "<!-- commands -->"
_TAKEN = {".md", ".svg", ".png", ".json", ".gz"}
_LINK = re.compile(r"(!?)\[([^\]]*)\]\((?!\w+:)([^)\s#]+)(#[^)\s]*)?\)")
_EVIDENCE = "evidence.md"


def place(path: pathlib.Path) -> str | None:
    """Where a file of the repository lies in the site; None where it does not."""
    if path == README:
        return "index.md"
    if path.is_relative_to(DOCS):
        return path.relative_to(DOCS).as_posix()
    if path.suffix in _TAKEN and path.is_relative_to(ROOT):
        return path.relative_to(ROOT).as_posix()
    return None


def linked(page: pathlib.Path) -> Iterator[pathlib.Path]:
    """The files that a page links to."""
    for found in _LINK.finditer(page.read_text()):
        yield (page.parent / found[3]).resolve()


def from_elsewhere(pages: Iterable[pathlib.Path]) -> list[pathlib.Path]:
    """What comes along from outside of docs/: what pages link to, and what that links to."""
    left, found = list(pages), set[pathlib.Path]()
    while left:
        for path in linked(left.pop()):
            outside = not path.is_relative_to(DOCS) and path != README
            if outside and path not in found and place(path) is not None:
                found.add(path)
                left += [path] if path.suffix == ".md" else []
    return sorted(found)


def turned(text: str, page: pathlib.Path, at: str) -> str:
    """A page's text with its links as they are in the site, in which it lies `at`."""

    def turn(found: re.Match[str]) -> str:
        picture, words, link, anchor = found.groups()
        to = place((page.parent / link).resolve())
        if to is None:
            return words
        return f"{picture}[{words}]({posixpath.relpath(to, posixpath.dirname(at) or '.')}{anchor or ''})"

    return _LINK.sub(turn, text)


def commands() -> str:
    """The help of every command, as Markdown."""
    from pqjax.cli import parser

    with mock.patch.dict(os.environ, {"COLUMNS": "100", "NO_COLOR": "1"}):
        parts = [
            f"## {each.prog}\n\n```text\n{each.format_help()}```\n" for each in _parsers(parser())
        ]
    return "\n".join(parts).replace(str(pathlib.Path.home()), "~")


def _parsers(of: argparse.ArgumentParser) -> Iterator[argparse.ArgumentParser]:
    yield of
    for action in of._actions:
        if isinstance(action, argparse._SubParsersAction):
            for each in action.choices.values():
                yield from _parsers(each)


def on_config(config: "MkDocsConfig") -> "MkDocsConfig":
    """The generated page of evidence is in the navigation where there is one."""
    if not (DOCS / _EVIDENCE).exists():
        config.nav = _without(config.nav or [])
    return config


def _without(nav: list) -> list:
    """A navigation without the page of evidence."""
    kept = []
    for item in nav:
        ((title, to),) = item.items() if isinstance(item, dict) else [(None, item)]
        if to != _EVIDENCE:
            kept.append({title: _without(to)} if isinstance(to, list) else item)
    return kept


def on_files(files: "Files", config: "MkDocsConfig") -> "Files":
    """Adds what comes from elsewhere."""
    from mkdocs.structure.files import File

    own = [pathlib.Path(file.abs_src_path or "") for file in files.documentation_pages()]
    for path in from_elsewhere([*own, ROOT / "SECURITY.md", ROOT / "experiments" / "README.md"]):
        files.append(File.generated(config, str(place(path)), abs_src_path=str(path)))
    return files


def on_page_markdown(markdown: str, page: "Page", config: "MkDocsConfig", files: "Files") -> str:
    """Turns links, and fills in the help of the commands."""
    source = pathlib.Path(page.file.abs_src_path or "").resolve()
    text = turned(markdown, source, page.file.src_uri)
    return text.replace(COMMANDS, commands()) if COMMANDS in text else text
