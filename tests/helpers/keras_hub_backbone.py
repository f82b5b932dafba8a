"""KerasHub's CLIP of a Hugging Face configuration, for those who compare with it in processes of their own."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def backbone(config: Mapping[str, Any]) -> Any:
    """Returns a fresh `CLIPBackbone`.

    Args:
        config: as in `config.json`, with all fields.
    """
    import keras_hub

    text, vision = config["text_config"], config["vision_config"]
    return keras_hub.models.CLIPBackbone(
        keras_hub.models.CLIPVisionEncoder(
            patch_size=vision["patch_size"],
            image_shape=(vision["image_size"], vision["image_size"], 3),
            **_sizes(vision),
        ),
        keras_hub.models.CLIPTextEncoder(
            vocabulary_size=text["vocab_size"],
            embedding_dim=text["hidden_size"],
            max_sequence_length=text["max_position_embeddings"],
            **_sizes(text),
        ),
        config["projection_dim"],
    )


def _sizes(tower: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "hidden_dim": tower["hidden_size"],
        "num_layers": tower["num_hidden_layers"],
        "num_heads": tower["num_attention_heads"],
        "intermediate_dim": tower["intermediate_size"],
        "intermediate_activation": tower["hidden_act"],
    }
