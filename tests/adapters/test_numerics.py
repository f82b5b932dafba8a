"""Each adapter at one place, against its formula in numpy."""

import numpy as np
import pytest
from keras import ops

from helpers.adapted import METHODS, add, array, make
from tf_clip.adapters.methods.reft import orthonormal, reflections_of
from tf_clip.layers.adapter_sites import NO_ROW_INPUTS, RowInputs

pytestmark = pytest.mark.backends
GENERATOR = np.random.default_rng(5)


@pytest.fixture(scope="module")
def case(tiny_config, tiny_inputs):
    return make("CLIPModel", tiny_config, tiny_inputs)


@pytest.fixture
def layer(case):
    yield case.model.image_encoder.encoder_layers[1]
    case.model.delete_adapter("a")


def tensors(*shape):
    return GENERATOR.normal(size=shape).astype("float32")


def run(place, *state, rows=NO_ROW_INPUTS):
    state = tuple(None if x is None else ops.convert_to_tensor(x) for x in state)
    return [None if x is None else array(x) for x in place.by_name["a"].adapt(state, rows, False)]


def weights(place):
    return {name: value.astype("float64") for name, value in place.by_name["a"].to_file().items()}


def gate(w, x, prefix="gate."):
    opened = 1 / (1 + np.exp(-(x @ w[f"{prefix}weight"].T + w[f"{prefix}bias"])))
    return opened.mean(axis=1, keepdims=True)


def close(ours, theirs):
    np.testing.assert_allclose(ours, theirs, atol=1e-5, rtol=1e-5)


def bottleneck(w, x, function, step=0):
    down = x @ w[f"adapter_down.{step}.weight"].T + w[f"adapter_down.{step}.bias"]
    return function(down) @ w["adapter_up.weight"].T + w["adapter_up.bias"]


def relu(x):
    return np.maximum(x, 0)


def swish(x):
    return x / (1 + np.exp(-x))


def norm(w, x, name):
    centered = x - x.mean(-1, keepdims=True)
    return centered / np.sqrt(centered.var(-1, keepdims=True) + 1e-5) * w[f"{name}.weight"] + w[f"{name}.bias"]


def test_bottlenecks(case, layer):
    y, residual = tensors(2, 2, 5, 32)
    add(case.model, "a", METHODS["seq_bn"])
    w = weights(layer.mlp_adapters)
    close(run(layer.mlp_adapters, y, residual)[0], y + bottleneck(w, y + residual, relu))
    assert "a" not in layer.attention_adapters.by_name
    add(case.model, "a", METHODS["double_seq_bn"], overwrite_ok=True)
    for place in (layer.mlp_adapters, layer.attention_adapters):
        close(run(place, y, residual)[0], y + bottleneck(weights(place), y, swish))
    add(case.model, "a", METHODS["par_bn"], overwrite_ok=True)
    close(run(layer.mlp_adapters, y, residual)[0], y + 4 * bottleneck(weights(layer.mlp_adapters), residual, relu))
    add(case.model, "a", "seq_bn[reduction_factor=4,use_gating=True,scaling='learned']", overwrite_ok=True)
    w = weights(layer.mlp_adapters)
    read = y + residual
    close(run(layer.mlp_adapters, y, residual)[0], y + w["scaling"] * bottleneck(w, read, relu) * gate(w, read))


def test_a_channel_scaled_bottleneck_on_the_whole_stream(case, layer):
    y, residual = tensors(2, 2, 5, 32)
    add(case.model, "a", "adapter_plus[reduction_factor=4,non_linearity=relu]")
    w = weights(layer.mlp_adapters)
    stream = y + residual
    after = residual + run(layer.mlp_adapters, y, residual)[0]
    close(after, w["scaling"] * bottleneck(w, stream, relu) + stream)


def test_norms_of_its_own(case, layer):
    y, residual = tensors(2, 2, 5, 32)
    add(case.model, "a", METHODS["own_norms"])
    w = weights(layer.mlp_adapters)
    made = bottleneck(w, norm(w, y + residual, "adapter_norm_before"), relu, step=1)
    close(run(layer.mlp_adapters, y, residual)[0], norm(w, made + y, "adapter_norm_after"))


