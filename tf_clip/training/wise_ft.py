"""Weight interpolation: between a model and what fine-tuning made of it lies one that is good at both."""

from __future__ import annotations

from typing import Any

from keras import ops

from tf_clip.errors import require


def interpolate_weights(before: Any, after: Any, share: float) -> Any:
    """Mixes two models of one kind, weight by weight.

    A fine-tuned model is better on images like those it was tuned on, and often worse on others; a mixture
    with what it started from keeps most of both. No further training, and no cost when it is used.

    Args:
        before: the model that fine-tuning started from.
        after: the fine-tuned model; both stay as they are.
        share: of `after`: 0 gives `before`, 1 gives `after`; 0.5 is a good start.

    Returns:
        A new model.

    Raises:
        ValueError: `share` is out of range, or the models' configurations differ.

    Example:
        >>> mixed = interpolate_weights(zero_shot, fine_tuned, 0.5)  # doctest: +SKIP

    Source: Wortsman et al. 2022, "Robust fine-tuning of zero-shot models" (WiSE-FT), section 3. The temperature is
    mixed as a logarithm, as it is stored.
    """
    require(0.0 <= share <= 1.0, "share", "from 0 to 1", share, "Take 0.5 to begin with.")
    one, other = before._variables_by_path(), after._variables_by_path()
    shapes = [{path: tuple(variable.shape) for path, variable in variables.items()} for variables in (one, other)]
    if type(before) is not type(after) or shapes[0] != shapes[1]:
        raise ValueError(
            "`after` must be a model with the variables of `before`. Received: "
            f"{type(before).__name__} and {type(after).__name__} of other shapes or kinds. Pass what it was tuned from."
        )
    mixed = type(after)(after.config)
    for path, variable in mixed._variables_by_path().items():
        start, end = (ops.cast(ops.convert_to_tensor(weights[path]), "float32") for weights in (one, other))
        variable.assign((1.0 - share) * start + share * end)
    return mixed
