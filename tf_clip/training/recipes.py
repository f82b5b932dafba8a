"""Ways to train a CLIP further: which weights, with which steps."""

from __future__ import annotations

import dataclasses
from typing import Any

import keras

from tf_clip.errors import require
from tf_clip.training.optimizers import AdamW, layerwise_rates

TOWERS = ("image_encoder", "text_encoder")
ADAPTER = "fine_tuned"


@dataclasses.dataclass(frozen=True)
class Recipe:
    """What is trained and how, apart from the data: `compile` makes a model ready for `fit`.

    `full()`, `lit()`, `layerwise()` and `lora()` are recipes with defaults that fit their name.

    Args:
        learning_rate: the highest, reached after the warm-up; it falls to 0 along a cosine.
        weight_decay: of `AdamW`; norms, biases, the class embedding and the temperature have none.
        warmup_steps: steps in which the learning rate rises from 0; None takes a tenth of all, 500 at most.
        locked: towers that stay as they are: `"image_encoder"`, `"text_encoder"`, not both.
        adapter: configuration of an adapter, as `add_adapter` takes it: it is added under the name `ADAPTER`, and
            nothing else is trained; None for none.
        layer_decay: what the learning rate is multiplied with from each block to the one below; 1 for none.
        beta_1, beta_2, epsilon: of `AdamW`; those of CLIP's paper for vision transformers.
        global_clipnorm: largest length of all gradients together; None for no limit.
        gradient_accumulation_steps: batches whose gradients are averaged before each step. The loss still
            compares within each batch alone; to compare within all of them, see `encode_chunk_size` of
            `CLIPModel.compile`.
        ema_momentum: keep an average of the weights, which is what is evaluated and saved; None for none.

    Raises:
        ValueError: a value is out of range.

    Example:
        >>> recipe = Recipe(learning_rate=5e-6, layer_decay=0.8)
        >>> recipe.compile(model, steps=1000)  # doctest: +SKIP
        >>> model.fit(dataset, epochs=10)  # doctest: +SKIP
    """

    learning_rate: float = 1e-5
    weight_decay: float = 0.1
    warmup_steps: int | None = None
    locked: tuple[str, ...] = ()
    adapter: Any = None
    layer_decay: float = 1.0
    beta_1: float = 0.9
    beta_2: float = 0.98
    epsilon: float = 1e-6
    global_clipnorm: float | None = 1.0
    gradient_accumulation_steps: int = 1
    ema_momentum: float | None = None

    def __post_init__(self) -> None:
        require(self.learning_rate > 0, "learning_rate", "above 0", self.learning_rate, "1e-5 is a good start.")
        require(self.weight_decay >= 0, "weight_decay", "at least 0", self.weight_decay, "0 means none.")
        require(
            self.warmup_steps is None or self.warmup_steps >= 0,
            "warmup_steps",
            "None or at least 0",
            self.warmup_steps,
            "0 means none.",
        )
        require(0 < self.layer_decay <= 1, "layer_decay", "above 0 and at most 1", self.layer_decay, "1 means none.")
        require(
            self.global_clipnorm is None or self.global_clipnorm > 0,
            "global_clipnorm",
            "None or above 0",
            self.global_clipnorm,
            "None means no limit.",
        )
        require(
            self.gradient_accumulation_steps >= 1,
            "gradient_accumulation_steps",
            "at least 1",
            self.gradient_accumulation_steps,
            "1 means a step a batch.",
        )
        require(
            set(self.locked) < set(TOWERS),
            "locked",
            f"one of {TOWERS}, or empty",
            self.locked,
            "Leave one tower to train.",
        )

        is_alone = self.adapter is None or (not self.locked and self.layer_decay == 1)
        require(
            is_alone,
            "adapter",
            "None with `locked` or `layer_decay`",
            self.adapter,
            "Its leave_out and reduction_factor say where it stands.",
        )

    def lock(self, model: Any) -> None:
        """Makes the locked towers not trainable; what was locked before stays so.

        A locked ResNet's norms keep their statistics, too. With `adapter`, adds it and locks all the rest.

        Raises:
            ValueError: the model has no such tower, or has an adapter of that name.
        """
        if self.adapter is not None:
            model.add_adapter(ADAPTER, self.adapter)
            model.train_adapter(ADAPTER)
        for tower in self.locked:
            require(hasattr(model, tower), "locked", "towers of the model", self.locked, "Leave out what it lacks.")
            getattr(model, tower).trainable = False

    def schedule(self, steps: int) -> Any:
        """Returns the learning rate as a Keras schedule.

        Args:
            steps: batches that will be trained on, over all epochs.

        Raises:
            ValueError: the warm-up is longer than the training.
        """
        warmup = min(500, steps // 10) if self.warmup_steps is None else self.warmup_steps
        require(
            warmup < steps,
            "warmup_steps",
            f"below the number of batches, {steps}",
            warmup,
            "Train longer, or warm up for less.",
        )
        if warmup == 0:
            return keras.optimizers.schedules.CosineDecay(self.learning_rate, steps)
        return keras.optimizers.schedules.CosineDecay(
            0.0, steps - warmup, warmup_target=self.learning_rate, warmup_steps=warmup
        )

    def optimizer(self, model: Any, steps: int) -> AdamW:
        """Returns the optimizer for a model's trainable weights; lock towers first.

        Args:
            model: the model.
            steps: batches that will be trained on, over all epochs.
        """
        accumulation = self.gradient_accumulation_steps
        return AdamW(
            self.schedule(steps),
            weight_decay=self.weight_decay,
            beta_1=self.beta_1,
            beta_2=self.beta_2,
            epsilon=self.epsilon,
            rates=None if self.layer_decay == 1 else layerwise_rates(model, self.layer_decay),
            ema_momentum=self.ema_momentum,
            global_clipnorm=self.global_clipnorm,
            gradient_accumulation_steps=accumulation if accumulation > 1 else None,
        )

    def compile(self, model: Any, steps: int, **kwargs: Any) -> None:
        """Locks towers and compiles; `fit` comes next.

        Args:
            model: a `CLIPModel`, or a `CLIPForImageClassification`.
            steps: batches that will be trained on, over all epochs.
            **kwargs: more arguments of `model.compile`, such as `loss`.
        """
        self.lock(model)
        model.compile(self.optimizer(model, steps), **kwargs)


def full(**changes: Any) -> Recipe:
    """Returns the recipe that trains every weight with one learning rate."""
    return Recipe(**changes)


def lit(**changes: Any) -> Recipe:
    """Returns the recipe that teaches the text tower to read out a locked image tower.

    Source: Zhai et al. 2022, "LiT: Zero-Shot Transfer with Locked-image text Tuning". As in open_clip's
    `--lock-image`, the projection of the image tower is locked, too.
    """
    return Recipe(**{"learning_rate": 1e-4, "locked": ("image_encoder",), **changes})


def layerwise(**changes: Any) -> Recipe:
    """Returns the recipe that trains every weight, the lower the more slowly.

    Source: Dong et al. 2022, "CLIP Itself is a Strong Fine-tuner".
    """
    return Recipe(**{"learning_rate": 3e-5, "layer_decay": 0.75, **changes})


def lora(**changes: Any) -> Recipe:
    """Returns the recipe that trains low-rank changes of attention's matrices, and nothing else.

    Its result is an adapter: `model.save_adapter` writes it, `model.merge_adapter` puts it into the weights.

    Source: Hu et al. 2021, "LoRA: Low-Rank Adaptation of Large Language Models".
    """
    return Recipe(**{"learning_rate": 1e-3, "weight_decay": 0.0, "adapter": "lora", **changes})


# By the names that the command line knows them by.
RECIPES = {"full": full, "lit": lit, "layerwise": layerwise, "lora": lora}
