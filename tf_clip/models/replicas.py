"""Training on several devices of `tf.distribute`: the loss of all devices' pairs together.

`keras.distribution` on JAX needs none of this: there a batch is one array, on however many devices it lies.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
from keras import ops

from tf_clip.losses import GlobalBatch


def num_replicas() -> int:
    """Returns how many devices each work on a share of the batch at this point; 1 outside `tf.distribute`."""
    if keras.backend.backend() != "tensorflow":
        return 1
    import tensorflow as tf

    return 1 if tf.distribute.in_cross_replica_context() else tf.distribute.get_strategy().num_replicas_in_sync


def as_logs(results: dict[str, Any]) -> dict[str, Any]:
    """Returns a step's results as Keras's `fit` can take their mean over the replicas.

    Where these are of several processes, Keras 3.15 takes it over the first axis, which a number has not.
    """
    if num_replicas() == 1:
        return results
    import tensorflow as tf

    strategy = tf.distribute.get_strategy()
    if isinstance(strategy, tf.distribute.MultiWorkerMirroredStrategy) and strategy.cluster_resolver.cluster_spec():
        return {name: tf.expand_dims(value, 0) for name, value in results.items()}
    return results


def gather_pairs(text_embeds: Any, image_embeds: Any, pair_ids: Any = None) -> GlobalBatch:
    """Brings the pairs of all replicas together; gradients flow back to the replica that made them.

    Args:
        text_embeds: float `[batch, projection_dim]`; the batches may differ in size.
        image_embeds: float `[batch, projection_dim]`.
        pair_ids: int `[batch]`.

    Returns:
        The same of all replicas, in their order.
    """
    import tensorflow as tf

    context = tf.distribute.get_replica_context()
    texts, images = context.all_gather([text_embeds, image_embeds], axis=0)
    # On their own: integers have no gradient to be sent back with the others'.
    return GlobalBatch(texts, images, context.all_gather(tf.stop_gradient(pair_ids), axis=0))


def own_row_ids(rows: Any) -> Any:
    """Returns int32 `[batch]`: a number of its own for each row of each replica."""
    import tensorflow as tf

    replica = tf.cast(tf.distribute.get_replica_context().replica_id_in_sync_group, "int32")
    return tf.range(tf.shape(rows)[0]) * num_replicas() + replica


def train_step(model: keras.Model, data: Any) -> Any:
    """Makes one step on this replica's share of a batch, as Keras does, with the gradients of the whole batch.

    Keras clips each replica's gradients and looks for overflows in them before it adds them up, which is not what
    one device would do. Here they are added up first.
    """
    import tensorflow as tf

    x, y, sample_weight = keras.utils.unpack_x_y_sample_weight(data)
    context = tf.distribute.get_replica_context()
    weights = model.trainable_weights
    with tf.GradientTape() as tape:
        y_pred = model(x, training=True)
        share = model.compute_loss(x, y, y_pred, sample_weight, training=True)
        scaled = model.optimizer.scale_loss(share)
    gradients = tape.gradient(scaled, weights)
    known = [index for index, gradient in enumerate(gradients) if gradient is not None]
    # As tensors: those of embeddings are lists of rows at first.
    own = [tf.convert_to_tensor(gradients[index]) for index in known]
    whole = context.all_reduce(tf.distribute.ReduceOp.SUM, own)
    whole = _clip(whole, model.optimizer)
    for index, gradient in zip(known, whole, strict=True):
        # The optimizer adds up what it gets from the replicas, which is the same from each.
        gradients[index] = gradient / num_replicas()
    model.optimizer.apply_gradients(zip(gradients, weights, strict=True))
    loss = context.all_reduce(tf.distribute.ReduceOp.SUM, share)
    model.metrics[0].update_state(loss, sample_weight=tf.shape(y_pred["text_embeds"])[0])
    return model.compute_metrics(x, y, y_pred, sample_weight)


def _clip(gradients: Sequence[Any], optimizer: keras.optimizers.Optimizer) -> Sequence[Any]:
    """Clips as the optimizer would on one device; that it does so again, to shares of them, changes nothing.

    Raises:
        ValueError: the optimizer would clip the mean of several batches.
    """
    import tensorflow as tf

    inner = getattr(optimizer, "inner_optimizer", optimizer)
    limits = (inner.clipvalue, inner.clipnorm, inner.global_clipnorm)
    if inner.gradient_accumulation_steps and any(limit is not None for limit in limits):
        raise ValueError(
            "`gradient_accumulation_steps` must be None with clipping on several devices: each batch would be clipped, "
            f"not their mean. Received: gradient_accumulation_steps={inner.gradient_accumulation_steps}. "
            "Leave one of the two out, or take larger batches with compile(encode_chunk_size=...)."
        )
    scale = optimizer.scale_loss(ops.ones((), "float32"))
    if inner.clipvalue is not None:
        limit = inner.clipvalue * scale
        return [tf.clip_by_value(gradient, -limit, limit) for gradient in gradients]
    if inner.clipnorm is not None:
        return [tf.clip_by_norm(gradient, inner.clipnorm * scale) for gradient in gradients]
    if inner.global_clipnorm is not None:
        return tf.clip_by_global_norm(gradients, inner.global_clipnorm * scale)[0]  # type: ignore[no-any-return]
    return gradients
