import pytest

from experiments import record
from experiments.record import percent, published, read, relative, rms, table
from pqjax.errors import DataError


def test_relative_difference_is_of_the_published_figure():
    assert relative(1.1, 1.0) == pytest.approx(0.1)
    assert relative(1.0, 2.0) == -0.5
    assert percent(-0.0385) == "-3.9 %" and percent(0.0) == "+0.0 %"


def test_root_mean_square():
    assert rms([3.0, -4.0]) == pytest.approx(12.5**0.5)


def test_a_table_is_as_wide_as_its_cells():
    lines = table([{"a": 1.23456, "b": "long cell"}, {"a": 12345.0}], ["a", "b"]).splitlines()

    assert lines[2] == "| 1.235  | long cell |"
    assert len({len(line) for line in lines}) == 1


def test_what_was_written_can_be_read(tmp_path, monkeypatch):
    monkeypatch.setattr(record, "into", tmp_path)

    record.write("some", {"seed": 1}, [{"bits": 2}], more=3)
    tree = read("some")

    assert (tree["config"], tree["runs"], tree["more"]) == ({"seed": 1}, [{"bits": 2}], 3)
    assert {"commit", "machine"} < set(tree)
    with pytest.raises(DataError, match="make exp-other"):
        read("other")


def test_published_columns_are_as_long_as_their_heads():
    nine = published("table9")
    assert len(nine["rows"]) == 5
    assert all(
        len(row[s]) == len(nine["widths"]) for row in nine["rows"] for s in row if s != "layer"
    )
    eleven = published("table11")
    assert all(len(row["gigabytes"]) == len(eleven["networks"]) for row in eleven["rows"])
