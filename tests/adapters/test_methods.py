"""Every method in every kind of model: a table of behaviors."""

import json
from typing import NamedTuple

import keras
import numpy as np
import pytest

from helpers.adapted import KINDS, MERGEABLE, METHODS, Case, add, array, make, parameters, value
from tf_clip.adapters.named_configs import as_config
from tf_clip.adapters.setup import AdapterSetup
from tf_clip.layers.adapter_sites import is_of_adapter

# One of each family, where what is tested does not depend on a method's details.
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
# What acts on dense layers, what puts tokens in, and what shares weights, for the other kinds of models.
IN_OTHERS = ("lora", "prompt_tuning", "unipelt")


class Adapted(NamedTuple):
    """A model with the adapter "a", which is not active."""

    case: Case
    method: str
    base: np.ndarray
    active: np.ndarray


@pytest.fixture(scope="module")
def cases(tiny_config, tiny_inputs):
    made = {}

    def case(kind):
        if kind not in made:
            fresh = make(kind, tiny_config, tiny_inputs)
            made[kind] = fresh, fresh.run()
        return made[kind]

    return case


@pytest.fixture(scope="module")
def with_adapter(request, cases):
    """The same for all tests of a method; afterwards the model must be as it was."""
    kind, method = request.param
    case, base = cases(kind)
    add(case.model, "a", METHODS[method])
    case.works_without(base)
    case.model.active_adapters = "a"
    active = case.run()
    case.model.active_adapters = None
    yield Adapted(case, method, base, active)
    case.model.delete_adapter("a")
    assert not [v for v in case.model.weights if is_of_adapter(v)]
    case.works_without(base)


@pytest.fixture
def adapted(with_adapter):
    model = with_adapter.case.model
    yield with_adapter
    model.active_adapters = None
    for name in set(model.adapters.state.configs) - {"a"}:
        model.delete_adapter(name)


def table(methods=tuple(METHODS), kinds=("CLIPModel",)):
    rows = [pytest.param((kind, method), id=f"{kind}-{method}") for kind in kinds for method in methods]
    return pytest.mark.parametrize("with_adapter", rows, indirect=True)


def close(ours, theirs, atol=2e-5):
    np.testing.assert_allclose(ours, theirs, atol=atol, rtol=2e-5)


def it_works_when_active_and_only_then(adapted):
    case, _, base, active = adapted
    assert np.abs(active - base).max() > 1e-2
    with AdapterSetup(case.model, "a"):
        np.testing.assert_array_equal(case.run(), active)
    case.works_without(base)


@table()
def test_it_works_when_active_and_only_then(adapted):
    it_works_when_active_and_only_then(adapted)


@pytest.mark.slow
@table(IN_OTHERS, KINDS[1:])
def test_it_works_in_every_kind_of_model(adapted):
    it_works_when_active_and_only_then(adapted)


@table()
def test_its_weights_are_there_and_can_be_trained(adapted):
    model, method = adapted.case.model, adapted.method
    own = parameters(model, "a")
    assert own
    assert {id(v) for v in own} <= {id(v) for v in model.weights}
    frozen = {v.path.split("/a/")[-1] for v in own if not v.trainable}
    expected = {"lora_A", "lora_B"} if method in ("vera", "dvora") else set()
    expected |= {"source_1/kernel", "source_1/bias", "projection_1"} if method == "noreft" else set()
    assert frozen == expected
    row = model.adapter_summary(as_dict=True)[0]
    assert row["parameters"] == sum(int(np.prod(v.shape)) for v in own)
    assert row["name"] == "a" and row["trained"] and not row["active"]
    assert json.loads(json.dumps(model.get_config()["adapters"]))["configs"]["a"]


@table(FAMILIES)
def test_layers_are_left_out(adapted):
    model, method = adapted.case.model, adapted.method
    add(model, "b", as_config(METHODS[method]).replace(leave_out=(0, 3)), set_active=True)  # one of each tower
    layers = set(model.adapters.get_adapter("b")) - {-1}
    assert layers == (set() if method == "prompt_tuning" else {1, 2, 4})
    assert np.abs(adapted.case.run() - adapted.base).max() > 1e-3


@table([*FAMILIES, "seq_bn_inv"])
def test_skipped_layers_are_as_without_it(adapted):
    case, method, base, active = adapted
    case.model.set_active_adapters("a", skip_layers=range(5))
    if method == "prompt_tuning":  # it acts in front of the layers alone
        case.works_without(active)
    elif method == "seq_bn_inv":  # a part of it does
        assert np.abs(case.run() - base).max() > 1e-3
        assert np.abs(case.run() - active).max() > 1e-3
    else:
        case.works_without(base)


