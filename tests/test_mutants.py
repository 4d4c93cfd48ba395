"""The table of mutants fits the code, and none survives."""

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
