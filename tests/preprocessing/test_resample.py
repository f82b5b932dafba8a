"""Resizing against Pillow: not one value may differ."""

import numpy as np
import PIL
import pytest
import tensorflow as tf
from hypothesis import example, given, settings
from hypothesis import strategies as st
from PIL import Image

from helpers.image_files import noise
from tf_clip.preprocessing.images.resample import FILTERS, Resampler

pytestmark = pytest.mark.skipif(
    int(PIL.__version__.partition(".")[0]) < 13, reason="the order of the two passes is that of Pillow 13"
)

SIZES = st.integers(1, 80)


def resize(image, shape, resample):
    shape = tf.constant(shape)
    return Resampler(image.shape[:2], tf.unstack(shape), (0, 0), tf.unstack(shape), resample)(
        tf.constant(image)
    ).numpy()


def resize_by_pillow(image, shape, resample):
    return np.asarray(Image.fromarray(image).resize(shape[::-1], resample))


@pytest.mark.slow
@pytest.mark.parametrize("resample", sorted(FILTERS))
@settings(max_examples=40, deadline=None, derandomize=True)
@given(source=st.tuples(SIZES, SIZES), target=st.tuples(SIZES, SIZES), seed=st.integers(0, 99))
@example(source=(1, 1), target=(80, 80), seed=0)
@example(source=(80, 80), target=(1, 1), seed=0)
@example(source=(17, 31), target=(17, 31), seed=0)
def test_any_size_to_any_size_equals_pillow(resample, source, target, seed):
    image = noise((*source, 3), seed)
    np.testing.assert_array_equal(resize(image, target, resample), resize_by_pillow(image, target, resample))


@pytest.mark.parametrize("resample", sorted(FILTERS))
@pytest.mark.parametrize(
    ("source", "target"),
    [((900, 1201), (23, 31)), ((3, 5), (411, 307)), ((1, 2000), (7, 13)), ((480, 640), (224, 298))],
    ids=["down", "up", "line", "photo"],
)
def test_extreme_scales_equal_pillow(resample, source, target):
    image = noise((*source, 3))
    np.testing.assert_array_equal(resize(image, target, resample), resize_by_pillow(image, target, resample))


@pytest.mark.parametrize("values", [0, 255], ids=["black", "white"])
def test_one_color_stays_one_color(values):
    image = np.full((37, 41, 3), values, np.uint8)
    assert (resize(image, (19, 97), 3) == values).all()


@settings(max_examples=40, deadline=None, derandomize=True)
@given(
    offset=st.tuples(st.integers(-20, 40), st.integers(-20, 40)),
    window=st.tuples(st.integers(1, 40), st.integers(1, 40)),
)
def test_a_window_is_the_crop_of_the_whole_and_zero_beyond_it(offset, window):
    image, resized = noise((30, 23, 3)), (26, 35)
    whole = np.pad(resize_by_pillow(image, resized, 3), [(60, 60), (60, 60), (0, 0)])
    (top, left), (height, width) = offset, window
    expected = whole[60 + top : 60 + top + height, 60 + left : 60 + left + width]
    actual = Resampler(image.shape[:2], resized, offset, window, 3)(tf.constant(image))
    np.testing.assert_array_equal(actual, expected)
