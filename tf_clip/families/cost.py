"""What a model costs, from its configuration alone: parameters, and operations per image and text.

An operation is a multiplication or an addition inside a matrix product or a convolution (two per
multiply-accumulate); norms, activations, softmaxes and the embedding look-up are not counted, as is usual.
"""

from __future__ import annotations

from typing import Any

from tf_clip.families.config import TwoTowerConfig
from tf_clip.families.family import Cost, family_of


def parameter_count(config: TwoTowerConfig) -> int:
    """Returns the number of trained parameters of a two-tower model, the temperature included.

    Args:
        config: the model's configuration.

    Raises:
        ValueError: a tower's family does not say what it costs.
    """
    bias = config.logit_bias_init_value is not None
    return text_parameters(config) + image_parameters(config) + 1 + bias


def text_parameters(config: TwoTowerConfig) -> int:
    """Returns the number of trained parameters of the text encoder, its projection included."""
    return _cost_of(config.text_config).parameters(config.text_config, config.projection_dim)


def image_parameters(config: TwoTowerConfig) -> int:
    """Returns the number of trained parameters of the image encoder, its projection included."""
    return _cost_of(config.vision_config).parameters(config.vision_config, config.projection_dim)


def operations_per_text(config: TwoTowerConfig, length: int | None = None) -> int:
    """Returns the operations that encoding one text takes.

    Args:
        config: the model's configuration.
        length: the text's length in tokens; None takes the longest there is.
    """
    return _cost_of(config.text_config).operations(config.text_config, config.projection_dim, length)


def operations_per_image(config: TwoTowerConfig) -> int:
    """Returns the operations that encoding one image of the configuration's size takes."""
    return _cost_of(config.vision_config).operations(config.vision_config, config.projection_dim, None)


def described(tower: Any) -> str:
    """Returns a line for people on a tower, from its configuration."""
    return _cost_of(tower).describe(tower)


def _cost_of(tower: Any) -> Cost:
    family = family_of(tower)
    if family.cost is None:
        raise ValueError(
            f"`cost` must be in the record of a family whose cost is asked. Received: {family.name}, which has none. "
            "Add it to the record."
        )
    return family.cost


def block_parameters(tower: Any) -> int:
    """Returns the parameters of a transformer's blocks, from its tower's configuration."""
    width, inner = tower.hidden_size, tower.intermediate_size
    attention = 4 * (width * width + width)
    mlp = 2 * width * inner + inner + width
    norms = 4 * width
    return tower.num_hidden_layers * (attention + mlp + norms)  # type: ignore[no-any-return]


def block_operations(tower: Any, length: int) -> int:
    """Returns the operations of a transformer's blocks on one row of `length` tokens or patches."""
    width, inner = tower.hidden_size, tower.intermediate_size
    projections = 4 * length * width * width
    attention = 2 * length * length * width
    mlp = 2 * length * width * inner
    return tower.num_hidden_layers * 2 * (projections + attention + mlp)  # type: ignore[no-any-return]
