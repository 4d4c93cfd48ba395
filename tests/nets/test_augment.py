import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nets.augment import (
    ERASE_LIMITS,
    PADDING,
    Augmentation,
    augment,
    draw_mixing,
    draw_moves,
    mixed,
    moved,
)

SHAPE = (40, 9, 7, 3)


@pytest.fixture
def images():
    return np.random.default_rng(0).integers(0, 256, SHAPE).astype(np.uint8)


@pytest.fixture
def targets():
    return np.eye(5, dtype=np.float32)[np.arange(SHAPE[0]) % 5]


def moved_slowly(images, moves, fill):
    out = np.full_like(images, fill)
    _, height, width, _ = images.shape
    for i, (top, left, mirror, (first, end, left_edge, right_edge)) in enumerate(
        zip(*map(np.asarray, moves), strict=True)
    ):
        for y in range(height):
            for x in range(width):
                row, col = y + top - PADDING, (width - 1 - x if mirror else x) + left - PADDING
                if first <= y < end and left_edge <= x < right_edge:
                    continue
                if 0 <= row < height and 0 <= col < width:
                    out[i, y, x] = images[i, row, col]
    return out


def mixed_slowly(images, targets, mixing):
    out, labels = images.copy(), targets.astype(np.float64)
    for i, ((first, end, left, right), share) in enumerate(
        zip(*map(np.asarray, mixing), strict=True)
    ):
        blend = images[i] * (1 - share) + images[i - 1] * share
        out[i] = np.round(blend.astype(np.float32)).astype(np.uint8)
        out[i, first:end, left:right] = images[i - 1, first:end, left:right]
        share = float(share) + (end - first) * (right - left) / np.prod(images.shape[1:3])
        labels[i] = (1 - share) * targets[i] + share * targets[i - 1]
    return out, labels


@pytest.mark.parametrize("erase", [0.0, 0.5, 1.0])
def test_moves_are_those_of_a_plain_loop(images, erase):
    moves = draw_moves(jax.random.key(3), SHAPE, erase)

    np.testing.assert_array_equal(moved(images, moves, 128), moved_slowly(images, moves, 128))
    assert (np.asarray(moves.square).any(1).mean() > 0) == (erase > 0)


@pytest.mark.parametrize(("cutmix", "mixup"), [(1.0, 0.0), (0.0, 1.0), (0.3, 0.4)])
def test_mixing_is_that_of_a_plain_loop(images, targets, cutmix, mixup):
    mixing = draw_mixing(jax.random.key(4), SHAPE, Augmentation(0.0, cutmix, mixup))

    got, labels = mixed(jnp.asarray(images), jnp.asarray(targets), mixing)

    wanted, wanted_labels = mixed_slowly(images, targets, mixing)
    np.testing.assert_array_equal(got, wanted)
    np.testing.assert_allclose(labels, wanted_labels, atol=1e-6)
    assert (np.asarray(mixing.cut).any(1).any()) == (cutmix > 0)
    assert (np.asarray(mixing.share) > 0).any() == (mixup > 0)


def test_what_is_drawn_covers_its_range_and_nothing_more():
    moves = draw_moves(jax.random.key(0), (20_000, 32, 32, 3), 0.25)

    for offset in (moves.top, moves.left):
        np.testing.assert_array_equal(np.unique(offset), np.arange(2 * PADDING + 1))
    assert abs(np.mean(moves.mirror) - 0.5) < 0.02
    first, end, left, right = np.asarray(moves.square).T
    erased = end > first
    assert abs(erased.mean() - 0.25) < 0.02
    assert not (end[~erased] | right[~erased]).any()
    assert first.min() >= 0 and end.max() == 32 and left.min() >= 0 and right.max() == 32
    inner = erased & (first > 0) & (end < 32) & (left > 0) & (right < 32)
    sides = (end - first)[inner]
    np.testing.assert_array_equal(sides, (right - left)[inner])
    assert {ERASE_LIMITS[0], ERASE_LIMITS[1]} == {sides.min(), sides.max()}


def test_cuts_and_blends_have_their_chances_and_uniform_shares():
    mixing = draw_mixing(jax.random.key(0), (20_000, 32, 32, 3), Augmentation(0.0, 0.3, 0.5))

    cut = np.asarray(mixing.cut).any(1)
    share = np.asarray(mixing.share)
    assert abs(cut.mean() - 0.3) < 0.02
    assert abs((share > 0).mean() - 0.5) < 0.02
    assert not share[cut].any()
    np.testing.assert_allclose(np.quantile(share[share > 0], [0.25, 0.5, 0.75]), [0.25, 0.5, 0.75],
                               atol=0.03)  # fmt: skip


def test_a_key_gives_one_result_and_targets_stay_distributions(images, targets):
    settings = Augmentation(0.25, 0.5, 0.5)

    results = [augment(jax.random.key(k), images, targets, 128, settings) for k in (1, 1, 2)]

    (x, y), (again, y_again), (other, _) = results
    np.testing.assert_array_equal(x, again)
    np.testing.assert_array_equal(y, y_again)
    assert x.dtype == np.uint8 and not np.array_equal(x, other)
    np.testing.assert_allclose(y.sum(1), 1, atol=1e-6)
    assert (np.asarray(y) >= 0).all()


def test_without_mixing_targets_pass_as_they_are(images, targets):
    _, y = augment(jax.random.key(0), images, targets, 128, Augmentation())

    np.testing.assert_array_equal(y, targets)


@pytest.mark.parametrize("chances", [(-0.1, 0, 0), (0, 1.1, 0), (0, 0.6, 0.6)])
def test_chances_that_are_none_are_refused(chances):
    with pytest.raises(ValueError, match="chances"):
        Augmentation(*chances)
