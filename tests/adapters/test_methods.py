"""Every method in every kind of model: a table of behaviors."""

import json

import keras
import numpy as np
import pytest

from helpers.adapted import KINDS, MERGEABLE, METHODS, add, array, disturb, make, parameters, value
from tf_clip.adapters.named_configs import as_config
from tf_clip.adapters.setup import AdapterSetup
from tf_clip.layers.adapter_sites import is_of_adapter

WHOLE = ("CLIPModel",)
# One of each family, for the other kinds of models.
FAMILIES = (
    "seq_bn",
    "par_bn",
    "compacter",
    "lora",
    "ia3",
    "vera",
    "prefix_tuning",
    "prompt_tuning",
    "loreft",
    "unipelt",
)


@pytest.fixture(scope="module")
def cases(tiny_config, tiny_inputs):
    made = {}

    def case(kind):
        if kind not in made:
            fresh = make(kind, tiny_config, tiny_inputs)
            made[kind] = fresh, fresh.run()
        return made[kind]

    return case


@pytest.fixture
def adapted(request, cases):
    """A model with the adapter "a", not active; afterwards the model must be as it was."""
    kind, method = request.param
    case, base = cases(kind)
    add(case.model, "a", METHODS[method])
    yield case, base, method
    for name in list(case.model.adapters.state.configs):
        case.model.delete_adapter(name)
    case.model.adapters.freeze_model(False)
    assert not [v for v in case.model.weights if is_of_adapter(v)]
    case.works_without(base)


def table(kinds, methods=tuple(METHODS)):
    rows = [
        pytest.param((kind, method), id=f"{kind}-{method}")
        for kind in kinds
        for method in methods
        if kind == "CLIPModel" or method in FAMILIES
    ]
    return pytest.mark.parametrize("adapted", rows, indirect=True)


def close(ours, theirs, atol=2e-5):
    np.testing.assert_allclose(ours, theirs, atol=atol, rtol=2e-5)


@table(KINDS)
def test_it_works_when_active_and_only_then(adapted):
    case, base, _ = adapted
    case.works_without(base)
    with AdapterSetup(case.model, "a"):
        inside = case.run()
    case.works_without(base)
    case.model.set_active_adapters("a")
    active = case.run()
    assert np.abs(active - base).max() > 1e-2
    np.testing.assert_array_equal(active, inside)
    case.model.active_adapters = None
    case.works_without(base)


@table(WHOLE)
def test_its_weights_are_there_and_can_be_trained(adapted):
    case, _, method = adapted
    own = parameters(case.model, "a")
    assert own
    assert {id(v) for v in own} <= {id(v) for v in case.model.weights}
    frozen = {v.path.split("/a/")[-1] for v in own if not v.trainable}
    expected = {"lora_A", "lora_B"} if method in ("vera", "dvora") else set()
    expected |= {"source_1/kernel", "source_1/bias", "projection_1"} if method == "noreft" else set()
    assert frozen == expected
    row = case.model.adapter_summary(as_dict=True)[0]
    assert row["parameters"] == sum(int(np.prod(v.shape)) for v in own)
    assert row["name"] == "a" and row["trained"] and not row["active"]
    assert json.loads(json.dumps(case.model.get_config()["adapters"]))["configs"]["a"]


@table(WHOLE)
def test_layers_are_left_out(adapted):
    case, base, method = adapted
    left = {0, 3}  # one of each tower
    config = as_config(METHODS[method])
    parts = [part.replace(leave_out=tuple(left)) for part in config.parts()]
    case.model.delete_adapter("a")
    add(case.model, "a", parts[0] if len(parts) == 1 else type(config)(tuple(parts)))
    layers = set(case.model.adapters.get_adapter("a")) - {-1}
    assert layers == (set() if method == "prompt_tuning" else {1, 2, 4})
    case.model.active_adapters = "a"
    assert np.abs(case.run() - base).max() > 1e-3


@table(WHOLE)
def test_skipped_layers_are_as_without_it(adapted):
    case, base, method = adapted
    case.model.active_adapters = "a"
    whole = case.run()
    assert np.abs(whole - base).max() > 1e-3
    case.model.set_active_adapters("a", skip_layers=range(5))
    if method == "prompt_tuning":  # it stands in front of the layers alone, and stays
        np.testing.assert_array_equal(case.run(), whole)
    elif method in ("seq_bn_inv", "double_seq_bn_inv"):  # so does a part of these
        assert np.abs(case.run() - base).max() > 1e-3
        assert np.abs(case.run() - whole).max() > 1e-3
    else:
        case.works_without(base)