@table(FAMILIES)
def test_the_mean_is_the_mean_by_hand(adapted):
    model = adapted.case.model
    for seed, name in ((2, "b"), (3, "c")):
        add(model, name, METHODS[adapted.method], seed)
    weights = (-0.2, 0.9, 0.3)
    model.adapters.average_adapter("mean", ["a", "b", "c"], weights)
    for mean, *own in zip(*(parameters(model, name) for name in ("mean", "a", "b", "c")), strict=True):
        by_hand = sum(w * array(v.value, "float64") for w, v in zip(weights, own, strict=True))
        close(array(mean.value), by_hand, 1e-6)


@table()
def test_files_hold_all_of_it(adapted, tmp_path):
    model = adapted.case.model
    model.save_adapter(tmp_path, "a")
    assert model.load_adapter(tmp_path, load_as="b", set_active=True) == "b"
    assert model.adapters.state.configs["a"] == model.adapters.state.configs["b"]
    close(adapted.case.run(), adapted.active)


def it_does_the_same_merged_and_can_be_taken_out(adapted):
    case, _, base, active = adapted
    case.model.active_adapters = "a"
    case.model.merge_adapter("a")
    assert case.model.active_adapters is None
    close(case.run(), active)
    case.model.reset_adapter()
    case.works_without(base)
    case.model.merge_adapter("a")
    case.model.active_adapters = "a"
    np.testing.assert_array_equal(case.run(), active)


@table(MERGEABLE)
def test_merged_it_does_the_same_and_can_be_taken_out(adapted):
    it_does_the_same_merged_and_can_be_taken_out(adapted)


@table(["lora"], ["CLIPVisionModel"])
def test_it_is_merged_into_a_tower_alone(adapted):
    it_does_the_same_merged_and_can_be_taken_out(adapted)


@table([method for method in FAMILIES if method not in MERGEABLE])
def test_what_cannot_be_merged_says_so(adapted):
    with pytest.raises(ValueError, match="`name` must be of an adapter of dense layers alone"):
        adapted.case.model.merge_adapter("a")
    adapted.case.works_without(adapted.base)


@table()
def test_a_seed_makes_the_same_weights(adapted):
    model = adapted.case.model
    config = as_config(METHODS[adapted.method]).replace(init_weights_seed=7)
    for name in ("b", "c"):
        model.add_adapter(name, config)
    for one, other in zip(parameters(model, "b"), parameters(model, "c"), strict=True):
        np.testing.assert_array_equal(array(one.value), array(other.value))


@pytest.mark.slow
@table([*FAMILIES, "noreft", "dvora"])
def test_training_changes_it_and_nothing_else(adapted):
    model = adapted.case.model
    model.add_adapter("other", "lora")
    add(model, "b", METHODS[adapted.method])
    model.train_adapter("b")
    own = {id(v) for v in parameters(model, "b")}
    before = {id(v): value(v) for v in model.weights}
    assert {id(v) for v in model.trainable_variables} <= own
    model.compile(keras.optimizers.SGD(0.1), run_eagerly=True)
    pairs = {name: array[:2] for name, array in adapted.case.inputs.items()}
    model.fit(pairs, batch_size=2, verbose=0)
    changed = {v.path for v in model.weights if np.abs(value(v) - before[id(v)]).max() > 0}
    changed = {path for path in changed if "seed_generator" not in path}
    trained = {v.path for v in model.trainable_variables}
    model.train_adapter("a")  # as it was before
    model.adapters.freeze_model(False)
    assert trained - never_reached(trained) <= changed <= trained


def never_reached(paths):
    """Returns what nobody reads: what the last blocks make of tokens that are not pooled."""
    last = ("text_encoder/layers_1/block_adapters", "image_encoder/layers_2/block_adapters")
    return {path for path in paths if path.startswith(last)}


def test_deleting_forgets(cases):
    case, base = cases("CLIPModel")
    add(case.model, "a", "lora", set_active=True)
    assert np.abs(case.run() - base).max() > 1e-3
    case.model.delete_adapter("a")
    assert case.model.active_adapters is None
    case.works_without(base)
    with pytest.raises(ValueError, match="`name` must be of an adapter"):
        case.model.adapters.get_adapter("a")
