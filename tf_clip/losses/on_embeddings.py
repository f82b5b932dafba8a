"""The losses of pairs as objects that `CLIPModel.compile` takes: computed from embeddings, in chunks where wanted."""

from __future__ import annotations

from typing import Any, ClassVar, NamedTuple

import keras
from keras import ops

from tf_clip.errors import require
from tf_clip.losses.rows import (
    are_positive,
    require_label_smoothing,
    share_of_hits,
    sigmoid_rows,
    softmax_rows,
    summed_losses,
)


class GlobalBatch(NamedTuple):
    """The pairs of all devices, of which each has its own few: what its rows are compared with.

    Args:
        text_embeds: float `[global_batch, projection_dim]`.
        image_embeds: float `[global_batch, projection_dim]`.
        pair_ids: int `[global_batch]`, unequal for what does not belong together.
    """

    text_embeds: Any
    image_embeds: Any
    pair_ids: Any


class PairLoss:
    """Scores embedded pairs; `ContrastiveLoss` and `SigmoidLoss` say how.

    For a loss of your own, subclass it and override `__call__`, and `get_config` where it has other
    arguments; register it with Keras to save models that are compiled with it.

    Args:
        label_smoothing: share of the targets that is spread over wrong answers; 0 to below 1.
        chunk_size: rows of the batch whose logits are in memory at a time, forward and backward; None
            takes all at once. The result is the same.
    """

    row_loss: ClassVar[staticmethod[[Any, Any, float], tuple[Any, Any]]]
    both_ways: ClassVar[bool]
    """Whether images look for texts, too; else each pair is scored once."""
    needs_bias: ClassVar[bool] = False

    def __init__(self, label_smoothing: float = 0.0, chunk_size: int | None = None) -> None:
        require_label_smoothing(label_smoothing)
        require_chunk_size("chunk_size", chunk_size)
        self.label_smoothing = label_smoothing
        self.chunk_size = chunk_size

    def __call__(
        self,
        text_embeds: Any,
        image_embeds: Any,
        scale: Any,
        bias: Any = None,
        pair_ids: Any = None,
        global_batch: GlobalBatch | None = None,
    ) -> Any:
        """Scores a batch of pairs, row i of the texts with row i of the images.

        Args:
            text_embeds: float `[batch, projection_dim]`, of unit length; computed in float32.
            image_embeds: float `[batch, projection_dim]`, of unit length.
            scale: float scalar, what the products are multiplied by: `exp(model.logit_scale)`.
            bias: float scalar that is added to them; None adds nothing.
            pair_ids: int `[batch]`; rows with equal numbers belong together. None: each row only with
                itself.
            global_batch: the pairs of all devices, these among them; None: there are no others. Needs
                `pair_ids`.

        Returns:
            float32 scalar: this batch's share of the loss. With no `global_batch` that is all of it; the
            shares of all devices add up to it.

        Raises:
            ValueError: there is a `global_batch` and no `pair_ids`, or texts and images differ in number.
        """
        _require_pairs(text_embeds, image_embeds, pair_ids, global_batch)
        texts, images = ops.cast(text_embeds, "float32"), ops.cast(image_embeds, "float32")
        ids = row_ids(texts) if pair_ids is None else ops.convert_to_tensor(pair_ids)
        others = GlobalBatch(texts, images, ids) if global_batch is None else global_batch
        scale = ops.cast(ops.convert_to_tensor(scale), "float32")
        bias = ops.zeros((), "float32") if bias is None else ops.cast(ops.convert_to_tensor(bias), "float32")
        total = self._sum(texts, ops.cast(others.image_embeds, "float32"), scale, bias, ids, others.pair_ids)
        if self.both_ways:
            of_images = self._sum(images, ops.cast(others.text_embeds, "float32"), scale, bias, ids, others.pair_ids)
            total = (total + of_images) / 2.0
        return total / ops.cast(ops.shape(others.pair_ids)[0], "float32")

    def _sum(self, queries: Any, candidates: Any, scale: Any, bias: Any, query_ids: Any, candidate_ids: Any) -> Any:
        row_loss = self.row_loss
        if self.chunk_size is None:
            logits = ops.matmul(queries, ops.transpose(candidates)) * scale + bias
            losses, _ = row_loss(logits, are_positive(query_ids, candidate_ids), self.label_smoothing)
            return ops.sum(losses)
        return summed_losses(
            row_loss,
            queries,
            candidates,
            scale,
            bias,
            query_ids,
            candidate_ids,
            label_smoothing=self.label_smoothing,
            chunk_size=self.chunk_size,
        )

    def accuracy(
        self, text_embeds: Any, image_embeds: Any, pair_ids: Any = None, global_batch: GlobalBatch | None = None
    ) -> Any:
        """Returns the share of images whose best text belongs to them, float32; arguments as in a call."""
        _require_pairs(text_embeds, image_embeds, pair_ids, global_batch)
        ids = row_ids(text_embeds) if pair_ids is None else ops.convert_to_tensor(pair_ids)
        others = GlobalBatch(text_embeds, image_embeds, ids) if global_batch is None else global_batch
        return share_of_hits(image_embeds, others.text_embeds, ids, others.pair_ids, self.chunk_size)

    def get_config(self) -> dict[str, Any]:
        """Returns the arguments of `__init__`."""
        return {"label_smoothing": self.label_smoothing, "chunk_size": self.chunk_size}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> PairLoss:
        """Makes a loss of what `get_config` returned."""
        return cls(**config)

    def __repr__(self) -> str:
        arguments = ", ".join(f"{name}={value!r}" for name, value in self.get_config().items())
        return f"{type(self).__name__}({arguments})"


