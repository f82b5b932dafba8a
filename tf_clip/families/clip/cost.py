"""What a CLIP model costs, from its configuration alone: parameters, and operations per image and text.

An operation is a multiplication or an addition inside a matrix product or a convolution (two per
multiply-accumulate); norms, activations, softmaxes and the embedding look-up are not counted, as is usual.
"""

from __future__ import annotations

from tf_clip.families.clip.config import CLIPConfig, CLIPResNetConfig, CLIPTextConfig, CLIPVisionConfig


def parameter_count(config: CLIPConfig) -> int:
    """Returns the number of trained parameters of a `CLIPModel`, the temperature included.

    Args:
        config: the model's configuration.
    """
    bias = config.logit_bias_init_value is not None
    return text_parameters(config) + image_parameters(config) + 1 + bias


def text_parameters(config: CLIPConfig) -> int:
    """Returns the number of trained parameters of the text encoder, its projection included."""
    text = config.text_config
    tables = (text.vocab_size + text.max_position_embeddings) * text.hidden_size
    return tables + _block_parameters(text) + 2 * text.hidden_size + text.hidden_size * config.projection_dim


def image_parameters(config: CLIPConfig) -> int:
    """Returns the number of trained parameters of the image encoder, its projection included."""
    vision = config.vision_config
    if isinstance(vision, CLIPResNetConfig):
        # Each convolution is followed by a norm with a scale and a shift.
        convolutions = sum(size * size * a * b + 2 * b for size, a, b, _ in _resnet_convolutions(vision))
        width = vision.hidden_size
        pooling = (vision.num_patches + 1) * width + 3 * (width * width + width)
        return convolutions + pooling + width * config.projection_dim + config.projection_dim
    width = vision.hidden_size
    patches = vision.num_channels * vision.patch_size**2 * width
    positions = (vision.num_patches + 1) * width
    return width + patches + positions + 4 * width + _block_parameters(vision) + width * config.projection_dim


def operations_per_text(config: CLIPConfig, length: int | None = None) -> int:
    """Returns the operations that encoding one text takes.

    Args:
        config: the model's configuration.
        length: the text's length in tokens; None takes the longest there is.
    """
    text = config.text_config
    length = length or text.max_position_embeddings
    return _block_operations(text, length) + 2 * text.hidden_size * config.projection_dim


def operations_per_image(config: CLIPConfig) -> int:
    """Returns the operations that encoding one image of the configuration's size takes."""
    vision = config.vision_config
    projection = 2 * vision.hidden_size * config.projection_dim
    if isinstance(vision, CLIPResNetConfig):
        convolutions = sum(2 * size * size * a * b * side * side for size, a, b, side in _resnet_convolutions(vision))
        width, places = vision.hidden_size, vision.num_patches + 1
        # One query, the mean, reads keys and values of every place.
        pooling = 2 * width * width + 2 * 2 * places * width * width + 2 * 2 * places * width
        return convolutions + pooling + projection
    patches = 2 * vision.num_patches * vision.num_channels * vision.patch_size**2 * vision.hidden_size
    return patches + _block_operations(vision, vision.num_patches + 1) + projection


def _block_parameters(tower: CLIPTextConfig | CLIPVisionConfig) -> int:
    width, inner = tower.hidden_size, tower.intermediate_size
    attention = 4 * (width * width + width)
    mlp = 2 * width * inner + inner + width
    norms = 4 * width
    return tower.num_hidden_layers * (attention + mlp + norms)


def _block_operations(tower: CLIPTextConfig | CLIPVisionConfig, length: int) -> int:
    width, inner = tower.hidden_size, tower.intermediate_size
    projections = 4 * length * width * width
    attention = 2 * length * length * width
    mlp = 2 * length * width * inner
    return tower.num_hidden_layers * 2 * (projections + attention + mlp)


def _resnet_convolutions(vision: CLIPResNetConfig) -> list[tuple[int, int, int, int]]:
    """Lists the convolutions: kernel size, channels in and out, height and width of what comes out."""
    width, side = vision.embedding_size, vision.image_size // 2
    found = [
        (3, vision.num_channels, width // 2, side),
        (3, width // 2, width // 2, side),
        (3, width // 2, width, side),
    ]
    side //= 2
    channels = width
    for stage, depth in enumerate(vision.depths):
        inner = width * 2**stage
        for block in range(depth):
            halves = stage > 0 and block == 0
            out = side // 2 if halves else side
            found += [(1, channels, inner, side), (3, inner, inner, side), (1, inner, 4 * inner, out)]
            if block == 0:
                found.append((1, channels, 4 * inner, out))
            channels, side = 4 * inner, out
    return found
