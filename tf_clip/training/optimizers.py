"""AdamW by PyTorch's rule, with a learning rate for each variable and an average of the weights."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import keras
from keras import ops

from tf_clip.errors import require


@keras.saving.register_keras_serializable(package="tf_clip")
class AdamW(keras.optimizers.Optimizer):
    """Updates weights as `torch.optim.AdamW` does, so that recipes made for OpenCLIP give here what they give there.

    Three things differ from `keras.optimizers.AdamW`: epsilon is added after the second moment is corrected
    for its start at zero; only variables of two and more axes decay, as in OpenCLIP, so that norms, biases,
    the class embedding and the temperature do not; and gradients of embeddings are summed over the rows that
    were looked up several times before anything is squared (on TensorFlow, Keras's optimizers sum the squares).

    Args:
        learning_rate: a float or a `keras.optimizers.schedules.LearningRateSchedule`.
        weight_decay: share of a weight that a step takes away, times the learning rate.
        beta_1, beta_2: how long both moments remember.
        epsilon: added to the root of the second moment.
        rates: what the learning rate is multiplied with, by `variable.path`; others keep it as it is.
            `layerwise_rates` makes one.
        ema_momentum: keep an average of the weights as well, of which each step renews `1 - ema_momentum`;
            `averaged_weights` shows it. None keeps none.
        **kwargs: of `keras.optimizers.Optimizer`: `global_clipnorm`, `clipnorm`, `clipvalue`,
            `gradient_accumulation_steps`, `loss_scale_factor`, `name`.

    Raises:
        ValueError: a number is out of range, or `rates` names a variable that is not trained.

    Example:
        >>> optimizer = AdamW(1e-5, weight_decay=0.1, ema_momentum=0.999, global_clipnorm=1.0)

    Source: Loshchilov & Hutter 2019; PyTorch's AdamW; open_clip's parameter groups.
    """

    def __init__(
        self,
        learning_rate: Any = 1e-5,
        *,
        weight_decay: float = 0.1,
        beta_1: float = 0.9,
        beta_2: float = 0.98,
        epsilon: float = 1e-6,
        rates: Mapping[str, float] | None = None,
        ema_momentum: float | None = None,
        name: str = "adamw",
        **kwargs: Any,
    ) -> None:
        if kwargs.pop("use_ema", False):
            raise ValueError("`use_ema` must not be given. Received: use_ema=True. Pass ema_momentum=0.999 alone.")
        _require_share("ema_momentum", ema_momentum)
        _require_share("beta_1", beta_1)
        _require_share("beta_2", beta_2)
        # The decay is part of update_step, where it follows each variable's own rate; the base class has one rate.
        super().__init__(learning_rate=learning_rate, weight_decay=None, name=name, **kwargs)
        self.decay = weight_decay
        self.beta_1, self.beta_2, self.epsilon = beta_1, beta_2, epsilon
        self.rates = dict(rates or {})
        self.average_momentum = ema_momentum

    def build(self, variables: Sequence[Any]) -> None:
        """Makes both moments, and the averages if they are wanted."""
        if self.built:
            return
        super().build(variables)
        paths = [variable.path for variable in variables]
        unknown = sorted(set(self.rates) - set(paths))
        if unknown:
            raise ValueError(
                f"`rates` must name variables that are trained. Received also: {', '.join(unknown)}. "
                "Make it with layerwise_rates(model, decay) after locking what is to be locked."
            )
        self._rate_of_index = [self.rates.get(path, 1.0) for path in paths]
        self._momentums, self._velocities = self.add_optimizer_variables(variables, ["momentum", "velocity"])
        self.averages = [] if self.average_momentum is None else self.add_optimizer_variables(variables, "average")

    def apply(self, grads: Sequence[Any], trainable_variables: Sequence[Any] | None = None) -> None:
        """Updates all variables, gradients of embeddings summed beforehand."""
        super().apply([_summed(gradient) for gradient in grads], trainable_variables)

    def update_step(self, gradient: Any, variable: Any, learning_rate: Any) -> None:
        """Updates one variable."""
        index = self._get_variable_index(variable)
        momentum, velocity = self._momentums[index], self._velocities[index]
        dtype = variable.dtype
        rate = ops.cast(learning_rate, dtype) * self._rate_of_index[index]
        gradient = ops.cast(gradient, dtype)
        step = ops.cast(self.iterations + 1, dtype)
        if self.decay and len(variable.shape) > 1 and self._use_weight_decay(variable):
            self.assign_sub(variable, variable * (rate * self.decay))
        self.assign_add(momentum, (gradient - momentum) * (1.0 - self.beta_1))
        self.assign_add(velocity, (ops.square(gradient) - velocity) * (1.0 - self.beta_2))
        correction_1 = 1.0 - ops.power(ops.cast(self.beta_1, dtype), step)
        correction_2 = 1.0 - ops.power(ops.cast(self.beta_2, dtype), step)
        root = ops.sqrt(velocity) / ops.sqrt(correction_2) + self.epsilon
        self.assign_sub(variable, (rate / correction_1) * momentum / root)
        if self.average_momentum is not None:
            average = self.averages[index]
            # The first step fills the average, so that it never remembers zeros.
            share = ops.where(self.iterations > 0, 1.0 - self.average_momentum, 1.0)
            self.assign_add(average, (variable - average) * ops.cast(share, dtype))

    def get_config(self) -> dict[str, Any]:
        """Returns the arguments of `__init__`."""
        config = super().get_config()
        for inherited in ("use_ema", "ema_overwrite_frequency"):
            config.pop(inherited, None)
        return {
            **config,
            "weight_decay": self.decay,
            "beta_1": self.beta_1,
            "beta_2": self.beta_2,
            "epsilon": self.epsilon,
            "rates": self.rates,
            "ema_momentum": self.average_momentum,
        }


def layerwise_rates(model: Any, decay: float) -> dict[str, float]:
    """Returns the factor of each variable's learning rate, which falls from the output to the input.

    In each tower, the final norm and the projection keep the rate, the last block has `decay` times it, the
    block before `decay` squared, and so on down to the embeddings. A ResNet's stages count as blocks, its
    stem as embeddings. What is in no tower keeps the rate: the temperature, a new classifier.

    Args:
        model: a `CLIPModel`, a `CLIPForImageClassification` or a tower.
        decay: above 0 and at most 1; 0.65 to 0.9 are usual.

    Returns:
        A dictionary from `variable.path` to the factor, for the variables that are trained.

    Raises:
        ValueError: `decay` is out of range.

    Example:
        >>> AdamW(1e-4, rates=layerwise_rates(model, 0.75))  # doctest: +SKIP

    Source: Clark et al. 2020 (ELECTRA), Bao et al. 2022 (BEiT); Dong et al. 2022 on fine-tuning CLIP.
    """
    require(0.0 < decay <= 1.0, "decay", "above 0 and at most 1", decay, "Take 0.75, or 1 for none.")
    rates = {variable.path: 1.0 for variable in model.trainable_variables}
    towers = [getattr(model, name) for name in ("text_encoder", "image_encoder") if hasattr(model, name)] or [model]
    for tower in towers:
        groups = _blocks_from_the_top(tower)
        for depth, layers in enumerate(groups, start=1):
            for variable in (variable for layer in layers for variable in layer.trainable_variables):
                rates[variable.path] = decay**depth
    return rates


def _blocks_from_the_top(tower: Any) -> list[list[Any]]:
    """Returns a tower's layers below its head, the last block first and the embeddings last."""
    if hasattr(tower, "stages"):
        return [*(list(stage) for stage in reversed(tower.stages)), [tower.stem]]
    embeddings = [getattr(tower, name) for name in ("embeddings", "pre_layernorm") if hasattr(tower, name)]
    return [*([block] for block in reversed(tower.encoder_layers)), embeddings]


@contextmanager
def averaged_weights(model: Any) -> Iterator[None]:
    """Puts the average of the weights in their place while the block runs.

    Args:
        model: a model compiled with `AdamW(ema_momentum=...)` and trained.

    Raises:
        ValueError: the optimizer keeps no average, or has not taken a step.

    Example:
        >>> with averaged_weights(model):  # doctest: +SKIP
        ...     model.save_pretrained("out")
    """
    optimizer = plain_optimizer(model)
    if not getattr(optimizer, "averages", None) or int(optimizer.iterations) == 0:
        raise ValueError(
            "`model` must have been trained with an average of its weights. Received: a model whose optimizer is "
            f"{optimizer!r}. Compile it with AdamW(ema_momentum=0.999) and fit it first."
        )
    pairs = list(zip(model.trainable_variables, optimizer.averages, strict=True))
    trained = [ops.convert_to_numpy(variable) for variable, _ in pairs]
    try:
        for variable, average in pairs:
            constraint = variable.constraint or (lambda value: value)
            variable.assign(constraint(ops.convert_to_tensor(average)))
        yield
    finally:
        for (variable, _), value in zip(pairs, trained, strict=True):
            variable.assign(value)


def plain_optimizer(model: Any) -> Any:
    """Returns a compiled model's optimizer, without the one that Keras puts around it to scale float16's loss."""
    return getattr(model.optimizer, "inner_optimizer", model.optimizer)


def _summed(gradient: Any) -> Any:
    """Returns a gradient as one tensor; TensorFlow gives an embedding's as rows, some of them several times."""
    if gradient is None or not hasattr(gradient, "indices") or not hasattr(gradient, "dense_shape"):
        return gradient
    return ops.add(gradient, ops.zeros(gradient.shape, dtype=gradient.dtype))


def _require_share(name: str, value: float | None) -> None:
    is_share = value is None or 0.0 <= value < 1.0
    require(is_share, name, "at least 0 and below 1", value, "0.9 to 0.9999 are usual.")
