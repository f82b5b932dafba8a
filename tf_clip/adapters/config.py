"""What an adapter is made of: a configuration for each method.

The fields and their names are AdapterHub's, so that its `adapter_config.json` files are read and written as they are.
"""

from __future__ import annotations

import dataclasses
import difflib
from collections.abc import Callable, Mapping
from typing import Any, ClassVar, NamedTuple

from tf_clip.errors import require

MATRICES = ("q", "k", "v", "o")
ACTIVATIONS = ("relu", "gelu", "gelu_new", "quick_gelu", "swish", "silu", "tanh", "leakyrelu", "sigmoid", "linear")


class Rule(NamedTuple):
    """What a field must be."""

    holds: Callable[[Any], bool]
    text: str


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _one_of(*values: Any) -> Rule:
    return Rule(lambda value: value in values, f"one of {', '.join(str(value) for value in values)}")


_COUNT = Rule(_is_count, "a whole number from 0 on")
_POSITIVE = Rule(lambda value: _is_count(value) and value > 0, "a whole number above 0")
_SHARE = Rule(lambda value: _is_number(value) and 0 <= value < 1, "at least 0 and below 1")


@dataclasses.dataclass(frozen=True)
class AdapterConfig:
    """What all methods have in common.

    Args:
        leave_out: global numbers of the layers without this adapter: the text tower's from 0, the image tower's on
            from there.
        init_weights_seed: draws the first weights of every layer from this seed; None draws new ones each time.
    """

    # As in AdapterHub's files; bottlenecks have none there.
    architecture: ClassVar[str | None] = None
    rules: ClassVar[Mapping[str, Rule]] = {}

    leave_out: tuple[int, ...] = ()
    init_weights_seed: int | None = None

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if isinstance(value, list):
                object.__setattr__(self, field.name, tuple(value))
        self._require("leave_out", all(_is_count(index) for index in self.leave_out), "whole numbers from 0 on")
        for name, rule in self.rules.items():
            self._require(name, rule.holds(getattr(self, name)), rule.text)

    def _require(self, name: str, holds: bool, rule: str) -> None:
        require(holds, name, f"{rule} in {type(self).__name__}", getattr(self, name), "See its description.")

    def to_dict(self) -> dict[str, Any]:
        """Returns all fields, as JSON has them."""
        fields = {
            name: list(value) if isinstance(value, tuple) else value for name, value in dataclasses.asdict(self).items()
        }
        return {"architecture": self.architecture, **fields}

    def replace(self, **changes: Any) -> AdapterConfig:
        """Returns a configuration with some fields changed.

        Raises:
            ValueError: there is no such field, or its value has no meaning.
        """
        known = [field.name for field in dataclasses.fields(self)]
        for name in changes:
            if name not in known:
                close = difflib.get_close_matches(name, known, n=1)
                raise ValueError(
                    f"`{name}` must be a field of {type(self).__name__}: {', '.join(known)}. Received: {name}="
                    f"{changes[name]!r}. " + (f"Did you mean {close[0]}?" if close else "Remove it.")
                )
        return dataclasses.replace(self, **changes)

    def parts(self) -> tuple[AdapterConfig, ...]:
        """Returns the configurations it is a union of: itself alone."""
        return (self,)

    def map(self, function: Callable[[AdapterConfig], AdapterConfig]) -> AdapterConfig:
        """Returns what a function makes of it, or of each part of a union."""
        return function(self)


