"""Accuracy over labelled data, by processes of this machine."""

import json

import numpy as np
import pytest
from PIL import Image
from serving import GRAPH, WEIGHTS, command_here

import pqjax
from pqjax.errors import DataError
from pqjax.fleet.evaluation import in_order, parts, right_among
from pqjax.fleet.labelled import read_labelled
from pqjax.graph import Dense, Flatten, Graph, Input, TensorType

OUT = GRAPH.input.out


@pytest.fixture
def data(tmp_path):
    """Fifty inputs, of which the network gets forty right; the model beside them."""
    rng = np.random.default_rng(0)
    x = rng.integers(OUT.low, OUT.high + 1, (50, *OUT.shape))
    y = np.asarray(pqjax.reference(GRAPH, WEIGHTS, x)).reshape(50, -1).argmax(1)
    y[3:33:3] = (y[3:33:3] + 1) % 5
    pqjax.save_model(tmp_path / "net.npz", GRAPH, WEIGHTS)
    np.savez(tmp_path / "data.npz", x=x, y=y)
    return tmp_path


def evaluated(folder, *words):
    return command_here("evaluate", folder / "net.npz", folder / "data.npz", *words)


def test_what_is_right_is_counted_and_private_answers_are_compared(data):
    told = evaluated(data, "--private", "1", "--processes", "1", "--json")

    assert told.returncode == 0, told.stderr
    found = json.loads(told.stdout)
    assert found["samples"] == 50 and found["accuracy"] == {"top1": 0.8}
    assert found["private"] == {"protocol": "pqjax", "samples": 1, "same": 1}


class Here:
    """Hands that answer at once, and say how many questions were begun before."""

    count = 2

    def __init__(self):
        self.begun, self.most = 0, 0

    def begin(self, function, question):
        self.begun += 1
        self.most = max(self.most, self.begun)

        def wait():
            self.begun -= 1
            return function(*question)

        return wait


def test_answers_come_in_order_and_few_questions_are_begun_ahead():
    hands = Here()

    assert list(in_order(hands, pow, ((i, 2) for i in range(20)))) == [i * i for i in range(20)]
    assert hands.most == 2 * hands.count and hands.begun == 0


def test_parts_cover_everything_once():
    for count in range(12):
        cuts = parts(count, 4)
        assert [i for cut in cuts for i in range(12)[cut]] == list(range(count))
        assert all(0 < cut.stop - cut.start <= 4 for cut in cuts)


def test_the_likeliest_are_counted_as_a_plain_loop_counts_them():
    rng = np.random.default_rng(1)
    y, labels = rng.integers(-3, 4, (40, 7)), rng.integers(0, 7, 40)

    for top in (1, 3, 5):
        right = 0
        for outputs, label in zip(y.tolist(), labels.tolist(), strict=True):
            before = [i for i in range(7)
                      if (-outputs[i], i) < (-outputs[label], label)]  # fmt: skip
            right += len(before) < top
        assert right_among(y, labels, top) == right
    assert right_among(np.array([[2], [3]]), np.array([2, 2]), 5) == 1


def picture_network():
    nodes = (
        Input("image", (), TensorType((2, 2, 3), 8, 0)),
        Flatten("flat", ("image",), TensorType((12,), 8, 0)),
        Dense("fc", ("flat",), TensorType((2,), 20, 0), weight_bits=2, weight_scale=0),
    )
    weight = np.stack([np.ones(12, np.int64), -np.ones(12, np.int64)], 1)  # bright or dark
    return Graph(nodes), {"fc/weight": weight, "fc/bias": np.zeros(2, np.int64)}


def test_pictures_are_labelled_by_their_folders_or_by_a_table(tmp_path):
    graph, weights = picture_network()
    for name, value in (("0/a.png", 250), ("0/b.png", 9), ("1/c.png", 7), ("1/d.png", 0)):
        (tmp_path / "photos" / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((2, 2, 3), value, np.uint8)).save(tmp_path / "photos" / name)
    table = tmp_path / "labels.csv"
    table.write_text("file,label\na.png,0\nb.png,dark\nc.png,1\nd.png,1\n")
    folder = str(tmp_path / "photos")

    def right(*how):
        found = read_labelled(folder, graph, *how)
        y = np.asarray(pqjax.reference(graph, weights, found.read(slice(0, 4))))
        return right_among(y, found.labels, 1)

    assert right("folders") == 3 and right(str(table), ("bright", "dark")) == 4
    assert len(read_labelled(folder, graph, "folders", most=3).labels) == 3
    with pytest.raises(DataError, match="pictures need --labels"):
        read_labelled(folder, graph)
    with pytest.raises(DataError, match="a class's number or name expected"):
        right(str(table))
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="no pictures in .*or an .npz file"):
        read_labelled(str(tmp_path / "empty"), graph, "folders")


@pytest.mark.parametrize(
    "arrays, said",
    [
        ({}, "an .npz file with x and y"),
        ({"x": np.zeros((3, *OUT.shape), int)}, "an .npz file with x and y"),
        ({"x": np.zeros((3, *OUT.shape), int), "y": np.zeros(2, int)}, "y, n classes, expected"),
        ({"x": np.zeros((3, *OUT.shape), int), "y": np.zeros(3)}, "y, n classes, expected"),
        ({"x": np.zeros((3, *OUT.shape)), "y": np.zeros(3, int)}, "integers expected"),
        ({"x": np.zeros((3, 1), int), "y": np.zeros(3, int)}, "shape .* expected"),
        ({"x": np.full((3, *OUT.shape), 999), "y": np.zeros(3, int)}, "values must lie"),
        ({"x": np.array([None]), "y": np.zeros(1, int)}, "cannot read the data"),
    ],
)
def test_other_data_is_one_clear_error(tmp_path, arrays, said):
    np.savez(tmp_path / "data.npz", **arrays)

    with pytest.raises(DataError, match=said):
        read_labelled(str(tmp_path / "data.npz"), GRAPH)


def test_mistakes_are_one_clear_line(data):
    labels = evaluated(data, "--labels", "folders")
    absent = command_here("evaluate", data / "net.npz", data / "none.npz")
    preset = evaluated(data, "--private", "1", "--protocol", "none")
    nowhere = evaluated(data, "--ray", "127.0.0.1:1")

    for told, said in (
        (labels, "--labels go with a folder of pictures"),
        (absent, "cannot read the data"),
        (preset, "unknown protocol"),
        (nowhere, "no Ray cluster at|pip install"),
    ):
        assert told.returncode == 1
        assert any(part in told.stderr.splitlines()[-1] for part in said.split("|")), told.stderr
