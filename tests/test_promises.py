"""SECURITY.md's promises are eleven, and each names tests that there are and that run."""

import ast
import re

import pytest
from page_blocks import ROOT

COUNT = 11
TEXT = (ROOT / "SECURITY.md").read_text()


def promises(text):
    """Number, sentence and tests of every promise."""
    (section,) = re.findall(r"^## Eleven promises\n(.*?)^## ", text, re.MULTILINE | re.DOTALL)
    found = re.findall(r"^(\d+)\. (.*?)(?=^\d+\. |\Z)", section, re.MULTILINE | re.DOTALL)
    return [
        (int(number), " ".join(re.split(r"\s*`tests/", said)[0].split()), _tests(said))
        for number, said in found
    ]


def _tests(said):
    return re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", said)


PROMISES = promises(TEXT)


def fast_tests(file):
    """Names of a file's tests that the fast suite runs."""
    for node in ast.parse((ROOT / file).read_text()).body:
        slow = [
            x for x in getattr(node, "decorator_list", []) if ast.unparse(x) == "pytest.mark.slow"
        ]
        if isinstance(node, ast.FunctionDef) and node.name.startswith("test_") and not slow:
            yield node.name


def test_there_are_eleven_each_one_sentence():
    assert [number for number, _, _ in PROMISES] == [*range(1, COUNT + 1)]
    for number, sentence, _ in PROMISES:
        assert sentence.endswith(".") and sentence.count(". ") == 0, number


@pytest.mark.parametrize("promise", PROMISES, ids=lambda promise: str(promise[0]))
def test_a_promise_is_held_by_tests_that_there_are(promise):
    _, _, tests = promise

    assert tests
    for file, name in tests:
        assert name in {*fast_tests(file)}, (file, name)


def test_no_test_holds_two_promises():
    every = [name for _, _, tests in PROMISES for _, name in tests]

    assert len(every) == len(set(every))


def test_a_promise_that_names_no_test_or_one_that_is_not_there_is_noticed():
    named = "1. Nothing.\n   `tests/test_promises.py::test_gone`\n2. More.\n"
    text = f"## Eleven promises\n\n{named}\n## Next\n"

    found = promises(text)

    assert found == [(1, "Nothing.", [("tests/test_promises.py", "test_gone")]), (2, "More.", [])]
    assert "test_gone" not in {*fast_tests("tests/test_promises.py")}
    assert "test_no_test_holds_two_promises" in {*fast_tests("tests/test_promises.py")}