@dataclasses.dataclass(frozen=True)
class BottleneckConfig(AdapterConfig):
    """A narrow MLP behind a block's attention, its MLP or both, around which the stream goes on.

    Args:
        mh_adapter, output_adapter: whether it acts behind attention, and behind the MLP.
        reduction_factor: the layer's width divided by the bottleneck's; or one for each global layer number, as
            `{"3": 8, "default": 16}`.
        non_linearity: one of `ACTIVATIONS`.
        original_ln_before: whether it reads the stream after the residual was added.
        original_ln_after: whether the residual is added behind it.
        ln_before, ln_after: whether it has layer norms of its own.
        init_weights: `"bert"` (normal, 0.02), `"mam_adapter"` (the way up starts at zero) or `"houlsby"`
            (truncated normal, 0.01).
        is_parallel: whether it reads what the attention or the MLP was fed with, instead of its result.
        scaling: a factor on its result, or `"learned"` for one that is trained, `"channel"` for one a channel.
        use_gating: whether a learned gate decides how much of it counts.
        residual_before_ln: whether the way around it begins before the residual is added.
        adapter_residual_before_ln: whether the way around it ends before its own last norm.
        inv_adapter: `"nice"` puts an invertible block behind the text's embeddings.
        inv_adapter_reduction_factor: of that block.
        dropout: share of its result dropped in training.
        phm_layer: whether its two matrices are sums of Kronecker products (compacter); `phm_dim`, `phm_rank`,
            `factorized_phm_W`, `shared_phm_rule`, `phm_bias` and the fields beside them describe these.
        stochastic_depth: share of rows for which all of it is left out in training.

    Source: Houlsby et al. 2019; Pfeiffer et al. 2020; He et al. 2021; Mahabadi et al. 2021; Steitz and Roth 2024.
    """

    rules: ClassVar[Mapping[str, Rule]] = {
        "non_linearity": _one_of(*ACTIVATIONS),
        "init_weights": _one_of("bert", "mam_adapter", "houlsby"),
        "scaling": Rule(
            lambda value: value in ("learned", "channel") or _is_number(value), 'a number, "learned" or "channel"'
        ),
        "inv_adapter": _one_of(None, "nice"),
        "dropout": _SHARE,
        "stochastic_depth": _SHARE,
        "reduction_factor": Rule(
            lambda value: all(
                _is_number(factor) and factor > 0
                for factor in (value.values() if isinstance(value, Mapping) else [value])
            ),
            "above 0",
        ),
    }

    mh_adapter: bool = False
    output_adapter: bool = True
    reduction_factor: float | Mapping[str, float] = 16
    non_linearity: str = "relu"
    original_ln_before: bool = True
    original_ln_after: bool = True
    ln_before: bool = False
    ln_after: bool = False
    init_weights: str = "bert"
    is_parallel: bool = False
    scaling: float | str = 1.0
    use_gating: bool = False
    residual_before_ln: bool = True
    adapter_residual_before_ln: bool = False
    inv_adapter: str | None = None
    inv_adapter_reduction_factor: float | None = None
    dropout: float = 0.0
    phm_layer: bool = False
    phm_dim: int = 4
    factorized_phm_W: bool = True
    shared_W_phm: bool = False
    shared_phm_rule: bool = True
    factorized_phm_rule: bool = False
    phm_c_init: str = "normal"
    phm_init_range: float = 0.0001
    learn_phm: bool = True
    hypercomplex_nonlinearity: str = "glorot-uniform"
    phm_rank: int = 1
    phm_bias: bool = True
    stochastic_depth: float = 0.0

    def reduction_at(self, layer: int) -> float:
        """Returns the reduction factor of a layer by its global number.

        Raises:
            KeyError: there is none for it, and no default.
        """
        if not isinstance(self.reduction_factor, Mapping):
            return self.reduction_factor
        factors = self.reduction_factor
        if str(layer) not in factors and "default" not in factors:
            raise KeyError(
                f"`reduction_factor` must have a factor for layer {layer}, or a default. "
                f'Received: reduction_factor={dict(factors)}. Add "default": 16.'
            )
        return factors.get(str(layer), factors.get("default", 0.0))


