"""Every error has an entry in docs/troubleshooting.md: messages that the code has, a cause and a fix."""

import ast
import inspect
import pathlib
import re

import pytest
from page_blocks import ROOT, is_command

from pqjax import errors
from pqjax.errors import PqjaxError, Refused, SessionEnded
from pqjax.wire.handshake import Objection
from pqjax.wire.word import Word, heard_reason

PAGE = ROOT / "docs" / "troubleshooting.md"
LEAST_LETTERS = 9  # of a message's own, for an example to be told by


def reasons_of_directories():
    """What a fleet's directory gives for a reason beside replicas: the first words of `_refused`."""
    tree = ast.parse((ROOT / "pqjax" / "fleet" / "directory.py").read_text())
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and ast.unparse(node.func) == "_refused":
            yield ast.literal_eval(node.args[0])


ERRORS = {kind.__name__ for _, kind in inspect.getmembers(errors, inspect.isclass)}
REASONS = {
    "SessionEnded": {"unknown", *(word.name.lower() for word in Word if word != Word.ALIVE)},
    "Refused": {*(x.name.lower().replace("_", " ") for x in Objection), *reasons_of_directories()},
}
WANTED = ERRORS | {f"{kind}: {reason}" for kind, found in REASONS.items() for reason in found}


def entries(text):
    """Title and text of every entry, without those of its reasons."""
    parts = re.split(r"^###? (.+)\n", text, flags=re.MULTILINE)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


ENTRIES = entries(PAGE.read_text())


def messages(path):
    """Patterns of the texts in a file that have letters enough to be told by; docstrings are none."""
    tree = ast.parse(path.read_text())
    nodes = [*ast.walk(tree)]
    inner = {id(part) for node in nodes if isinstance(node, ast.JoinedStr) for part in node.values}
    inner |= {id(node.value) for node in nodes if isinstance(node, ast.Expr)}
    for node in nodes:
        if id(node) in inner or not isinstance(node, ast.JoinedStr | ast.Constant):
            continue
        parts = node.values if isinstance(node, ast.JoinedStr) else [node]
        values = [part.value if isinstance(part, ast.Constant) else None for part in parts]
        texts = [x if isinstance(x, str) else None for x in values]
        if sum(map(str.isalpha, "".join(x or "" for x in texts))) >= LEAST_LETTERS:
            yield "".join(".*" if x is None else re.escape(x) for x in texts)


def patterns():
    rooms = ("pqjax", "nets")
    paths = [path for room in rooms for path in (ROOT / room).rglob("*.py")]
    return [re.compile(pattern) for path in paths for pattern in messages(path)]


PATTERNS = patterns()


def examples(text):
    return [line[4:] for line in text.splitlines() if line.startswith("    ")]


def is_known(example):
    return any(pattern.search(example) for pattern in PATTERNS)


def test_every_error_and_every_reason_has_an_entry_and_no_entry_is_of_anything_else():
    assert set(ENTRIES) == WANTED


@pytest.mark.parametrize("title", sorted(WANTED - {"SessionEnded", "Refused"}))
def test_an_entry_has_messages_of_the_code_a_cause_and_a_fix(title):
    text = ENTRIES[title]

    assert [line for line in examples(text) if not is_known(line)] == []
    assert examples(text) and not any(map(is_command, examples(text)))
    assert text.count("- **Cause**: ") == 1 and text.count("- **Fix**: ") == 1


@pytest.mark.parametrize("word", [word for word in Word if word != Word.ALIVE])
def test_the_words_of_a_sessions_end_are_those_of_its_entry(word):
    reason, text = heard_reason(word, 0)

    (example,) = examples(ENTRIES[f"SessionEnded: {reason}"])
    assert example.split("ended the session: ")[1].startswith(text.split(" 0 s")[0])


def test_docstrings_name_every_reason():
    for kind, found in REASONS.items():
        said = re.findall(r'"([a-z ]+)"', inspect.getdoc(getattr(errors, kind)) or "")
        assert set(said) == found, kind


def test_errors_with_a_reason_are_those_two():
    assert {x.__name__ for x in (SessionEnded, Refused)} == set(REASONS)
    assert all(issubclass(getattr(errors, name), PqjaxError) for name in ERRORS)


def test_a_message_that_the_code_does_not_have_is_noticed():
    assert not is_known("the flux capacitor lost its charge in layer conv1")
    assert is_known("nobody listens on 127.0.0.1:7700: start the server first (pqjax serve)")
    assert pathlib.Path(errors.__file__).is_relative_to(ROOT)
