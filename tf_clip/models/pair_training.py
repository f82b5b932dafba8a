"""How `CLIPModel` trains: what `compile` takes, and what `fit` does with a batch of pairs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import keras
from keras import ops

from tf_clip.adapters.composition import BatchSplit, blocks_in
from tf_clip.losses import GlobalBatch, PairLoss
from tf_clip.losses.on_embeddings import require_chunk_size
from tf_clip.models import replicas
from tf_clip.models.encoding_in_chunks import encode_in_chunks
from tf_clip.models.outputs import CLIPOutput
from tf_clip.unit_length import unit_length

_STATISTICS = ("/moving_mean", "/moving_variance")
# The model whose training or evaluation step runs. Per thread, since tf.distribute runs a thread a replica.
_IN_STEP: ContextVar[Any] = ContextVar("in_step", default=None)


class PairTraining:
    """Mixed into `CLIPModel`: a step encodes both sides, and the loss compares the embeddings.

    In a step the model returns embeddings and no logits: the loss makes those, in chunks where it is told to.
    """

    # What the model is, or Keras makes it: see `TwoTowerModel`.
    config: Any
    text_encoder: Any
    image_encoder: Any
    logit_scale: Any
    logit_bias: Any
    accuracy: Any
    adapters: Any
    active_adapters: Any
    shared_adapters: Any
    optimizer: Any
    distribute_strategy: Any
    variables: Any
    trainable_variables: Any
    losses: Any
    get_metrics_result: Any
    _usual_loss: Any

    def compile(
        self,
        optimizer: Any = "rmsprop",
        loss: PairLoss | None = None,
        *,
        encode_chunk_size: int | None = None,
        **kwargs: Any,
    ) -> None:
        """Says how `fit` trains.

        Args:
            optimizer: a Keras optimizer, its name or its configuration.
            loss: `losses.ContrastiveLoss`, `losses.SigmoidLoss` or another `losses.PairLoss`; None takes
                CLIP's, with `encode_chunk_size` as its `chunk_size`.
            encode_chunk_size: pairs whose activations are in memory at a time (gradient caching): each
                chunk is encoded a second time for its gradients, which are those of the whole batch. None
                takes the batch at once.
            **kwargs: other arguments of Keras's `compile`: `run_eagerly`, `steps_per_execution`,
                `jit_compile`, `auto_scale_loss`.

        Raises:
            TypeError: the loss is none of pairs.
            ValueError: `metrics`, `weighted_metrics` or `loss_weights` are given, the loss needs a bias
                that the model lacks, or chunks would change the gradients: dropout is on, or a ResNet
                that trains norms its batches.
        """
        for name in ("metrics", "weighted_metrics", "loss_weights"):
            if kwargs.get(name) is not None:
                raise ValueError(
                    f"`{name}` must be None, since CLIPModel has one loss, and pairs have no labels to show a metric. "
                    f"Received: {name}={kwargs[name]!r}. `fit` reports loss and accuracy; measure more in a callback."
                )
        if loss is not None and not isinstance(loss, PairLoss):
            raise TypeError(
                "`loss` must be None or a loss of pairs, such as tf_clip.losses.ContrastiveLoss(). "
                f"Received: loss={loss!r}. For a loss of your own, subclass tf_clip.losses.PairLoss."
            )
        require_chunk_size("encode_chunk_size", encode_chunk_size)
        if encode_chunk_size is not None:
            self._require_rows_on_their_own()
        loss = type(self._usual_loss())(chunk_size=encode_chunk_size) if loss is None else loss
        if loss.needs_bias and self.logit_bias is None:
            raise ValueError(
                f"`loss` must be one that needs no bias, as the model has none. Received: loss={loss!r}. "
                "Make the model with logit_bias_init_value=-10.0 in its CLIPConfig."
            )
        super().compile(optimizer, **kwargs)  # type: ignore[misc]
        self._pair_loss = loss
        self._encode_chunk_size = encode_chunk_size

    def get_compile_config(self) -> dict[str, Any]:
        """Returns the arguments of `compile`, for saving."""
        config = super().get_compile_config()  # type: ignore[misc]
        if config:
            config["loss"] = keras.saving.serialize_keras_object(self._pair_loss)
            config["encode_chunk_size"] = self._encode_chunk_size
        return config  # type: ignore[no-any-return]

    def compile_from_config(self, config: dict[str, Any]) -> None:
        """Compiles as what `get_compile_config` returned says."""
        self.compile(**keras.saving.deserialize_keras_object(config))
        self.optimizer.build(self.trainable_variables)

    def _require_rows_on_their_own(self) -> None:
        """Refuses what makes a row's embedding depend on the other rows, or differ when it is made again."""
        # What draws random numbers keeps a state for it.
        drawing = [variable.path for variable in self.variables if "seed_generator" in variable.path]
        if drawing:
            raise ValueError(
                "`encode_chunk_size` must be None for a model with dropout: the second computation would drop other "
                f"values than the first, and the gradients would be wrong. Received: a model with {drawing[0]}. "
                "Leave one of the two out."
            )
        if _trains_batch_norms(self.image_encoder) or _trains_batch_norms(self.text_encoder):
            raise ValueError(
                "`encode_chunk_size` must be None for a ResNet that trains: its batch norms would see chunks in place "
                "of the batch. Received: image_encoder.trainable=True. Freeze it, or leave encode_chunk_size out."
            )
        if any(isinstance(block, BatchSplit) for block in blocks_in(self.active_adapters)):
            raise ValueError(
                "`encode_chunk_size` must be None where BatchSplit counts the rows of a batch: it would count those of "
                f"a chunk. Received: {self.active_adapters!r}. Use Switch, which names an adapter for every row."
            )

    def _require_one_copy(self) -> None:
        if self.adapters.row_copies > 1:
            raise ValueError(
                "`setup` must have no Parallel where a loss is asked for: row i of the texts would not belong to "
                f"row i of the images alone. Received: {self.active_adapters!r}. Train the adapters one by one."
            )

    def make_train_function(self, force: bool = False) -> Any:
        """Returns the function that `fit` calls; Keras calls this one.

        Raises:
            ValueError: the adapters, which may have come after `compile`, do not go with the loss.
        """
        self._require_pairs()
        return super().make_train_function(force)  # type: ignore[misc]

    def make_test_function(self, force: bool = False) -> Any:
        """Returns the function that `evaluate` calls; see `make_train_function`."""
        self._require_pairs()
        return super().make_test_function(force)  # type: ignore[misc]

    def _require_pairs(self) -> None:
        """Checks here, and not in the step, since Keras on JAX has taken the model's weights from it by then."""
        self._require_one_copy()
        if self._encode_chunk_size is not None:
            self._require_rows_on_their_own()

    def train_step(self, *args: Any) -> Any:
        """Makes one training step; arguments and result are those of the backend's Keras."""
        with self._step():
            if replicas.num_replicas() > 1:
                return replicas.as_logs(replicas.train_step(self, *args))
            return super().train_step(*args)  # type: ignore[misc]

    def test_step(self, *args: Any) -> Any:
        """Makes one step of `evaluate`; arguments and result are those of the backend's Keras."""
        with self._step():
            return replicas.as_logs(super().test_step(*args))  # type: ignore[misc]

    def _maybe_symbolic_build(self, iterator: Any = None, data_batch: Any = None) -> None:
        """Builds the optimizer before the first step, where the model is, on TensorFlow; Keras calls it.

        The model is built. For those that are not, Keras would run one on the mean of a batch, which fails with a
        batch that is a dictionary where the devices are of several machines (seen in Keras 3.15).
        """
        if self.optimizer is not None and not self.optimizer.built:
            with self.distribute_strategy.scope():
                self.optimizer.build(self.trainable_variables)

    @contextmanager
    def _step(self) -> Iterator[None]:
        token = _IN_STEP.set(self)
        try:
            yield
        finally:
            _IN_STEP.reset(token)

    @property
    def _is_in_step(self) -> bool:
        return _IN_STEP.get() is self

    def _embed_pairs(self, inputs: Mapping[str, Any], training: bool | None) -> CLIPOutput:
        """Returns `text_embeds` and `image_embeds`, of unit length: all that the loss needs."""
        texts = {name: inputs[name] for name in ("input_ids", "attention_mask", "position_ids") if name in inputs}
        images = {"pixel_values": inputs["pixel_values"]}
        for part, name in ((texts, "text_adapter_ids"), (images, "image_adapter_ids")):
            if name in inputs:
                part["adapter_ids"] = inputs[name]
        output = CLIPOutput()
        for tower, name, part in (
            (self.text_encoder, "text_embeds", texts),
            (self.image_encoder, "image_embeds", images),
        ):

            def encode(rows: Mapping[str, Any], tower: Any = tower, name: str = name) -> Any:
                return tower(**rows, training=training)[name]

            if self._encode_chunk_size is None:
                embeds = encode(part)
            else:
                sizes = self.config.projection_dim, self._encode_chunk_size
                embeds = encode_in_chunks(tower, encode, part, *sizes, self.shared_adapters.trainable_variables)
            output[name] = unit_length(embeds)
        return output

    def compute_loss(
        self,
        x: Any = None,
        y: Any = None,
        y_pred: Any = None,
        sample_weight: Any = None,
        training: bool = True,
    ) -> Any:
        """Returns the loss of a batch of pairs, plus any regularisation.

        On several devices of `tf.distribute` it is this device's share: the shares add up to the loss of the whole
        batch, in which each pair is compared with those of all devices.

        Raises:
            ValueError: labels or sample weights are given; the pairing itself is the label.
        """
        if y is not None or sample_weight is not None:
            raise ValueError(
                "`y` and `sample_weight` must be None: row i of the texts belongs to row i of the images. "
                "Received one of them. Call fit(x) with a dataset of input dictionaries alone."
            )
        pair_ids, global_batch = self._all_pairs(x, y_pred)
        loss = self._pair_loss(
            y_pred["text_embeds"],
            y_pred["image_embeds"],
            ops.exp(ops.convert_to_tensor(self.logit_scale)),
            None if self.logit_bias is None else ops.convert_to_tensor(self.logit_bias),
            pair_ids=pair_ids,
            global_batch=global_batch,
        )
        return loss + sum(self.losses) / replicas.num_replicas()

    def compute_metrics(self, x: Any, y: Any, y_pred: Any, sample_weight: Any = None) -> dict[str, Any]:
        """Updates `accuracy`, the share of images whose best text in the batch belongs to them."""
        pair_ids, global_batch = self._all_pairs(x, y_pred)
        accuracy = self._pair_loss.accuracy(
            y_pred["text_embeds"], y_pred["image_embeds"], pair_ids=pair_ids, global_batch=global_batch
        )
        self.accuracy.update_state(accuracy, sample_weight=ops.shape(y_pred["image_embeds"])[0])
        return self.get_metrics_result()  # type: ignore[no-any-return]

    def _all_pairs(self, x: Any, y_pred: Any) -> tuple[Any, GlobalBatch | None]:
        """Returns this batch's ids, and the pairs of all devices where there are several."""
        pair_ids = x.get("pair_ids") if isinstance(x, Mapping) else None
        if replicas.num_replicas() == 1:
            return pair_ids, None
        pair_ids = replicas.own_row_ids(y_pred["text_embeds"]) if pair_ids is None else pair_ids
        return pair_ids, replicas.gather_pairs(y_pred["text_embeds"], y_pred["image_embeds"], pair_ids)


def _trains_batch_norms(tower: Any) -> bool:
    """Says whether a tower has batch norms that training changes; their statistics are known by their names."""
    norms = {_owner(variable) for variable in tower.variables if variable.path.endswith("/moving_mean")}
    with_weights = {_owner(variable) for variable in tower.variables if not variable.path.endswith(_STATISTICS)}
    trained = {_owner(variable) for variable in tower.trainable_variables}
    return bool(norms & trained) or (tower.trainable and bool(norms - with_weights))


def _owner(variable: Any) -> str:
    return str(variable.path.rpartition("/")[0])
