import pytest

from experiments import record
from experiments.plots import grouped_bars, heatmaps, save, stacked_bars

FIGURES = {
    "bars": lambda: grouped_bars(
        ["a", "b"], {"ours": [1.0, 2.0], "theirs": [1.5, 2.5]}, "GiB", "Bars", ("theirs",)
    ),
    "log": lambda: grouped_bars(["a", "b"], {"x": [1.0, 2e4]}, "MiB", "Logarithmic", log=True),
    "stack": lambda: stacked_bars(
        ["a"], ["(1)", "(2)"], {"one": [[1.0, 2.0]], "two": [[0.5, 0.0]]}, "GiB", "Stacked"
    ),
    "map": lambda: heatmaps(
        {"p": [[1.0, 2.0]], "q": [[0.0, 3.0]]}, ["r"], ["c", "d"], "GiB", "Map"
    ),
}


@pytest.mark.parametrize("name", FIGURES)
def test_a_second_run_draws_the_same_bytes(name, tmp_path, monkeypatch):
    monkeypatch.setattr(record, "into", tmp_path)
    drawn = []
    for _ in range(2):
        text = save(FIGURES[name](), name, "A caption: all predicted.")
        assert f"![{name}]({name}.svg)" in text and "*A caption: all predicted.*" in text
        drawn.append((tmp_path / f"{name}.svg").read_bytes())

    assert drawn[0] == drawn[1]
    assert b"<dc:date>" not in drawn[0]
