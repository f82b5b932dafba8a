"""What is computed of texts: beginnings once, nothing behind an end, and sets sorted by length."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from tf_clip.inference.text_plan import cut_texts, groups_of, padded_plan, shared_plan

END = 9


def cut(ids, mask=None):
    """Cuts texts as a tower does that pools at the first end token."""
    return cut_texts(ids, mask, (ids == END).argmax(axis=1))


def texts_of(*rows, length=8):
    ids = np.zeros((len(rows), length), np.int32)
    for index, row in enumerate(rows):
        ids[index, : len(row)] = row
    return ids


def test_texts_are_cut_to_the_longest_and_pooled_at_the_first_end():
    texts = cut(texts_of([1, 9], [1, 2, 9, 9], [1, 9, 9]))
    assert texts.input_ids.shape == (3, 3)
    assert texts.ends.tolist() == [1, 2, 1]
    assert texts.visible is None


def test_a_text_without_an_end_is_pooled_at_its_start():
    assert cut(texts_of([1, 2, 3])).ends.tolist() == [0]


def test_a_mask_that_hides_only_what_follows_the_ends_is_dropped():
    ids = texts_of([1, 9], [1, 2, 9])
    mask = np.arange(8) <= np.array([[1], [2]])
    assert cut(ids, mask).visible is None
    mask[1, 0] = False
    texts = cut(ids, mask)
    assert texts.visible.shape == texts.input_ids.shape == (2, 8)


def test_beginnings_are_computed_once():
    plan = shared_plan(cut(texts_of([1, 2, 3, 9], [1, 2, 4, 9], [1, 2, 3, 9], [5, 2, 9])))
    # 1, 5 | 1 2, 5 2 | 1 2 3, 1 2 4, 5 2 9 | 1 2 3 9, 1 2 4 9
    assert plan.tokens.tolist() == [1, 5, 2, 2, 3, 4, 9, 9, 9]
    assert plan.positions.tolist() == [0, 0, 1, 1, 2, 2, 2, 3, 3]
    assert plan.arrangement[:, :3].tolist() == [[0, 2, 4], [0, 2, 5], [0, 2, 4], [1, 3, 6]]
    assert plan.arrangement[:3, 3].tolist() == [7, 8, 7]


@settings(max_examples=60, deadline=None)
@given(st.lists(st.lists(st.integers(1, 3), max_size=6), min_size=1, max_size=9))
def test_each_place_up_to_the_end_has_the_row_of_its_beginning(rows):
    texts = cut(texts_of(*([*row, END] for row in rows)))
    plan = shared_plan(texts)
    beginnings = {tuple([*row, END][: position + 1]) for row in rows for position in range(len(row) + 1)}
    assert len(plan.tokens) == len(beginnings)
    of_row = {}
    for text, row in enumerate(rows):
        for position in range(len(row) + 1):
            index = plan.arrangement[text, position]
            assert of_row.setdefault(index, tuple([*row, END][: position + 1])) == tuple([*row, END][: position + 1])
            assert plan.tokens[index] == [*row, END][position]
            assert plan.positions[index] == position
    length = texts.input_ids.shape[1]
    for index, place in enumerate(plan.sources):
        assert plan.arrangement[place // length, place % length] == index


def test_hidden_places_are_not_shared():
    texts = cut(texts_of([1, 2, 9], [1, 2, 9]), np.array([[0] + [1] * 7] * 2))
    assert len(shared_plan(texts).tokens) == 16


def test_a_padded_plan_has_the_size_asked_for():
    plan = padded_plan(cut(texts_of([1, 9], [1, 2, 9])), 4, 5)
    assert plan.arrangement.shape == (4, 5)
    assert plan.ends.tolist() == [1, 2, 1, 1]
    assert plan.tokens.reshape(4, 5)[2].tolist() == plan.tokens.reshape(4, 5)[0].tolist()


def test_large_sets_are_sorted_by_length_and_all_rows_come_once():
    generator = np.random.default_rng(0)
    lengths = generator.integers(1, 60, 500)
    ids = np.where(np.arange(64) == lengths[:, None], END, generator.integers(1, 5, (500, 64)))
    texts = cut(ids)
    groups = list(groups_of(texts, 128))
    assert sorted(np.concatenate(groups)) == list(range(500))
    longest = [texts.ends[group].max() for group in groups]
    assert longest == sorted(longest)
    for group in groups:
        assert len(group) <= 128
        assert len(group) * (texts.ends[group].max() + 1) <= 4096 or len(group) == 1
        assert texts.take(group).input_ids.shape == (len(group), texts.ends[group].max() + 1)
