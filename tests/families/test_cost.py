"""Parameters and operations from a configuration: known totals, Keras's own count, a sum by hand."""

import pytest

from tf_clip import CLIPConfig, CLIPModel

# Published totals, which OpenCLIP's models have as well (compared in tests/parity).
from tf_clip.families import cost

# Published totals, which OpenCLIP's models have as well (compared in tests/parity).
from tf_clip.families import published as registry

# Published totals, which OpenCLIP's models have as well (compared in tests/parity).
KNOWN = {
    "RN50": 102_007_137,
    "RN101": 119_688_033,
    "RN50x4": 178_300_601,
    "RN50x16": 290_979_217,
    "RN50x64": 623_258_305,
    "ViT-B/32": 151_277_313,
    "ViT-B/16": 149_620_737,
    "ViT-L/14": 427_616_513,
    "ViT-H/14": 986_109_441,
    "ViT-g/14": 1_366_678_273,
    "ViT-bigG/14": 2_539_567_105,
    "ViT-B/32-256": 151_288_833,
    "ViT-L/14-336": 427_944_193,
    "ViT-H/14-378": 986_714_881,
}


@pytest.mark.parametrize("architecture", KNOWN)
def test_known_totals(architecture):
    model = next(model for model in registry.known_models() if model.architecture == architecture)
    assert cost.parameter_count(model.config) == KNOWN[architecture]


RESNET = {"model_type": "clip_resnet_model", "depths": [1, 2, 1, 1], "embedding_size": 8, "num_attention_heads": 4}


@pytest.mark.parametrize(
    "change", [{}, {"vision_config": {**RESNET, "image_size": 64}}, {"logit_bias_init_value": 0.0}]
)
def test_keras_counts_the_same(tiny_config, change):
    config = CLIPConfig.from_dict({**tiny_config.to_dict(), **change})
    model = CLIPModel(config)
    assert cost.parameter_count(config) == sum(
        int(variable.value.shape.num_elements()) for variable in model.trainable_weights
    )
    assert cost.text_parameters(config) == model.text_encoder.count_params()


def test_operations_by_hand():
    tower = {"hidden_size": 2, "intermediate_size": 3, "num_hidden_layers": 1, "num_attention_heads": 1}
    config = CLIPConfig(
        text_config={**tower, "max_position_embeddings": 5},
        vision_config={**tower, "image_size": 4, "patch_size": 2},
        projection_dim=7,
    )
    # 5 tokens: four 2x2 projections, two products of 5x5x2, an MLP of 2x3 and back; then one projection to 7
    assert cost.operations_per_text(config) == 2 * (4 * 5 * 4 + 2 * 25 * 2 + 2 * 5 * 6) + 2 * 14
    assert cost.operations_per_text(config, length=1) == 2 * (4 * 4 + 2 * 2 + 2 * 6) + 2 * 14
    # 4 patches of 12 values and a class token
    assert cost.operations_per_image(config) == 2 * 4 * 12 * 2 + 2 * (4 * 5 * 4 + 2 * 25 * 2 + 2 * 5 * 6) + 2 * 14
