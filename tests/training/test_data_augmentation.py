"""Random changes of images: what may come out, and that it does so again."""

import colorsys
import functools
import io

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image, ImageEnhance

from tf_clip.data.augmentation import Augmentation

SIZE = (16, 16)
BICUBIC = 3


def noise(height=20, width=26, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def augmented(augmentation, pixels, count=1, size=SIZE):
    """Returns what comes out for `count` seeds."""
    seeds = tf.constant([[7, index] for index in range(count)], tf.int64)
    pixels = tf.constant(pixels)
    if count < 10:  # less work than tracing
        return [augmentation(pixels, seed, size, BICUBIC).numpy() for seed in seeds]
    spec = tf.TensorSpec([*size, 3], tf.uint8)
    one = functools.partial(augmentation, pixels, size=size, resample=BICUBIC)
    return list(tf.function(lambda: tf.map_fn(one, seeds, fn_output_signature=spec))().numpy())


def boxes(height, width, scale, ratio):
    """Returns every part of an image that may be drawn: left, top, right and bottom, as Pillow counts."""
    for part_height in range(1, height + 1):
        for part_width in range(1, width + 1):
            # A side is rounded by half a pixel at most.
            largest = (part_height + 0.5) * (part_width + 0.5) / (height * width)
            least = (part_height - 0.5) * (part_width - 0.5) / (height * width)
            shape = part_width / part_height
            if largest >= scale[0] and least <= scale[1] and ratio[0] * 0.9 <= shape <= ratio[1] * 1.1:
                for top in range(height - part_height + 1):
                    for left in range(width - part_width + 1):
                        yield left, top, left + part_width, top + part_height


def test_crops_are_pillows_and_within_the_limits():
    pixels = noise()
    augmentation = Augmentation(scale=(0.6, 1.0))
    possible = {
        np.asarray(Image.fromarray(pixels).crop(box).resize(SIZE, Image.Resampling.BICUBIC)).tobytes(): box
        for box in boxes(20, 26, augmentation.scale, augmentation.ratio)
    }
    drawn = [possible[image.tobytes()] for image in augmented(augmentation, pixels, 60)]
    areas = [(right - left) * (bottom - top) / (20 * 26) for left, top, right, bottom in drawn]
    assert len(set(drawn)) > 30
    assert min(areas) < 0.7 and max(areas) > 0.9
    assert {left == 0 for left, _, _, _ in drawn} == {top == 0 for _, top, _, _ in drawn} == {True, False}


@pytest.mark.parametrize(("height", "width"), [(4, 60), (60, 4), (1, 1)])
def test_where_no_crop_fits_the_center_is_taken(height, width):
    """As torchvision's `RandomResizedCrop.get_params` falls back."""
    pixels = noise(height, width)
    (image,) = augmented(Augmentation(), pixels)
    part_height, part_width = min(height, round(width / 0.75)), min(width, round(height * 4 / 3))
    top, left = (height - part_height) // 2, (width - part_width) // 2
    box = (left, top, left + part_width, top + part_height)
    expected = Image.fromarray(pixels).crop(box).resize(SIZE, Image.Resampling.BICUBIC)
    np.testing.assert_array_equal(image, np.asarray(expected))


def test_a_whole_image_is_resized_as_pillow_does():
    pixels = noise(30, 30)
    (image,) = augmented(Augmentation(scale=(1.0, 1.0), ratio=(1.0, 1.0)), pixels, size=(12, 18))
    expected = Image.fromarray(pixels).resize((18, 12), Image.Resampling.BICUBIC)
    np.testing.assert_array_equal(image, np.asarray(expected))


def whole(**changes):
    """Returns an augmentation that cuts nothing off a square image."""
    return Augmentation(scale=(1.0, 1.0), ratio=(1.0, 1.0), **changes)


def test_half_are_mirrored():
    pixels = noise(16, 16)
    images = augmented(whole(flip_prob=0.5), pixels, 100)
    mirrored = sum(np.array_equal(image, pixels[:, ::-1]) for image in images)
    assert mirrored + sum(np.array_equal(image, pixels) for image in images) == 100
    assert 30 < mirrored < 70


def test_some_lose_their_colors():
    pixels = noise(16, 16)
    gray = np.asarray(Image.fromarray(pixels).convert("L"))
    images = augmented(whole(gray_scale_prob=0.3), pixels, 100)
    gray_ones = [image for image in images if not np.array_equal(image, pixels)]
    assert 15 < len(gray_ones) < 45
    for image in gray_ones:
        np.testing.assert_allclose(image, np.repeat(gray[..., None], 3, -1), rtol=0, atol=1)


ENHANCERS = [ImageEnhance.Brightness, ImageEnhance.Contrast, ImageEnhance.Color]


@pytest.mark.parametrize("index", range(3))
def test_colors_change_as_pillow_changes_them(index):
    """Whatever factor was drawn, Pillow's image of some factor in the range is the same."""
    pixels = noise(16, 16)
    strengths = [0.0] * 4
    strengths[index] = 0.4
    enhancer = ENHANCERS[index](Image.fromarray(pixels))
    factors = np.linspace(0.6, 1.4, 401)
    candidates = np.stack([np.asarray(enhancer.enhance(factor)) for factor in factors]).astype(int)
    chosen = []
    for image in augmented(whole(color_jitter=tuple(strengths)), pixels, 12):
        differences = np.abs(candidates - image).max(axis=(1, 2, 3))
        assert differences.min() <= 2
        chosen.append(factors[differences.argmin()])
    assert min(chosen) < 0.85 and max(chosen) > 1.15


def test_hues_are_turned():
    pixels = np.full((16, 16, 3), (200, 60, 40), np.uint8)
    start = colorsys.rgb_to_hsv(*pixels[0, 0] / 255)
    turns = []
    for image in augmented(whole(color_jitter=(0.0, 0.0, 0.0, 0.1)), pixels, 20):
        hue, saturation, value = colorsys.rgb_to_hsv(*image[0, 0] / 255)
        turns.append((hue - start[0] + 0.5) % 1 - 0.5)
        np.testing.assert_allclose((saturation, value), start[1:], atol=0.02)
    assert -0.105 < min(turns) < -0.05 and 0.05 < max(turns) < 0.105


def test_the_order_of_color_changes_is_drawn():
    """Made brighter and then of less contrast, black and white add up to white; the other way round, to more."""
    pixels = np.zeros((16, 16, 3), np.uint8)
    pixels[:8] = 250
    images = augmented(whole(color_jitter=(0.9, 0.9, 0.0, 0.0)), pixels, 60)
    gray = [(int(image[-1, 0, 0]), int(image[0, 0, 0])) for image in images]
    sums = [black + white for black, white in gray if black > 0]
    assert sum(254 <= total <= 256 for total in sums) > 3
    assert sum(total > 258 for total in sums) > 3


def test_the_same_seed_draws_the_same():
    augmentation = Augmentation((0.3, 1.0), flip_prob=0.5, color_jitter=(0.4, 0.4, 0.4, 0.1), gray_scale_prob=0.5)
    for one, other in zip(augmented(augmentation, noise(), 5), augmented(augmentation, noise(), 5), strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"scale": (0.0, 1.0)}, "`scale` must be the least and the greatest value, above 0 and up to 1"),
        ({"scale": (0.9, 0.5)}, "`scale` must"),
        ({"scale": (0.5, 1.1)}, "`scale` must"),
        ({"ratio": (1.0,)}, "`ratio` must be the least and the greatest value, above 0. Received"),
        ({"flip_prob": 1.5}, "`flip_prob` must be from 0 to 1"),
        ({"color_jitter": (0.1, 0.1, 0.1)}, "`color_jitter` must be brightness, contrast, saturation and hue"),
        ({"color_jitter": (0.1, 0.1, 0.1, 0.6)}, "hue not above 0.5"),
    ],
)
def test_options_without_a_meaning_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        Augmentation(**options)


def test_jpegs_of_photographs_stay_in_range():
    file = io.BytesIO()
    Image.fromarray(noise(90, 60)).save(file, "JPEG")
    pixels = np.asarray(Image.open(file))
    augmentation = Augmentation((0.1, 1.0), color_jitter=(1.0, 1.0, 1.0, 0.5))
    assert len({image.tobytes() for image in augmented(augmentation, pixels, 8)}) == 8
