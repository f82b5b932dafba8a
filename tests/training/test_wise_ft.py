"""WiSE-FT: the mixture of two models is that of their weights."""

import numpy as np
import pytest

from tf_clip import CLIPModel
from tf_clip.training.wise_ft import interpolate_weights


@pytest.mark.parametrize("share", [0.0, 0.25, 1.0])
def test_weights_are_mixed(tiny_config, tiny_model, share):
    other = CLIPModel(tiny_config)
    other.logit_scale.assign(1.0)
    mixed = interpolate_weights(tiny_model, other, share)
    for before, after, value in zip(tiny_model.get_weights(), other.get_weights(), mixed.get_weights(), strict=True):
        np.testing.assert_allclose(value, (1 - share) * before + share * after, atol=1e-7)


def test_models_that_cannot_be_mixed_are_refused(tiny_config, tiny_model):
    with pytest.raises(ValueError, match="`share` must be from 0 to 1"):
        interpolate_weights(tiny_model, tiny_model, 1.5)
    wider = CLIPModel({**tiny_config.to_dict(), "projection_dim": 32})
    with pytest.raises(ValueError, match="`after` must be a model with the variables of `before`"):
        interpolate_weights(tiny_model, wider, 0.5)
