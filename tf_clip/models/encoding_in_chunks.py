"""A tower over a large batch a few rows at a time, in training too: gradient caching.

The forward pass keeps the embeddings alone. The backward pass encodes each chunk a second time, with its gradient
at hand, and adds up what the chunks say about the weights. So the memory is that of one chunk, whatever the batch,
and the gradients are those of the whole batch.

Source: Gao et al. 2021 (GradCache); Cui et al. 2022 (BASIC), section 4; open_clip's `--accum-freq`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import keras
from keras import ops

Encode = Callable[[Mapping[str, Any]], Any]


def encode_in_chunks(
    tower: keras.Model,
    encode: Encode,
    inputs: Mapping[str, Any],
    embed_dim: int,
    chunk_size: int,
    shared: Sequence[keras.Variable] = (),
) -> Any:
    """Encodes a batch, `chunk_size` rows in memory at a time.

    Args:
        tower: what `encode` calls; its trainable weights get gradients, the inputs get none.
        encode: from a chunk of the inputs to float `[chunk_size, embed_dim]`, each row on its own and the
            same when it is called again.
        inputs: tensors by name, `[batch, ...]` all.
        embed_dim: width of what comes out.
        chunk_size: rows at a time.
        shared: trainable weights that `encode` reads and that are not the tower's own.

    Returns:
        float `[batch, embed_dim]`, in the tower's compute dtype.
    """
    count = next(iter(inputs.values())).shape[0]
    if count is not None and count <= chunk_size:
        return encode(inputs)
    variables = [*tower.trainable_variables, *shared]
    return _IN_CHUNKS[keras.backend.backend()](variables, encode, inputs, (chunk_size, embed_dim), tower.compute_dtype)


def _on_tensorflow(
    variables: Sequence[keras.Variable], encode: Encode, inputs: Mapping[str, Any], shape: tuple[int, int], dtype: str
) -> Any:
    import tensorflow as tf

    inputs = {name: tf.convert_to_tensor(value) for name, value in inputs.items()}
    count = tf.shape(next(iter(inputs.values())))[0]
    chunk_size = shape[0]
    num_chunks = -(-count // chunk_size)
    trainable = [variable.value for variable in variables]

    def chunk(index: Any) -> dict[str, Any]:
        # Of one size each, as compilers ask for: what is missing from the last repeats the last row.
        rows = tf.minimum(index * chunk_size + tf.range(chunk_size), count - 1)
        return {name: tf.gather(value, rows) for name, value in inputs.items()}

    def loop(body: Callable[..., Any], *carry: Any) -> Any:
        # One chunk at a time: by default ten would be in memory at once.
        return tf.while_loop(
            lambda index, *_: index < num_chunks,
            lambda index, *carry: (index + 1, *body(index, *carry)),
            (0, *carry),
            parallel_iterations=1,
        )[1:]

    def add(index: Any, upstream: Any, sums: Sequence[Any]) -> tuple[Any, ...]:
        start = index * chunk_size
        with tf.GradientTape() as tape:
            embeds = encode(chunk(index))
        slopes = tape.gradient(
            embeds,
            trainable,
            output_gradients=upstream[start : start + chunk_size],
            unconnected_gradients=tf.UnconnectedGradients.ZERO,
        )
        return tuple(total + tf.convert_to_tensor(slope) for total, slope in zip(sums, slopes, strict=True))

    @tf.custom_gradient
    def run(*values: Any) -> Any:
        array = tf.TensorArray(dtype, size=num_chunks, element_shape=shape)
        (array,) = loop(lambda index, array: (array.write(index, encode(chunk(index))),), array)
        embeds = tf.reshape(array.stack(), (-1, shape[1]))[:count]

        def gradient(upstream: Any, variables: Sequence[Any] = ()) -> Any:
            upstream = tf.pad(upstream, [[0, num_chunks * chunk_size - count], [0, 0]])  # padding has no say
            sums = loop(lambda index, *sums: add(index, upstream, sums), *(tf.zeros_like(value) for value in values))
            # What the variables get, they get by their values.
            return (tuple(sums), [None] * len(variables)) if variables else tuple(sums)

        return embeds, gradient

    if not trainable:
        return tf.stop_gradient(run(tf.zeros(())))
    return run(*(tf.convert_to_tensor(variable) for variable in trainable))


def _on_jax(
    variables: Sequence[keras.Variable], encode: Encode, inputs: Mapping[str, Any], shape: tuple[int, int], dtype: str
) -> Any:
    count = next(iter(inputs.values())).shape[0]
    chunk_size = shape[0]
    num_chunks = -(-count // chunk_size)

    def apart(value: Any) -> Any:
        """Returns `[num_chunks, chunk_size, ...]`; every chunk has rows of all devices, which hold blocks of rows."""
        missing = num_chunks * chunk_size - count
        if missing:
            value = ops.pad(value, [(0, missing)] + [(0, 0)] * (len(value.shape) - 1))
        return ops.swapaxes(ops.reshape(value, (chunk_size, num_chunks, *value.shape[1:])), 0, 1)

    embeds = ops.map(keras.remat(encode), {name: apart(value) for name, value in inputs.items()})
    return ops.reshape(ops.swapaxes(embeds, 0, 1), (-1, shape[1]))[:count]


def _on_torch(
    variables: Sequence[keras.Variable], encode: Encode, inputs: Mapping[str, Any], shape: tuple[int, int], dtype: str
) -> Any:
    count = next(iter(inputs.values())).shape[0]
    again = keras.remat(encode)
    parts = [
        again({name: value[start : start + shape[0]] for name, value in inputs.items()})
        for start in range(0, count, shape[0])
    ]
    return ops.concatenate(parts, axis=0)


_IN_CHUNKS = {"tensorflow": _on_tensorflow, "jax": _on_jax, "torch": _on_torch}
