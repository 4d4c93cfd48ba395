"""Pictures as people have them, and labels of answers."""

import io
import json
from typing import Any

import numpy as np
import pytest
from PIL import Image

from pqjax.answers import likeliest
from pqjax.cli.classes import in_words, names_of, read_names
from pqjax.errors import DataError, InputError, PlanError
from pqjax.graph import ArgMax, Dense, Flatten, Graph, Input, TensorType, save_model
from pqjax.pictures import fit_picture, picture_input, read_picture
from pqjax.planner import plan, read_plan
from pqjax.questions import Picture, fitted, read_question

RED = (200, 30, 40)


def saved(tmp_path, picture, name, **options):
    path = tmp_path / name
    picture.save(path, **options)
    return path


def near(pixels, colour, tolerance=6):
    return np.abs(pixels.reshape(-1, 3).astype(int) - np.array(colour)).max() <= tolerance


def test_colour_spaces_become_rgb(tmp_path):
    red = Image.new("RGB", (20, 10), RED)

    assert near(read_picture(saved(tmp_path, red, "rgb.png")), RED)
    assert near(read_picture(saved(tmp_path, red.convert("CMYK"), "cmyk.jpg", quality=95)), RED)
    assert near(read_picture(saved(tmp_path, red.convert("P"), "palette.png")), RED, 60)
    assert near(read_picture(saved(tmp_path, red.convert("HSV").convert("RGB"), "x.webp")), RED, 12)
    grey = read_picture(saved(tmp_path, Image.new("L", (20, 10), 77), "grey.png"))
    assert grey.shape == (10, 20, 3) and (grey == 77).all()
    bits = read_picture(saved(tmp_path, Image.new("1", (20, 10), 1), "bits.png"))
    assert (bits == 255).all()


def test_sixteen_bit_grey_keeps_its_upper_bits(tmp_path):
    ramp = np.arange(200, dtype=np.uint16).reshape(10, 20) * 256 + 17

    path = saved(tmp_path, Image.fromarray(ramp), "deep.png")

    np.testing.assert_array_equal(read_picture(path)[..., 1], ramp >> 8)


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P"])
def test_what_is_transparent_is_white(tmp_path, mode):
    clear = Image.new("RGBA", (8, 8), (*RED, 0))
    options = {}
    if mode == "P":
        clear = Image.new("P", (8, 8), 0)
        clear.putpalette([*RED, 0, 0, 0])
        options = {"transparency": 0}
    else:
        clear = clear.convert(mode)

    assert (read_picture(saved(tmp_path, clear, "clear.png", **options)) == 255).all()


@pytest.mark.parametrize("suffix", ["gif", "webp", "png"])
def test_of_an_animation_the_first_frame_is_taken(tmp_path, suffix):
    frames = [Image.new("RGB", (16, 16), c) for c in (RED, (0, 255, 0), (0, 0, 255))]

    path = saved(tmp_path, frames[0], f"moving.{suffix}", save_all=True, append_images=frames[1:])

    assert near(read_picture(path), RED, 60)


def test_a_turned_photograph_is_turned_back(tmp_path):
    half = np.zeros((10, 20, 3), np.uint8)
    half[:, 10:] = 255
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was held upright

    path = saved(tmp_path, Image.fromarray(half), "turned.png", exif=exif)

    pixels = read_picture(path)
    assert pixels.shape == (20, 10, 3) and pixels[0].max() == 0 and pixels[-1].min() == 255


