"""Each rewriting of weights, on its own: what is computed stays."""

import keras
import numpy as np
import pytest

from tf_clip import CLIPFeatureExtractorTF
from tf_clip.inference import folding
from tf_clip.layers.transformer import quick_gelu

GENERATOR = np.random.default_rng(0)
ROWS = GENERATOR.normal(size=(6, 10)).astype("float32")


def projection(inputs=10, outputs=7, seed=1):
    generator = np.random.default_rng(seed)
    return tuple(generator.normal(size=shape).astype("float32") for shape in ((inputs, outputs), (outputs,)))


def apply(projection, rows=ROWS):
    kernel, bias = projection
    return rows @ kernel + bias


def assert_close(ours, theirs, atol=1e-5):
    np.testing.assert_allclose(np.asarray(ours), np.asarray(theirs), atol=atol, rtol=1e-6)


def test_projections_side_by_side_give_what_each_gives():
    parts = [projection(outputs=outputs, seed=outputs) for outputs in (3, 4, 2)]
    assert_close(apply(folding.side_by_side(parts)), np.concatenate([apply(part) for part in parts], axis=1))


def test_a_norms_scale_and_offset_go_into_the_next_product():
    scale, offset = GENERATOR.normal(size=(2, 10)).astype("float32")
    folded = folding.behind_norm(*projection(), scale, offset)
    assert_close(apply(folded), apply(projection(), ROWS * scale + offset))


def test_a_factor_goes_into_the_product():
    assert_close(apply(folding.times(*projection(), 0.25)), 0.25 * apply(projection()))


def test_taking_the_mean_away_is_what_a_norm_does():
    without = apply(folding.without_mean(*projection()))
    assert_close(without.mean(axis=1), np.zeros(6))
    norm = keras.layers.LayerNormalization(epsilon=1e-5)
    assert_close(norm(without), norm(apply(projection())))


def test_a_convolution_by_its_own_size_is_a_product():
    convolution = keras.layers.Conv2D(6, 4, strides=4, use_bias=False)
    pixels = GENERATOR.normal(size=(2, 8, 12, 3)).astype("float32")
    expected = convolution(pixels)
    rows = pixels.reshape(2, 2, 4, 3, 4, 3).transpose(0, 1, 3, 2, 4, 5).reshape(12, -1)
    kernel = folding.patch_kernel(keras.ops.convert_to_numpy(convolution.kernel))
    assert_close((rows @ kernel).reshape(2, 2, 3, 6), expected)


def test_bytes_need_no_normalization():
    images = CLIPFeatureExtractorTF(size=8, crop_size=8)
    pixels = GENERATOR.integers(0, 256, (3, 8, 8, 3), dtype=np.uint8)
    kernel, bias = projection(8 * 8 * 3, 5)
    folded = folding.reading_bytes(kernel, bias, *images.scale_and_shift())
    normalized = images(pixels)["pixel_values"].numpy().reshape(3, -1)
    assert_close(apply(folded, pixels.reshape(3, -1).astype("float32")), apply((kernel, bias), normalized), atol=1e-4)


def test_quick_gelu_is_silu_between_other_products():
    widening, narrowing = projection(), projection(7, 4)
    expected = apply(narrowing, np.asarray(quick_gelu(apply(widening))))
    folded_widening, folded_narrowing = folding.quick_gelu_as_silu(widening, narrowing)
    wide = apply(folded_widening)
    assert_close(apply(folded_narrowing, wide / (1 + np.exp(-wide))), expected)


@pytest.mark.parametrize("bounds", [[0, 7], [0, 3, 7], folding.even_bounds(7, 3)])
def test_a_product_is_its_columns_side_by_side(bounds):
    parts = folding.by_columns(*projection(), bounds)
    assert_close(np.concatenate([apply(part) for part in parts], axis=1), apply(projection()))


@pytest.mark.parametrize("bounds", [[0, 10], [0, 3, 10], folding.even_bounds(5, 2, unit=2)])
def test_a_product_is_the_sum_of_its_rows(bounds):
    parts = folding.by_rows(*projection(), bounds)
    sizes = [len(kernel) for kernel, _ in parts]
    columns = np.split(ROWS, np.cumsum(sizes)[:-1], axis=1)
    summed = sum(rows @ kernel for rows, (kernel, _) in zip(columns, parts, strict=True))
    assert [bias is None for _, bias in parts] == [False] + [True] * (len(parts) - 1)
    assert_close(summed + parts[0][1], apply(projection()))


def test_bounds_are_even_and_cut_no_unit():
    assert folding.even_bounds(5, 2, unit=8) == [0, 16, 40]
    assert folding.even_bounds(12, 4) == [0, 3, 6, 9, 12]


@pytest.mark.parametrize("name", ["side_by_side", "behind_norm", "times", "without_mean", "reading_bytes"])
def test_the_arrays_given_stay_as_they_were(name):
    kernel, bias = projection()
    before = kernel.copy(), bias.copy()
    vector = np.full(10, 3.0, np.float32)
    arguments = {
        "side_by_side": ([(kernel, bias)] * 2,),
        "behind_norm": (kernel, bias, vector, vector),
        "times": (kernel, bias, 3.0),
        "without_mean": (kernel, bias),
        "reading_bytes": (kernel, bias, vector[:2], vector[:2]),
    }
    getattr(folding, name)(*arguments[name])
    np.testing.assert_array_equal(kernel, before[0])
    np.testing.assert_array_equal(bias, before[1])


def test_panels_stand_side_by_side():
    kernel = np.random.default_rng(0).normal(size=(5, 12))
    panels = folding.panels(kernel, 4)
    assert panels.shape == (3, 5, 4)
    np.testing.assert_array_equal(np.concatenate(list(panels), axis=1), kernel)
