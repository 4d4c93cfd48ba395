"""The table of mutants fits the code, and none survives."""

import re

import mutants
import pytest


@pytest.mark.parametrize("mutant", mutants.MUTANTS, ids=lambda mutant: mutant.name)
def test_every_text_that_a_mutant_replaces_occurs_exactly_once(mutant):
    assert [mutants.unfit(edit) for edit in mutant.edits] == [None] * len(mutant.edits)


def test_every_mutant_has_a_name_of_its_own():
    assert len({mutant.name for mutant in mutants.MUTANTS}) == len(mutants.MUTANTS)


@pytest.mark.slow
@pytest.mark.parametrize("mutant", mutants.MUTANTS, ids=lambda mutant: mutant.name)
def test_no_mutant_survives(mutant):
    outcome, failed = mutants.try_mutant(mutant)

    assert outcome == "noticed" and failed


def drawn():
    """Every place in the product that draws randomness: file, line number, the call."""
    pattern = re.compile(
        r"(?:randomness\.(?:bits|elements|take|block)|_scalar|os\.urandom)\([^()]*"
    )
    for path in sorted((mutants.ROOT / "pqjax").rglob("*.py")):
        for number, line in enumerate(path.read_text().splitlines(), 1):
            for call in pattern.findall(line):
                if not line.startswith("def "):
                    yield str(path.relative_to(mutants.ROOT)), number, call


@pytest.mark.parametrize("file,number,call", list(drawn()))
def test_every_draw_of_randomness_has_a_mutant(file, number, call):
    texts = [edit.old for mutant in mutants.MUTANTS for edit in mutant.edits if edit.file == file]

    assert any(call in text for text in texts), f"{file}:{number}: {call}"