@keras.saving.register_keras_serializable(package="tf_clip")
class ContrastiveLoss(PairLoss):
    """CLIP's loss: each text finds its own image in the batch, and each image its own text.

    The same as `contrastive_loss` of the batch's logits, which are in memory `chunk_size` rows at a time.

    Args:
        label_smoothing: share of each row's target that is spread over all of the batch; 0 to below 1.
        chunk_size: rows whose logits are in memory at a time, forward and backward; None takes all.

    Raises:
        ValueError: an argument is out of range.

    Example:
        >>> model.compile("adamw", loss=ContrastiveLoss(chunk_size=256))  # doctest: +SKIP

    Source: Radford et al. 2021, figure 3; several positives a row as in Khosla et al. 2020, L_out.
    """

    row_loss = staticmethod(softmax_rows)
    both_ways = True


@keras.saving.register_keras_serializable(package="tf_clip")
class SigmoidLoss(PairLoss):
    """SigLIP's loss: each text with each image belongs together, or does not.

    The same as `sigmoid_loss` of the batch's logits, which are in memory `chunk_size` rows at a time. The
    model needs a bias: nearly all pairs of a batch do not belong together, and it starts at that.

    Args:
        label_smoothing: moves the targets 0 and 1 towards 1/2; 0 to below 1.
        chunk_size: rows whose logits are in memory at a time, forward and backward; None takes all.

    Raises:
        ValueError: an argument is out of range.

    Example:
        >>> model.compile("adamw", loss=SigmoidLoss(chunk_size=256))  # doctest: +SKIP

    Source: Zhai et al. 2023 (SigLIP), algorithm 1; open_clip's `SigLipLoss`.
    """

    row_loss = staticmethod(sigmoid_rows)
    both_ways = False
    needs_bias = True


def row_ids(rows: Any) -> Any:
    """Returns int32 `[batch]`: a number of its own for each row."""
    return ops.arange(ops.shape(rows)[0], dtype="int32")


def require_chunk_size(name: str, chunk_size: int | None) -> None:
    """Checks a number of rows.

    Raises:
        ValueError: it is neither None nor a positive whole number.
    """
    require(
        chunk_size is None or (isinstance(chunk_size, int) and chunk_size > 0),
        name,
        "a positive whole number, or None for all rows at once",
        chunk_size,
        "128 is a good start.",
    )


def _require_pairs(text_embeds: Any, image_embeds: Any, pair_ids: Any, global_batch: GlobalBatch | None) -> None:
    texts, images = text_embeds.shape[0], image_embeds.shape[0]
    if texts is not None and images is not None and texts != images:
        raise ValueError(
            "`text_embeds` and `image_embeds` must have the same number of rows, since row i of both is a pair. "
            f"Received: {texts} and {images} rows. Pass one image for each text."
        )
    if global_batch is not None and pair_ids is None:
        raise ValueError(
            "`pair_ids` must be given with a `global_batch`: they say which of its rows belong to these. "
            "Received: pair_ids=None. Number the rows of all devices."
        )