@dataclasses.dataclass(frozen=True)
class LoRAConfig(AdapterConfig):
    """A low-rank change of a dense layer's matrix, or a factor on its result; can be merged into the layer.

    Args:
        selfattn_lora, intermediate_lora, output_lora: whether attention's matrices, fc1 and fc2 are adapted.
        r: rank of the change.
        alpha: the change counts `alpha / r`, or `alpha / sqrt(r)` with `use_rslora`.
        dropout: share of what it reads dropped in training.
        attn_matrices: which of attention's, of `"q"`, `"k"`, `"v"` and `"o"`.
        composition_mode: `"add"` for a change that is added, `"scale"` for a factor on the result, with rank 1.
        init_weights: `"lora"` (begins as no change), `"bert"`, `"ia3"` (ones) or `"vera"`.
        use_gating: whether a learned gate takes the place of `alpha / r`; such an adapter cannot be merged.
        use_dora: learns the matrix's column lengths apart from their directions.
        vera_d, vera_b: with both, all layers share two frozen random matrices and learn the scales of their inner and
            outer axis, which begin with these values.
        use_rslora: see `alpha`.
        dora_bias: whether `use_dora` stretches the layer's bias, too, as AdapterHub does and the paper does not.

    Source: Hu et al. 2021; Liu et al. 2022 (IA3); Liu et al. 2024 (DoRA); Kopiczko et al. 2023 (VeRA); Kalajdzievski
    2023 (rank-stabilised).
    """

    architecture: ClassVar[str | None] = "lora"
    rules: ClassVar[Mapping[str, Rule]] = {
        "r": _POSITIVE,
        "attn_matrices": Rule(lambda value: set(value) <= set(MATRICES), f"of {', '.join(MATRICES)}"),
        "composition_mode": _one_of("add", "scale"),
        "init_weights": _one_of("lora", "bert", "ia3", "vera"),
        "dropout": _SHARE,
    }

    selfattn_lora: bool = True
    intermediate_lora: bool = False
    output_lora: bool = False
    r: int = 8
    alpha: float = 8
    dropout: float = 0.0
    attn_matrices: tuple[str, ...] = ("q", "v")
    composition_mode: str = "add"
    init_weights: str = "lora"
    use_gating: bool = False
    use_dora: bool = False
    vera_d: float | None = None
    vera_b: float | None = None
    use_rslora: bool = False
    dora_bias: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.composition_mode == "scale":
            for name, value in (("r", 1), ("use_dora", False), ("dropout", 0)):
                self._require(name, getattr(self, name) == value, f'{value} with composition_mode="scale"')
        self._require("use_dora", not (self.use_gating and self.use_dora), "False with use_gating=True")
        self._require("vera_b", (self.vera_d is None) == (self.vera_b is None), "given with `vera_d`, or neither")

    @property
    def is_mergeable(self) -> bool:
        """Whether what it does depends on the weights alone: a gate reads the tokens, too."""
        return not self.use_gating

    @property
    def factor(self) -> float:
        """What the change counts."""
        return self.alpha / (self.r**0.5 if self.use_rslora else self.r)


@dataclasses.dataclass(frozen=True)
class PrefixTuningConfig(AdapterConfig):
    """Learned keys and values in front of every attention's own.

    Args:
        prefix_length: how many.
        flat: whether they are learned as they are, instead of through an MLP.
        bottleneck_size, non_linearity: of that MLP.
        dropout: share of them dropped in training.
        use_gating, shared_gating: whether a learned gate decides how much they count, and keys and values share it.

    Source: Li and Liang 2021.
    """

    architecture: ClassVar[str | None] = "prefix_tuning"
    rules: ClassVar[Mapping[str, Rule]] = {
        "prefix_length": _POSITIVE,
        "bottleneck_size": _POSITIVE,
        "non_linearity": _one_of(*ACTIVATIONS),
        "dropout": _SHARE,
    }

    flat: bool = False
    prefix_length: int = 30
    bottleneck_size: int = 512
    non_linearity: str = "tanh"
    dropout: float = 0.0
    use_gating: bool = False
    shared_gating: bool = True


@dataclasses.dataclass(frozen=True)
class PromptTuningConfig(AdapterConfig):
    """Learned tokens behind the start token of texts (CoOp), and behind the class token of images (VPT, shallow).

    Args:
        prompt_length: how many in each tower.
        towers: `"text"`, `"vision"` or both.
        prompt_init_ids: token ids, one for each prompt of the text tower, which begins as that token's embedding; None
            draws random ones.
        random_uniform_scale: they are drawn from this much around zero.

    Source: Zhou et al. 2022 (CoOp); Jia et al. 2022 (VPT). AdapterHub has none for CLIP.
    """

    architecture: ClassVar[str | None] = "prompt_tuning"
    rules: ClassVar[Mapping[str, Rule]] = {
        "prompt_length": _POSITIVE,
        "towers": Rule(lambda value: bool(value) and set(value) <= {"text", "vision"}, 'of "text" and "vision"'),
    }

    prompt_length: int = 10
    towers: tuple[str, ...] = ("text", "vision")
    prompt_init_ids: tuple[int, ...] | None = None
    random_uniform_scale: float = 0.5

    def __post_init__(self) -> None:
        super().__post_init__()
        fits = self.prompt_init_ids is None or len(self.prompt_init_ids) == self.prompt_length
        self._require("prompt_init_ids", fits, f"None or {self.prompt_length} token ids")