def test_compacter(case, layer):
    y, residual = tensors(2, 2, 5, 32)
    add(case.model, "a", "compacter++[reduction_factor=2,non_linearity=relu]")
    w = weights(layer.mlp_adapters)
    rule = case.model.adapters.get_adapter("a")[-1]["shared"].to_file()["shared_parameters.phm_rule"]

    def kernel(name):
        factors = w[f"{name}.W_left"] @ w[f"{name}.W_right"]
        return sum(np.kron(one, factor) for one, factor in zip(rule, factors, strict=True))

    middle = relu((y + residual) @ kernel("adapter_down.0") + w["adapter_down.0.b"])
    close(run(layer.mlp_adapters, y, residual)[0], y + middle @ kernel("adapter_up") + w["adapter_up.b"])


def test_low_rank_changes(case, layer):
    x = tensors(2, 5, 32)
    dense = layer.mlp.fc1
    kernel, bias = array(dense.kernel.value, "float64"), array(dense.bias.value, "float64")
    y = (x @ kernel + bias).astype("float32")
    add(case.model, "a", "lora[r=3,alpha=6,intermediate_lora=True]")
    w = weights(dense.adapters)
    close(run(dense.adapters, y, x)[0], y + 2 * x @ w["lora_A"].T @ w["lora_B"].T)
    add(case.model, "a", "lora[r=4,alpha=6,use_rslora=True,intermediate_lora=True]", overwrite_ok=True)
    w = weights(dense.adapters)
    close(run(dense.adapters, y, x)[0], y + 3 * x @ w["lora_A"].T @ w["lora_B"].T)
    add(case.model, "a", "lora[r=3,alpha=6,use_gating=True,intermediate_lora=True]", overwrite_ok=True)
    w = weights(dense.adapters)
    close(run(dense.adapters, y, x)[0], y + x @ w["lora_A"].T @ w["lora_B"].T * gate(w, x))
    add(case.model, "a", "ia3", overwrite_ok=True)
    close(run(dense.adapters, y, x)[0], y * weights(dense.adapters)["lora_B"][:, 0])
    for with_bias in (False, True):
        add(case.model, "a", f"dora[r=3,alpha=6,intermediate_lora=True,dora_bias={with_bias}]", overwrite_ok=True)
        w = weights(dense.adapters)
        changed = kernel + 2 * w["lora_A"].T @ w["lora_B"].T
        stretch = w["m.weight"][:, 0] / np.linalg.norm(changed, axis=0)
        close(run(dense.adapters, y, x)[0], x @ changed * stretch + bias * (stretch if with_bias else 1))


def test_vera_shares_its_matrices_between_towers(case, layer):
    x, dense = tensors(2, 5, 32), layer.self_attn.v_proj
    add(case.model, "a", "vera[r=4,alpha=8]")
    w = weights(dense.adapters)
    shared = case.model.adapters.get_adapter("a")[-1]["shared"].to_file()
    down, up = shared["shared_parameters.lora_A"], shared["shared_parameters.lora_B"]
    assert (down.shape, up.shape) == ((4, 32), (32, 4))
    y = tensors(2, 5, 32)
    close(run(dense.adapters, y, x)[0], y + 2 * x @ (w["vera_B"] @ up @ w["vera_D"] @ down).T)
    narrow = case.model.text_encoder.encoder_layers[0].self_attn.q_proj
    w, x, y = weights(narrow.adapters), tensors(2, 5, 24), tensors(2, 5, 24)
    expected = y + 2 * x @ (w["vera_B"] @ up[:24] @ w["vera_D"] @ down[:, :24]).T
    close(run(narrow.adapters, y, x)[0], expected)


