"""Every typed error of the package has an example among the tests."""

import ast
import inspect
import pathlib

import pytest

from pqjax import errors

TESTS = pathlib.Path(__file__).parent
KINDS = [kind for _, kind in inspect.getmembers(errors, inspect.isclass)]


def expected(path):
    """Names of errors that a file's tests wait for: `pytest.raises(...)`, `isinstance(x, ...)`."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Call) and ast.unparse(node.func) in ("pytest.raises", "isinstance"):
            yield from (
                each.id
                for argument in node.args
                for each in ast.walk(argument)
                if isinstance(each, ast.Name)
            )


def test_every_error_is_waited_for_somewhere():
    seen = {name for path in TESTS.rglob("test_*.py") for name in expected(path)}

    assert {kind.__name__ for kind in KINDS} <= seen


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_one_class_catches_them_all_and_each_says_when_it_is_raised(kind):
    assert issubclass(kind, errors.PqjaxError) and inspect.getdoc(kind)


def test_what_the_package_raises_on_purpose_is_typed():
    """A bare exception in `pqjax/` is one that no caller can tell from a bug."""
    bare = {"ValueError", "TypeError", "RuntimeError", "KeyError", "Exception", "OSError"}
    found = []
    for path in (TESTS.parent / "pqjax").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Raise) and isinstance(node.exc, ast.Call):
                if ast.unparse(node.exc.func) in bare:
                    found.append(f"{path.name}:{node.lineno}: {ast.unparse(node.exc.func)}")

    assert found == []
