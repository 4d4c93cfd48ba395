"""What the code and the pages refer to exists."""

import pathlib
import re

import pytest

ROOT = pathlib.Path(__file__).parents[1]
PAGES = [*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("*/README.md")]
IGNORED = (ROOT / ".gitignore").read_text()
SOURCES = [path for room in ("pqjax", "nets", "experiments", "tests", "docs")
           for path in (ROOT / room).rglob("*.py")]  # fmt: skip


def headings(page):
    return {line.lstrip("# ").strip() for line in page.read_text().splitlines() if line[:1] == "#"}


def slug(heading):
    """A heading as links have it."""
    return re.sub(r"[^\w\- ]", "", heading).strip().lower().replace(" ", "-")


def references(text):
    """Pages named as: docs/page.md, "Heading" (over a line's end, too)."""
    return re.findall(r'(docs/[\w./-]+\.md)(?:,\s+"([^"]+)")?', re.sub(r"\s*\n\s*(# )?", " ", text))


@pytest.mark.parametrize("path", [*SOURCES, *PAGES], ids=lambda p: str(p.relative_to(ROOT)))
def test_references_to_pages_resolve(path):
    for page, heading in references(path.read_text()):
        if path != pathlib.Path(__file__):
            assert (ROOT / page).is_file(), page
            assert not heading or heading in headings(ROOT / page), heading


def test_no_source_refers_to_a_design_that_is_not_in_the_repository():
    for path in SOURCES:
        if path != pathlib.Path(__file__):
            assert not re.search(r"\bDESIGN\b", path.read_text()), path


@pytest.mark.parametrize("page", PAGES, ids=lambda p: str(p.relative_to(ROOT)))
def test_links_between_pages_resolve(page):
    for target, anchor in re.findall(r"\]\((?!https?:)([^)#]*)#?([^)]*)\)", page.read_text()):
        there = page.parent / target if target else page
        assert there.exists(), target
        if anchor:
            assert anchor in {slug(heading) for heading in headings(there)}, (target, anchor)


@pytest.mark.parametrize("page", PAGES, ids=lambda p: str(p.relative_to(ROOT)))
def test_files_that_pages_name_exist(page):
    for name in re.findall(
        r"`((?:pqjax|nets|tests|experiments|docs)/[\w./-]*\w)(?:::\w+)?`", page.read_text()
    ):
        assert (ROOT / name).exists() or f"{name}/" in IGNORED, name


def test_the_checker_finds_references():
    assert references('see docs/design.md,\n    "Oblivious transfer".') == [
        ("docs/design.md", "Oblivious transfer")
    ]


def test_no_two_files_of_tests_are_called_the_same():
    """They are imported by their names alone, and the second would be an error."""
    names = [path.name for path in (ROOT / "tests").rglob("test_*.py")]

    assert len(names) == len(set(names))
