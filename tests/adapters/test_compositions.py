"""How several adapters work together, against what each does alone."""

import numpy as np
import pytest
from keras import ops

from helpers.adapted import METHODS, add, array, make, parameters
from tf_clip.adapters.composition import Average, BatchSplit, Block, Fuse, Parallel, Split, Stack, Switch

COMPOSED = ("seq_bn", "lora", "ia3", "prefix_tuning", "prompt_tuning", "loreft")


@pytest.fixture(scope="module")
def case(tiny_config, tiny_inputs):
    """With "a" and "b" of each method, as "lora_a" and so on; prefixes of different lengths."""
    made = make("CLIPModel", tiny_config, tiny_inputs)
    for method in COMPOSED:
        add(made.model, f"{method}_a", METHODS[method], 1)
        second = "prefix_tuning_flat[prefix_length=5]" if method == "prefix_tuning" else METHODS[method]
        add(made.model, f"{method}_b", second, 2)
    add(made.model, "narrow", "lora[r=1]", 3)
    return made


@pytest.fixture(autouse=True)
def inactive_again(case):
    yield
    case.model.active_adapters = None


def texts(case, setup, rows=slice(None), **options):
    """Returns the text tower's embeddings of some rows while a composition is active."""
    case.model.active_adapters = setup
    inputs = {name: case.inputs[name][rows] for name in ("input_ids", "attention_mask")}
    return array(case.model.get_text_features(**inputs, **options))


def images(case, setup, rows=slice(None), **options):
    case.model.active_adapters = setup
    return array(case.model.get_image_features(case.inputs["pixel_values"][rows], **options))


def close(ours, theirs):
    np.testing.assert_allclose(ours, theirs, atol=2e-5, rtol=2e-5)


@pytest.mark.parametrize("method", COMPOSED)
def test_batch_split_gives_rows_to_each(case, method):
    a, b = f"{method}_a", f"{method}_b"
    both = texts(case, BatchSplit(a, b, batch_sizes=[1, 2]))
    close(both, np.concatenate([texts(case, a)[:1], texts(case, b)[1:]]))
    both = images(case, BatchSplit(b, a, batch_sizes=1))
    close(both, np.concatenate([images(case, b)[:1], images(case, a)[1:]]))


@pytest.mark.parametrize("method", COMPOSED)
def test_switch_lets_each_row_choose(case, method):
    names = [f"{method}_a", f"{method}_b"]
    if method == "prompt_tuning":
        with pytest.raises(ValueError, match="the same number of prompts"):
            case.model.active_adapters = Switch(*names)
        return
    chosen = texts(case, Switch(*names), adapter_ids=np.array([1, -1, 0], "int32"))
    alone = [texts(case, None), *(texts(case, name) for name in names)]
    close(chosen, np.stack([alone[2][0], alone[0][1], alone[1][2]]))
    chosen = images(case, Switch(*names), adapter_ids=np.array([0, 1], "int32"))
    close(chosen, np.stack([images(case, names[0])[0], images(case, names[1])[1]]))


def test_switch_takes_loras_of_other_ranks_and_kinds(case):
    ids = np.array([2, 0, 1], "int32")
    names = ["lora_a", "narrow", "seq_bn_b"]
    alone = [texts(case, name) for name in names]
    close(texts(case, Switch(*names), adapter_ids=ids), np.stack([alone[i][row] for row, i in enumerate(ids)]))
    close(
        texts(case, Switch(*names[:2]), adapter_ids=np.array([1, 0, 0], "int32")),
        np.stack([alone[1][0], alone[0][1], alone[0][2]]),
    )


def test_switch_asks_for_numbers_and_the_whole_model_takes_them(case):
    with pytest.raises(ValueError, match="`adapter_ids` must be given while Switch"):
        texts(case, Switch("lora_a", "lora_b"))
    ids = {"text_adapter_ids": np.array([0, 1, -1]), "image_adapter_ids": np.array([1, 1])}
    output = case.model(**case.inputs, **ids)
    expected = images(case, "lora_b")
    close(array(output.image_embeds), expected / np.linalg.norm(expected, axis=-1, keepdims=True))


@pytest.mark.parametrize("method", COMPOSED)
def test_parallel_runs_all_on_all_rows(case, method):
    a, b = f"{method}_a", f"{method}_b"
    close(texts(case, Parallel(a, b)), np.concatenate([texts(case, a), texts(case, b)]))
    close(images(case, Parallel(a, b)), np.concatenate([images(case, a), images(case, b)]))
    first = texts(case, Stack("narrow", Parallel(a, b)))
    close(first, np.concatenate([texts(case, Stack("narrow", a)), texts(case, Stack("narrow", b))]))