@dataclasses.dataclass(frozen=True)
class ReftConfig(AdapterConfig):
    """A low-rank change of some tokens' states behind a block.

    Args:
        layers: `"all"`, or global layer numbers.
        prefix_positions, suffix_positions: how many of the first and of the last tokens.
        r: rank of the change.
        orthogonality: whether the projection's rows stay orthonormal.
        tied_weights: whether the first and the last tokens share weights.
        subtract_projection: whether the projection of the state itself is taken away.
        dropout: share of the changed state dropped in training.
        non_linearity: one of `ACTIVATIONS`, or None.

    Source: Wu et al. 2024.
    """

    architecture: ClassVar[str | None] = "reft"
    rules: ClassVar[Mapping[str, Rule]] = {
        "layers": Rule(lambda value: value == "all" or not isinstance(value, str), '"all" or layer numbers'),
        "prefix_positions": _COUNT,
        "suffix_positions": _COUNT,
        "r": _POSITIVE,
        "non_linearity": _one_of(None, *ACTIVATIONS),
        "dropout": _SHARE,
    }

    layers: str | tuple[int, ...] = "all"
    prefix_positions: int = 3
    suffix_positions: int = 0
    r: int = 1
    orthogonality: bool = True
    tied_weights: bool = False
    subtract_projection: bool = True
    dropout: float = 0.05
    non_linearity: str | None = None


@dataclasses.dataclass(frozen=True)
class ConfigUnion:
    """Several methods under one name.

    Args:
        configs: at most one of a kind, but for bottlenecks at different sites.
    """

    architecture: ClassVar[str] = "union"

    configs: tuple[AdapterConfig, ...]

    def to_dict(self) -> dict[str, Any]:
        """Returns all fields, as JSON has them."""
        return {"architecture": self.architecture, "configs": [config.to_dict() for config in self.configs]}

    def replace(self, **changes: Any) -> ConfigUnion:
        """Returns a union with some fields changed in every part."""
        return self.map(lambda part: part.replace(**changes))

    def map(self, function: Callable[[AdapterConfig], AdapterConfig]) -> ConfigUnion:
        """Returns a union of what a function makes of each part."""
        return ConfigUnion(tuple(function(part) for part in self.configs))

    def parts(self) -> tuple[AdapterConfig, ...]:
        """Returns the configurations it is a union of."""
        return self.configs


AnyConfig = AdapterConfig | ConfigUnion


@dataclasses.dataclass(frozen=True)
class FusionConfig:
    """How several bottlenecks are weighed for each token: by a learned attention over what they make.

    Args:
        query, key, value: whether there is a matrix for each; without query and key they are compared as they are.
        query_before_ln: whether the query is made before the residual is added.
        regularization: whether the loss keeps the value matrix near the identity.
        residual_before: whether the residual is added to each bottleneck's result, instead of to the sum.
        value_before_softmax: whether the value matrix comes before they are weighed.
        value_initialized: whether it begins as the identity.
        dropout_prob: share of scores dropped in training; None for 0.

    Source: Pfeiffer et al. 2021 (AdapterFusion).
    """

    query: bool = True
    key: bool = True
    value: bool = True
    query_before_ln: bool = False
    regularization: bool = True
    residual_before: bool = False
    value_before_softmax: bool = True
    value_initialized: bool = True
    dropout_prob: float | None = None

    def to_dict(self) -> dict[str, Any]:
        """Returns all fields, as AdapterHub's files have them."""
        fields = dataclasses.asdict(self)
        return {**fields, "temperature": False}
