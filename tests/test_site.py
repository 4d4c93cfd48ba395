"""The site of docs/: what it is made of, and that it can be made without a broken link."""

import importlib.util
import os
import pathlib
import re
import subprocess
import sys

import pytest
import yaml
from page_blocks import PAGES, ROOT

import pqjax

DOCS = ROOT / "docs"


def load_hooks():
    spec = importlib.util.spec_from_file_location("site_hooks", DOCS / "site" / "hooks.py")
    assert spec is not None and spec.loader is not None
    made = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(made)
    return made


HOOKS = load_hooks()


def navigation(items):
    for item in items:
        for to in item.values() if isinstance(item, dict) else [item]:
            yield from navigation(to) if isinstance(to, list) else [to]


def test_every_page_is_in_the_navigation_once():
    nav = [*navigation(yaml.safe_load((DOCS / "site" / "mkdocs.yml").read_text())["nav"])]
    own = {path.relative_to(DOCS).as_posix() for path in DOCS.rglob("*.md")}

    assert len(nav) == len(set(nav))
    assert set(nav) - {"evidence.md"} == own - {"evidence.md"} | {
        "SECURITY.md",
        "experiments/README.md",
    }
    assert "evidence.md" in nav
    assert HOOKS._without([{"A": ["evidence.md", {"B": "b.md"}]}]) == [{"A": [{"B": "b.md"}]}]


def test_what_pages_link_to_elsewhere_comes_along():
    found = HOOKS.from_elsewhere([page for page in PAGES if page.is_relative_to(DOCS)])

    assert {
        ROOT / "SECURITY.md",
        ROOT / "experiments" / "README.md",
        ROOT / "nets" / "README.md",
    } <= {*found}
    assert ROOT / "experiments" / "results" / "resnet50.md" in found  # and what it shows:
    assert ROOT / "experiments" / "results" / "resnet50_pqjax.svg" in found
    assert all(path.is_file() for path in found) and ROOT / "README.md" not in found


@pytest.mark.parametrize(
    "page,link,there",
    [
        ("docs/performance.md", "../experiments/results/bench.md", "experiments/results/bench.md"),
        ("docs/protocols/hints.md", "../importing.md#bits", "../importing.md#bits"),
        ("docs/index.md", "../README.md", "index.md"),
        ("SECURITY.md", "docs/page.md", "page.md"),
        ("experiments/README.md", "results/table2.md", "results/table2.md"),
        ("experiments/README.md", "../nets/README.md", "../nets/README.md"),
    ],
)
def test_links_are_turned_to_where_files_lie_in_the_site(page, link, there):
    path = ROOT / page

    found = HOOKS.turned(f"see [it]({link}), [web](https://jax.dev)", path, HOOKS.place(path))

    assert found == f"see [it]({there}), [web](https://jax.dev)"


def test_links_to_source_stay_as_words():
    text = HOOKS.turned("see [digits](../experiments/digits.py).", DOCS / "index.md", "index.md")

    assert text == "see digits."


def test_the_command_line_s_help_is_made_of_its_parsers(monkeypatch):
    monkeypatch.setenv("COLUMNS", "40")

    text = HOOKS.commands()

    assert HOOKS.COMMANDS in (DOCS / "reference" / "commands.md").read_text()
    for command in ("serve", "infer", "import", "fleet deploy"):
        assert f"\n## pqjax {command}\n" in text
    assert "--answers-a-day" in text and str(pathlib.Path.home()) + "/" not in text


def test_the_reference_has_every_public_name():
    text = (DOCS / "reference" / "python.md").read_text()

    named = re.findall(r"^::: pqjax\.(?:planner\.choose\.)?(\w+)$", text, re.MULTILINE)
    assert sorted(named) == sorted(pqjax.__all__)
    assert "::: pqjax.errors\n" in (DOCS / "reference" / "errors.md").read_text()


def test_nothing_is_fetched_from_elsewhere_by_the_theme():
    made = yaml.safe_load((DOCS / "site" / "mkdocs.yml").read_text())

    assert (
        made["theme"]["font"] is False
        and "extra_javascript" not in made
        and "extra_css" not in made
    )


@pytest.mark.slow
def test_the_site_is_built_without_a_warning(tmp_path):
    pytest.importorskip("material")
    pytest.importorskip("mkdocstrings_handlers.python")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet"]

    done = subprocess.run(
        [*command, "-f", DOCS / "site" / "mkdocs.yml", "-d", tmp_path / "site"],
        env=os.environ | {"PYTHONPATH": str(ROOT), "NO_MKDOCS_2_WARNING": "1"},
        capture_output=True, text=True,
    )  # fmt: skip

    assert done.returncode == 0, done.stdout + done.stderr
    pages = [*(tmp_path / "site").rglob("*.html")]
    assert len(pages) > 50
    outside = re.compile(r"<(?:script|img|link)[^>]+\b(?:src|href)=\"?(https?:[^\" >]+)")
    for page in pages:
        assert outside.findall(page.read_text()) == [], page
    told = (tmp_path / "site" / "reference" / "python.html").read_text()
    ids = set(re.findall(r"id=\"pqjax\.(?:planner\.choose\.)?(\w+)\"", told))
    assert ids == set(pqjax.__all__)  # `pqjax.planner.plan` is a module, too: hence its longer name
    assert "--answers-a-day" in (tmp_path / "site" / "reference" / "commands.html").read_text()
