"""Moves adapters of dense layers into their weights, and back; and makes one adapter of several."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from tf_clip.adapters.config import AnyConfig, LoRAConfig
from tf_clip.adapters.methods.base import values
from tf_clip.adapters.methods.linear import LinearAdapter, LoRA
from tf_clip.adapters.sites import Sites

STRATEGIES = ("linear", "lora_linear_only_negate_b", "lora_delta_w_svd")


def merge(sites: Sites, name: str) -> None:
    """Changes the model's weights as an adapter does what they make.

    Raises:
        ValueError: the adapter does not act on dense layers alone, or has gates.
    """
    there = [location for location in sites.holding(name) if location.part != "shared"]
    for location in there:
        adapter = location.site.by_name[name]
        if not isinstance(adapter, LinearAdapter) or adapter.settings.use_gating:
            reason = "has gates" if isinstance(adapter, LinearAdapter) else f"acts at {'/'.join(location.scopes)}"
            raise ValueError(
                f"`name` must be of an adapter of dense layers alone, without gates: LoRA, DoRA, VeRA or IA3. "
                f"Received: name={name!r}, which {reason}. Keep it active instead."
            )
    for location in there:
        dense: Any = location.dense
        kernel, bias = values(dense.kernel), values(dense.bias)
        location.site.originals = {"kernel": kernel, "bias": bias}
        new_kernel, new_bias = location.site.by_name[name].merged(kernel, bias)
        dense.kernel.assign(np.asarray(new_kernel, "float32"))
        dense.bias.assign(np.asarray(new_bias, "float32"))


def unmerge(sites: Sites) -> None:
    """Gives the model's weights the values from before the merge, bit for bit."""
    for location in sites.locations:
        originals = location.site.originals
        if originals and location.dense is not None:
            location.dense.kernel.assign(originals["kernel"])
            location.dense.bias.assign(originals["bias"])
            location.site.originals = {}


def averaging_weights(adapters: Sequence[str], weights: Sequence[float] | None, normalize: bool) -> list[float]:
    """Returns the weights of a mean, one for each adapter; equal ones if None is given.

    Raises:
        ValueError: there are more or fewer, or they cannot be divided by their sum.
    """
    given = [1.0] * len(adapters) if weights is None else [float(weight) for weight in weights]
    if len(given) != len(adapters) or not given:
        raise ValueError(f"`weights` must be one for each of {list(adapters)}. Received: weights={weights}.")
    if not normalize:
        return given
    if abs(sum(given)) < 1e-12:
        raise ValueError(
            f"`weights` must not sum to 0. Received: {given}. Change them, or pass normalize_weights=False."
        )
    return [weight / sum(given) for weight in given]


def averaged_config(configs: Sequence[AnyConfig], strategy: str, svd_rank: int | None) -> AnyConfig:
    """Returns the configuration of the average of adapters.

    Raises:
        ValueError: the strategy is unknown or is not for these adapters.
    """
    if strategy not in STRATEGIES:
        raise ValueError(f"`combine_strategy` must be one of {', '.join(STRATEGIES)}. Received: {strategy!r}.")
    first = configs[0]
    if strategy != "linear":
        for config in configs:
            is_lora = isinstance(config, LoRAConfig) and config.composition_mode == "add" and config.vera_d is None
            if not is_lora:
                raise ValueError(
                    f'`combine_strategy` must be "linear" for adapters that are no LoRAs. Received: {strategy!r} for '
                    f"{config!r}."
                )
    if strategy == "lora_delta_w_svd":
        if not isinstance(svd_rank, int) or svd_rank < 1:
            raise ValueError(f"`svd_rank` must be a whole number above 0. Received: svd_rank={svd_rank!r}.")
        first = first.replace(r=svd_rank)
        configs = [config.replace(r=svd_rank, alpha=first.alpha) for config in configs]  # type: ignore[union-attr]
    plain = {repr(config.replace(init_weights_seed=None)) for config in configs}
    if len(plain) > 1:
        raise ValueError(
            f"`adapters` must be of one configuration. Received: {len(plain)} different ones. LoRAs of several ranks "
            'can be averaged with combine_strategy="lora_delta_w_svd".'
        )
    return first


def fill_average(sites: Sites, new: str, names: Sequence[str], weights: Sequence[float], strategy: str) -> None:
    """Gives an adapter the weighted mean of others.

    Args:
        sites: with all of them.
        new: is filled.
        names: of the others.
        weights: one of each.
        strategy: one of `STRATEGIES`.
    """
    sources = [sites.adapters(name) for name in names]
    for target, *parts in zip(sites.adapters(new), *sources, strict=True):
        if strategy == "lora_delta_w_svd":
            _fill_by_singular_values(target, parts, weights)
            continue
        for variable, *theirs in zip(target.parameters, *(part.parameters for part in parts), strict=True):
            own = [abs(weight) for weight in weights] if _keeps_sign(strategy, variable) else weights
            mean = sum(weight * values(one).astype(np.float64) for weight, one in zip(own, theirs, strict=True))
            variable.assign(np.asarray(mean, "float32"))


def _keeps_sign(strategy: str, variable: Any) -> bool:
    # A negative weight of both matrices would cancel in their product.
    return strategy == "lora_linear_only_negate_b" and variable.path.endswith("/lora_A")


def _fill_by_singular_values(target: LoRA, parts: Sequence[LoRA], weights: Sequence[float]) -> None:
    """Gives a LoRA the nearest of its rank to the weighted sum of what others add."""
    total = sum(weight * part.delta() for weight, part in zip(weights, parts, strict=True)) / target.settings.factor
    left, sizes, right = np.linalg.svd(total, full_matrices=False)
    rank = min(target.settings.r, len(sizes))
    down, up = np.zeros(target.lora_A.shape), np.zeros(target.lora_B.shape)
    down[:, :rank], up[:rank] = left[:, :rank] * sizes[:rank], right[:rank]
    target.lora_A.assign(np.asarray(down, "float32"))
    target.lora_B.assign(np.asarray(up, "float32"))
    if target.settings.use_dora:
        lengths = sum(weight * values(part.m) for weight, part in zip(weights, parts, strict=True))
        target.m.assign(np.asarray(lengths, "float32"))