def test_parallel_has_no_loss(case):
    case.model.active_adapters = Parallel("lora_a", "lora_b")
    with pytest.raises(ValueError, match="no Parallel where a loss"):
        case.model(**{name: value[:2] for name, value in case.inputs.items()}, return_loss=True)


@pytest.mark.parametrize("method", ["seq_bn", "lora", "ia3", "loreft"])
def test_the_average_of_equals_is_each_and_weights_count_once(case, method):
    """AdapterHub divides by the weights twice."""
    a, b = f"{method}_a", f"{method}_b"
    close(texts(case, Average(a, a)), texts(case, a))
    close(texts(case, Average(a, a, weights=[3, 1])), texts(case, a))
    assert Average(a, b, weights=[3, 1]).weights == (0.75, 0.25)
    close(texts(case, Average(a, b, weights=[1, 0])), texts(case, a))
    close(texts(case, Average(a, b, weights=[0, 0], normalize_weights=False)), texts(case, None))
    assert np.abs(texts(case, Average(a, b)) - texts(case, a)).max() > 1e-3


def test_a_stack_of_loras_adds_both(case):
    """In AdapterHub a fresh second LoRA undoes the first, and layers that are not square fail."""
    case.model.add_adapter("fresh", "lora[intermediate_lora=True,output_lora=True]")
    close(texts(case, Stack("lora_a", "fresh")), texts(case, "lora_a"))
    close(texts(case, Stack("lora_a", "lora_b")), texts(case, Stack("lora_b", "lora_a")))
    assert np.abs(texts(case, Stack("lora_a", "lora_b")) - texts(case, "lora_a")).max() > 1e-3
    case.model.delete_adapter("fresh")


def test_a_stack_of_bottlenecks_has_an_order(case):
    one, other = (texts(case, Stack(*names)) for names in (("seq_bn_a", "seq_bn_b"), ("seq_bn_b", "seq_bn_a")))
    assert np.abs(one - other).max() > 1e-4


@pytest.mark.parametrize("method", ["seq_bn", "lora", "ia3", "loreft"])
def test_split_gives_tokens_to_each(case, method):
    a, b = f"{method}_a", f"{method}_b"
    close(texts(case, Split(a, b, splits=[7, 0])), texts(case, a)) if method != "loreft" else None
    assert np.abs(texts(case, Split(a, b, splits=[3, 4])) - texts(case, a)).max() > 1e-3
    with pytest.raises(ValueError, match="number of tokens, 17"):
        images(case, Split(a, b, splits=[3, 4]))


@pytest.mark.parametrize(("setup", "reason"), [
    (Split("prefix_tuning_a", "prefix_tuning_b", splits=1), "a prefix is read by all tokens"),
    (Split("prompt_tuning_a", "lora_b", splits=1), "a prompt is tokens of its own"),
    (Average("prefix_tuning_a", "lora_a"), "nothing to do with"),
    (Fuse("lora_a", "lora_b"), "must fuse bottlenecks alone"),
    (Fuse("seq_bn_a", "seq_bn_b", name="never"), "must name a fusion that was added"),
    (Stack(Parallel("lora_a", "lora_b"), Parallel("lora_a", "lora_b", "narrow")), "of one size"),
    (Stack("lora_a", "nobody"), "`name` must be of an adapter"),
])  # fmt: skip
def test_what_has_no_meaning_says_why(case, setup, reason):
    with pytest.raises(ValueError, match=reason):
        case.model.active_adapters = setup
    assert case.model.active_adapters is None


def test_rows_must_be_as_many_as_split(case):
    with pytest.raises(ValueError, match="`batch_sizes` must add up to the number of rows, 3"):
        texts(case, BatchSplit("lora_a", "lora_b", batch_sizes=[2, 2]))


def test_rows_unknown_until_the_graph_runs_are_checked_too(case):
    import keras

    if keras.backend.backend() != "tensorflow":
        pytest.skip("other backends always know the number of rows")
    import tensorflow as tf

    case.model.active_adapters = BatchSplit("seq_bn_a", "seq_bn_b", batch_sizes=[2, 2])
    signature = [tf.TensorSpec([None, 7], tf.int32)]
    encode = tf.function(lambda ids: case.model.get_text_features(ids), input_signature=signature)
    for rows in (3, 5):
        with pytest.raises(tf.errors.InvalidArgumentError):
            encode(np.resize(case.inputs["input_ids"], (rows, 7)))
    assert encode(np.resize(case.inputs["input_ids"], (4, 7))).shape == (4, 28)