@table(WHOLE)
def test_the_mean_is_the_mean_by_hand(adapted):
    case, _, method = adapted
    for seed, name in ((2, "b"), (3, "c")):
        add(case.model, name, METHODS[method], seed)
    weights = (-0.2, 0.9, 0.3)
    case.model.adapters.average_adapter("mean", ["a", "b", "c"], weights)
    for mean, *own in zip(*(parameters(case.model, name) for name in ("mean", "a", "b", "c")), strict=True):
        by_hand = sum(w * array(v.value, "float64") for w, v in zip(weights, own, strict=True))
        close(array(mean.value), by_hand, 1e-6)


@table(WHOLE)
def test_files_hold_all_of_it(adapted, tmp_path):
    case, _, _ = adapted
    case.model.active_adapters = "a"
    expected = case.run()
    case.model.save_adapter(tmp_path, "a")
    name = case.model.load_adapter(tmp_path, load_as="b", set_active=True)
    assert name == "b"
    assert case.model.adapters.state.configs["a"] == case.model.adapters.state.configs["b"]
    close(case.run(), expected)


@table(WHOLE)
def test_keras_files_hold_model_and_adapter(adapted, tmp_path):
    case, base, _ = adapted
    case.model.active_adapters = "a"
    expected = case.run()
    case.model.save(tmp_path / "model.keras")
    again = case._replace(model=keras.saving.load_model(tmp_path / "model.keras"))
    close(again.run(), expected, 1e-6)
    again.model.active_adapters = None
    close(again.run(), base, 1e-6)


@table(("CLIPModel", "CLIPVisionModel"), MERGEABLE)
def test_merged_it_does_the_same_and_can_be_taken_out(adapted):
    case, base, _ = adapted
    case.model.active_adapters = "a"
    expected = case.run()
    case.model.merge_adapter("a")
    assert case.model.active_adapters is None
    close(case.run(), expected)
    case.model.reset_adapter()
    case.works_without(base)
    case.model.merge_adapter("a")
    case.model.active_adapters = "a"
    np.testing.assert_array_equal(case.run(), expected)


@table(WHOLE, [method for method in METHODS if method not in MERGEABLE])
def test_what_cannot_be_merged_says_so(adapted):
    case, base, _ = adapted
    with pytest.raises(ValueError, match="`name` must be of an adapter of dense layers alone"):
        case.model.merge_adapter("a")
    case.works_without(base)


@table(WHOLE)
def test_a_seed_makes_the_same_weights(adapted):
    case, _, method = adapted
    config = as_config(METHODS[method]).replace(init_weights_seed=7)
    for name in ("b", "c"):
        case.model.add_adapter(name, config)
    for one, other in zip(parameters(case.model, "b"), parameters(case.model, "c"), strict=True):
        np.testing.assert_array_equal(array(one.value), array(other.value))


@table(WHOLE)
def test_training_changes_it_and_nothing_else(adapted):
    case, base, _ = adapted
    case.model.add_adapter("other", "lora")
    case.model.train_adapter("a")
    own = {id(v) for v in parameters(case.model, "a")}
    before = {id(v): value(v) for v in case.model.weights}
    assert {id(v) for v in case.model.trainable_variables} <= own
    case.model.compile(keras.optimizers.SGD(0.1), run_eagerly=True)
    texts = {name: array[:2] for name, array in case.inputs.items()}
    case.model.fit(texts, batch_size=2, verbose=0)
    changed = {v.path for v in case.model.weights if np.abs(value(v) - before[id(v)]).max() > 0}
    changed = {path for path in changed if "seed_generator" not in path}
    trained = {v.path for v in case.model.trainable_variables}
    assert trained - never_reached(case.model) <= changed <= trained
    case.model.active_adapters = None
    case.works_without(base)


def never_reached(model):
    """What the last blocks make of tokens that are not pooled, nobody reads."""
    last = ("text_encoder/layers_1/block_adapters", "image_encoder/layers_2/block_adapters")
    return {v.path for v in model.trainable_variables if v.path.startswith(last)}


def test_deleting_forgets(cases):
    case, base = cases("CLIPModel")
    disturb([], 0.1)
    add(case.model, "a", "lora", set_active=True)
    assert np.abs(case.run() - base).max() > 1e-3
    case.model.delete_adapter("a")
    assert case.model.active_adapters is None
    case.works_without(base)
    with pytest.raises(ValueError, match="`name` must be of an adapter"):
        case.model.adapters.get_adapter("a")
