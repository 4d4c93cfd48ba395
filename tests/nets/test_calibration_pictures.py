"""Pictures to calibrate on and their labels: read as the network reads them, refused by name."""

import numpy as np
import pytest
from PIL import Image

from nets.importing.named import crops
from nets.importing.pictures import read_pictures
from nets.setting import SETTINGS, Setting
from pqjax.errors import DataError, InputError
from pqjax.pictures import fit_picture, read_picture

SHAPE = (6, 8, 3)
NAMES = ("cat", "dog")


@pytest.fixture
def folder(tmp_path):
    for place, shade in (("cat/a.png", 20), ("dog/b.jpg", 200), ("dog/c.PNG", 90)):
        path = tmp_path / "photos" / place
        path.parent.mkdir(parents=True, exist_ok=True)
        pixels = np.full((20, 30, 3), shade, np.uint8)
        pixels[:, :5] = 0
        Image.fromarray(pixels).save(path)
    (tmp_path / "photos" / "notes.txt").write_text("no picture")
    return tmp_path / "photos"


def test_a_folders_pictures_are_scaled_as_the_network_wants_them(folder):
    seen = []

    found = read_pictures(folder, SHAPE, 8, 99, progress=lambda done, of: seen.append((done, of)))

    wanted = [fit_picture(read_picture(p), SHAPE[:2], 8) for p in sorted(folder.rglob("*.*"))[:3]]
    np.testing.assert_array_equal(found.pixels, wanted)
    assert found.labels is None and seen[-1] == (3, 3)
    assert found.digest != read_pictures(folder, SHAPE, None, 99).digest


def test_grey_networks_get_luminance(folder):
    found = read_pictures(folder, (6, 8, 1), None, 99)

    assert found.pixels.shape == (3, 6, 8, 1) and found.pixels[0, 3, 7, 0] == 20


def test_as_many_are_drawn_as_are_wanted_always_the_same(folder):
    one, again = (read_pictures(folder, SHAPE, None, 2).pixels for _ in range(2))

    assert len(one) == 2
    np.testing.assert_array_equal(one, again)


def test_labels_come_from_folders_or_a_table(folder, tmp_path):
    table = tmp_path / "labels.csv"
    table.write_text("file,label\na.png,1\nphotos/b.jpg,cat\nc.PNG,0\nmore.png,1\n")

    by_folder = read_pictures(folder, SHAPE, None, 9, "folders", NAMES)
    by_table = read_pictures(folder, SHAPE, None, 9, str(table), NAMES)

    assert by_folder.labels is not None and by_folder.labels.tolist() == [0, 1, 1]
    assert by_table.labels is not None and by_table.labels.tolist() == [1, 0, 0]


def test_an_array_of_integers_is_taken_as_it_is(tmp_path):
    given = np.arange(2 * 6 * 8 * 3).reshape(2, *SHAPE) % 256
    np.save(tmp_path / "x.npy", given)

    found = read_pictures(tmp_path / "x.npy", SHAPE, 8, 9)

    np.testing.assert_array_equal(found.pixels, given)
    assert found.pixels.dtype == np.uint8 and found.origin == "x.npy"


def test_what_is_no_picture_or_label_is_refused_by_name(folder, tmp_path):
    def refused(message, path, labels=None, shape=SHAPE):
        with pytest.raises(DataError, match=message):
            read_pictures(path, shape, None, 9, labels, NAMES)

    refused("no pictures in .*none", tmp_path / "none")
    refused("cannot read the labels", folder, str(tmp_path / "none.csv"))
    refused("no 8-bit picture", folder, shape=(6, 8, 2))
    (tmp_path / "odd.csv").write_text("path,class\na,b\n")
    refused("columns file and label", folder, str(tmp_path / "odd.csv"))
    (tmp_path / "few.csv").write_text("file,label\na.png,1\n")
    refused("no label for dog/b.jpg", folder, str(tmp_path / "few.csv"))
    (tmp_path / "far.csv").write_text("file,label\na.png,2\nb.jpg,0\nc.PNG,0\n")
    refused(
        "a.png: a class's number or name expected as its label, got '2'",
        folder,
        str(tmp_path / "far.csv"),
    )
    (folder / "bird").mkdir()
    Image.new("RGB", (9, 9)).save(folder / "bird" / "z.png")
    refused("z.png: a class's number or name", folder, "folders")
    (folder / "bird" / "z.png").write_bytes(b"garbage")
    refused("z.png is not a readable picture", folder)
    for name, array, message in (
        ("float.npy", np.zeros((1, *SHAPE)), "integers 0..255"),
        ("side.npy", np.zeros((1, 6, 8, 1), int), r"pictures \(n, 6, 8, 3\) expected"),
        ("wide.npy", np.full((1, *SHAPE), 256), "integers 0..255 expected, got 256"),
    ):
        np.save(tmp_path / name, array)
        refused(message, tmp_path / name)
    refused("labels go with a folder", tmp_path / "wide.npy", "folders")
    (tmp_path / "cut.npy").write_bytes(b"\x93NUMPY")
    refused("cannot read the pictures", tmp_path / "cut.npy")


def test_parts_of_photographs_are_always_the_same_and_differ():
    one, again = crops((16, 12), 9), crops((16, 12), 9)

    assert one.shape == (9, 16, 12, 3) and one.dtype == np.uint8
    np.testing.assert_array_equal(one, again)
    assert len({part.tobytes() for part in one}) == 9


def test_bits_are_read_and_bounded():
    assert Setting.parse("w4a6") == SETTINGS["W4A6"] == Setting("W4A6", 4, 4, 8, 6, 10)
    assert Setting.parse("W5A8R9").residual == 9
    for bad in ("W4", "A8W8", "W9A8", "W1A8", "W8A9", "W8A8R7", "W8A8R17", "W8A8 "):
        with pytest.raises(InputError, match="expected"):
            Setting.parse(bad)