def test_prefixes(case, layer):
    add(case.model, "a", "prefix_tuning[prefix_length=3,bottleneck_size=5,use_gating=True,shared_gating=False]")
    attention = layer.self_attn
    keys, values = tensors(2, 2, 5, 4, 8)
    visible, x = np.tri(5, dtype=bool), tensors(2, 5, 32)
    w = {
        name.removeprefix("vision."): value
        for name, value in case.model.adapters.get_adapter("a")[-1]["shared"].to_file().items()
    }
    hidden = np.tanh(w["wte.weight"] @ w["control_trans.0.weight"].T + w["control_trans.0.bias"])
    made = (hidden @ w["control_trans.2.weight"].T + w["control_trans.2.bias"]).reshape(3, 6, 4, 8)
    opened = gate(weights(attention.keys_values), x, "")  # [batch, 1, 2]
    own = [made[None, :, 2 * 1 + kind] * opened[:, :, None, kind : kind + 1] for kind in (0, 1)]
    got = run(attention.keys_values, keys, values, visible, x)
    close(got[0], np.concatenate([own[0], keys], axis=1))
    close(got[1], np.concatenate([own[1], values], axis=1))
    np.testing.assert_array_equal(got[2], np.concatenate([np.ones((5, 3), bool), visible], axis=1))
    assert run(attention.keys_values, keys, values, None, x)[2] is None


def test_ejected_prefixes_do_the_same(case, layer):
    add(case.model, "a", METHODS["mam"])
    case.model.active_adapters = "a"
    expected = case.run()
    case.model.adapters.eject_prefix_tuning("a")
    close(case.run(), expected)
    assert case.model.adapters.state.configs["a"].parts()[0].flat
    with pytest.raises(ValueError, match="prefix tuning that is not flat"):
        case.model.adapters.eject_prefix_tuning("a")


@pytest.mark.parametrize("config", ["loreft[r=2,suffix_positions=2]", "noreft[r=2,suffix_positions=2]", "direft"])
def test_reft_changes_first_and_last_tokens(case, layer, config):
    add(case.model, "a", config)
    x = tensors(2, 8, 32)
    mask = np.array([[0, 1, 1, 1, 1, 1, 1, 0], [1, 1, 1, 1, 1, 1, 1, 1]])
    adapter = layer.block_adapters.by_name["a"]
    expected = x.copy()
    for row, (first, last) in enumerate(((1, 7), (0, 8))):
        for number, tokens in (
            (0, range(first, first + 3)),
            (1, range(last - adapter.settings.suffix_positions, last)),
        ):
            w = weights(layer.block_adapters)
            directions = array(adapter.directions(number), "float64")
            for token in tokens:
                old = x[row, token]
                change = old @ w[f"units.{number}.learned_source.weight"].T + w[f"units.{number}.learned_source.bias"]
                if "direft" not in config:
                    change = change - old @ directions
                expected[row, token] = old + change @ directions.T
    close(run(layer.block_adapters, x, rows=RowInputs(mask=mask))[0], expected)
    if config.startswith("loreft"):
        close(directions.T @ directions, np.eye(2))


def test_directions_stay_orthonormal_whatever_is_learned():
    weights = tensors(12, 3)
    made = array(orthonormal(weights))
    close(made.T @ made, np.eye(3))
    close(array(orthonormal(reflections_of(made))), made)
    column = np.eye(12, 2)[:, ::-1].copy()
    close(array(orthonormal(reflections_of(column))), column)


def test_the_invertible_block(case, layer):
    add(case.model, "a", METHODS["seq_bn_inv"])
    adapter = case.model.text_encoder.embedding_adapters.by_name["a"]
    x, w = tensors(2, 5, 24), adapter.to_file()

    def network(name, part):
        hidden = relu(part @ w[f"{name}.0.weight"].T + w[f"{name}.0.bias"])
        return hidden @ w[f"{name}.2.weight"].T + w[f"{name}.2.bias"]

    left = x[..., :12] + network("F", x[..., 12:])
    expected = np.concatenate([left, x[..., 12:] + network("G", left)], axis=-1)
    close(array(adapter.adapt((ops.convert_to_tensor(x),), NO_ROW_INPUTS, False)[0]), expected)


def test_gates_can_be_looked_at(case, layer):
    from tf_clip.adapters import adapter_scores

    add(case.model, "a", METHODS["unipelt"], set_active=True)
    with adapter_scores() as scores:
        case.run()
    gates = scores["gates"]["a"]
    assert set(gates) == set(range(5))
    assert set(gates[0]) == {"q", "v", "mlp", "keys_values"}
    assert gates[0]["mlp"].shape == (3, 1, 1) and gates[4]["q"].shape == (2, 1, 1)
    assert all(0 < array(one).min() and array(one).max() < 1 for parts in gates.values() for one in parts.values())
    with adapter_scores() as nothing:
        pass
    assert not nothing["gates"]