def test_compositions_are_compared_whole():
    """AdapterHub compares what both have in common alone."""
    assert Stack("a") != Stack("a", "b")
    assert Average("a", "b", weights=[1, 2]) != Average("a", "b", weights=[2, 1])
    assert Split("a", "b", splits=[1, 2]) != Split("a", "b", splits=[2, 1])
    assert Average("a", "b") == Average("a", "b", weights=[1, 1])
    for setup in (Stack("a", Average("b", "c", weights=[1, 3])), Fuse("a", Stack("b", "c")), Switch("a", "b")):
        assert Block.from_dict(setup.to_dict()) == setup


def test_deleting_one_of_a_stack_switches_all_off_and_others_stay(case):
    case.model.add_adapter("gone", "lora")
    case.model.active_adapters = Stack("lora_a", "lora_b")
    case.model.delete_adapter("gone")
    assert case.model.active_adapters == Stack("lora_a", "lora_b")


@pytest.mark.parametrize("config", ["dynamic", "static", {"residual_before": True, "value_before_softmax": False}])
def test_fusion_weighs_for_each_token(case, config):
    """Against the formula in numpy, at one place."""
    model = case.model
    model.adapters.add_adapter_fusion(["seq_bn_a", "seq_bn_b"], config)
    fusion = model.text_encoder.encoder_layers[0].mlp_adapters.fusions["seq_bn_a,seq_bn_b"]
    x, residual = np.random.default_rng(0).normal(size=(2, 2, 4, 24)).astype("float32")
    place = model.text_encoder.encoder_layers[0].mlp_adapters
    model.active_adapters = Fuse("seq_bn_a", "seq_bn_b")
    from tf_clip.adapters import adapter_scores
    from tf_clip.layers.adapter_sites import NO_ROW_INPUTS

    with adapter_scores() as scores:
        texts(case, Fuse("seq_bn_a", "seq_bn_b"))
    shares = array(scores["fusions"]["seq_bn_a,seq_bn_b"][0]["mlp"])
    assert shares.shape == (3, 7, 2)
    np.testing.assert_allclose(shares.sum(-1), 1, atol=1e-6)
    ours = array(place.run((ops.convert_to_tensor(x), ops.convert_to_tensor(residual)), NO_ROW_INPUTS, False)[0])
    made = []
    for name in ("seq_bn_a", "seq_bn_b"):
        w = {key: array(value) for key, value in place.by_name[name].to_file().items()}
        down = np.maximum((x + residual) @ w["adapter_down.0.weight"].T + w["adapter_down.0.bias"], 0)
        made.append(down @ w["adapter_up.weight"].T + w["adapter_up.bias"])
    made = np.stack(made, axis=2)
    w = fusion.to_file()
    query = (x + residual) @ w["query.weight"].T + w["query.bias"]
    key = made @ w["key.weight"].T + w["key.bias"]
    scores = np.einsum("bld,blad->bla", query, key)
    weights = np.exp(scores - scores.max(-1, keepdims=True))
    weights /= weights.sum(-1, keepdims=True)
    before = isinstance(config, dict)
    value = made + (x[:, :, None] if before else 0)
    expected = np.einsum("bla,blad->bld", weights, value)
    expected = expected @ w["value.weight"].T if "value.weight" in w else expected
    np.testing.assert_allclose(ours, expected if before else expected + x, atol=1e-5)
    model.adapters.delete_adapter_fusion(["seq_bn_a", "seq_bn_b"])
    assert model.active_adapters is None


def test_training_a_fusion_trains_it_alone(case):
    model = case.model
    model.adapters.add_adapter_fusion(["seq_bn_a", "seq_bn_b"])
    model.adapters.train_adapter_fusion(["seq_bn_a", "seq_bn_b"])
    assert {v.path.split("/")[-3] for v in model.trainable_variables} == {"fusion_seq_bn_a_seq_bn_b"}
    assert sum(array(loss) for loss in model.losses) < 1e-6  # the value matrices begin near the identity
    kernel = model.text_encoder.encoder_layers[0].mlp_adapters.fusions["seq_bn_a,seq_bn_b"].value.kernel
    kernel.assign(array(kernel.value) + 1)
    assert sum(array(loss) for loss in model.losses) == pytest.approx(0.01 * 24 * 24, rel=1e-3)
    model.adapters.train_adapter_fusion(Fuse("seq_bn_a", "seq_bn_b"), unfreeze_adapters=True)
    assert {id(v) for v in parameters(model, "seq_bn_a")} < {id(v) for v in model.trainable_variables}
    model.adapters.freeze_model(False)
    model.adapters.delete_adapter_fusion("seq_bn_a,seq_bn_b")
    with pytest.raises(ValueError, match="bottlenecks at the same sites"):
        model.adapters.add_adapter_fusion(["seq_bn_a", "lora_a"])
    assert not model.adapters.state.fusions