def damaged():
    whole = io.BytesIO()
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)).save(
        whole, "PNG"
    )
    raw = whole.getvalue()
    yield "cut.png", raw[: len(raw) // 2]
    yield "header.png", raw[:20]
    yield "text.jpg", b"no picture at all"
    yield "empty.png", b""
    yield "flipped.png", raw[:60] + bytes(255 - b for b in raw[60:200]) + raw[200:]


@pytest.mark.parametrize(
    ("name", "raw"), list(damaged()), ids=lambda v: v if isinstance(v, str) else ""
)
def test_corrupt_files_are_one_error(tmp_path, name, raw):
    (tmp_path / name).write_bytes(raw)

    with pytest.raises(DataError, match=f"{name} is not a readable picture"):
        read_picture(tmp_path / name)


def test_missing_files_folders_and_bombs_are_one_error(tmp_path, monkeypatch):
    with pytest.raises(DataError, match="no picture at"):
        read_picture(tmp_path / "none.png")
    with pytest.raises(DataError, match="not a readable picture"):
        read_picture(tmp_path)
    path = saved(tmp_path, Image.new("RGB", (99, 99)), "large.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    with pytest.raises(DataError, match="large.png is not a readable picture: .*pixels"):
        read_picture(path)


def network(classes=3, arg_max=False):
    nodes = [
        Input("x", (), TensorType((4,), 4, 0)),
        Dense("fc", ("x",), TensorType((classes,), 16, 0), 4, 0),
    ]
    if arg_max:
        nodes.append(ArgMax("class", ("fc",), TensorType((1,), 4, 0, signed=False)))
    return Graph(tuple(nodes))


def test_a_network_without_an_rgb_input_says_so():
    with pytest.raises(InputError, match="no 8-bit picture, RGB or grey"):
        picture_input(network(), np.zeros((4, 4, 3), np.uint8))
    with pytest.raises(InputError, match="a picture is uint8"):
        fit_picture(np.zeros((4, 4), np.uint8), (2, 2))


def test_the_shorter_side_is_scaled_before_the_centre_is_cut():
    picture = np.zeros((40, 20, 3), np.uint8)
    picture[10:30] = np.arange(20)[:, None, None] * 10  # a square in the middle, by rows

    whole = fit_picture(picture, (16, 16))
    inner = fit_picture(picture, (16, 16), shorter=20)

    np.testing.assert_array_equal(inner, picture[12:28, 2:18])
    assert np.ptp(whole) > np.ptp(inner)
    assert fit_picture(picture, (8, 12), shorter=12).shape == (8, 12, 3)
    np.testing.assert_array_equal(fit_picture(inner, (16, 16), shorter=20), inner)


def pixels_network():
    nodes = [
        Input("x", (), TensorType((4, 6, 3), 8, 8)),
        Flatten("flat", ("x",), TensorType((72,), 8, 8)),
        Dense("fc", ("flat",), TensorType((3,), 20, 8), 4, 0),
    ]
    return Graph(tuple(nodes))


def test_how_pictures_are_scaled_travels_with_the_plan():
    graph = pixels_network()
    made = plan(graph, shorter=5)
    told = read_plan(made.document)

    assert told.shorter == 5 and read_plan(plan(graph).document).shorter is None
    assert made.digest != plan(graph).digest
    picture = np.random.default_rng(0).integers(0, 256, (20, 30, 3)).astype(np.uint8)
    (x,), _ = fitted(told.source, Picture("a.png", picture), told.shorter)
    np.testing.assert_array_equal(x, fit_picture(picture, (4, 6), 5).astype(int) - 128)
    for bad in (3, 9, 0, -5, 4.5, "5", True):
        with pytest.raises(PlanError, match="shorter side: 4..8 expected"):
            plan(graph, shorter=bad)  # pyright: ignore[reportArgumentType]
    with pytest.raises(PlanError, match="0..0 expected"):
        plan(network(), shorter=5)


def test_class_names_come_from_a_list_a_network_file_or_the_plan(tmp_path):
    graph = network()
    weights = {"fc/weight": np.ones((4, 3), int), "fc/bias": np.zeros(3, int)}
    names, others = ["cat", "cup", "coffee pot"], ("chat", "tasse", "cafetière")
    (tmp_path / "names.json").write_text(json.dumps(names))
    save_model(tmp_path / "named.npz", graph, weights, {"classes": names})
    save_model(tmp_path / "bare.npz", graph, weights)
    made = plan(graph, classes=others)

    for file in ("names.json", "named.npz"):
        found = names_of(read_names(str(tmp_path / file)), file, made)
        assert list(found) == names
    assert names_of(None, "", read_plan(made.document)) == others
    assert names_of(None, "", plan(graph)) == ()
    with pytest.raises(DataError, match="carries no class names"):
        read_names(str(tmp_path / "bare.npz"))


def test_the_likeliest_classes_come_first_with_names_that_steer_no_terminal():
    graph, y, names = network(), np.array([3, 9, 5]), ["cat", "\x1b[2Jcup\n", "pot"]

    assert [each["class"] for each in likeliest(graph, y, (), 3)] == [1, 2, 0]
    assert in_words(likeliest(graph, y, (), 2), False) == "1, 2"
    assert in_words(likeliest(graph, y, names, 2), True) == "1 [2Jcup (9), 2 pot (5)"
    assert in_words(likeliest(graph, np.array([2]), names, 5), True) == "2 pot"
    assert likeliest(graph, np.zeros((2, 2), int), names, 5) == []
    for strange in (7, -1):  # a server may answer what it likes
        assert in_words(likeliest(graph, np.array([strange]), names, 1), True) == str(strange)


@pytest.mark.parametrize("arg_max", [False, True])
def test_a_class_list_of_the_wrong_length_is_refused(arg_max):
    graph = network(arg_max=arg_max)
    with pytest.raises(DataError, match="names.json: the network tells 3 classes.*2 are named"):
        names_of(["cat", "cup"], "names.json", plan(graph))
    with pytest.raises(PlanError, match="the network tells 3 classes.*2 are named"):
        plan(graph, classes=["cat", "cup"])
    wrong: Any
    for wrong in ("cat", 3, ["cat", "cup", 3], {"cat": 0, "cup": 1, "pot": 2}):
        with pytest.raises(PlanError, match="class names are a list of strings"):
            plan(graph, classes=wrong)


def test_an_array_file_that_declares_more_than_it_holds_is_refused(tmp_path):
    path = tmp_path / "liar.npy"
    header = b"{'descr': '<i8', 'fortran_order': False, 'shape': (1099511627776,)}"
    header += b" " * (-(len(header) + 11) % 64) + b"\n"
    path.write_bytes(b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header + bytes(64))

    with pytest.raises(DataError, match="cannot read the input"):
        read_question(str(path))


@pytest.mark.parametrize("text", ["[" * 100_000, '["a", NaN]', "[1e999]", "{'a'"])
def test_class_names_that_are_no_json_are_refused(tmp_path, text):
    path = tmp_path / "names.json"
    path.write_text(text)

    with pytest.raises(DataError, match="cannot read the class names"):
        read_names(str(path))
