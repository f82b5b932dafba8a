"""Pairs that are kept back from training."""

import json

import numpy as np
import pytest
from PIL import Image

from tf_clip.data.augmentation import Augmentation
from tf_clip.data.pairs import ListedPairs
from tf_clip.data.skipped import SkippedExample
from tf_clip.data.training_data import TrainingData
from tf_clip.training.validation import images_and_captions, split_pairs


@pytest.fixture
def pairs(tmp_path):
    """12 rows of 6 images, two rows each; of the last there is no file."""
    paths = []
    for index in range(6):
        path = tmp_path / f"{index}.bin"
        if index < 5:
            path.write_bytes(bytes([index]))
        paths.append(str(path))
    captions = [[f"{row}", "both"] for row in range(12)]
    return ListedPairs(paths * 2, captions, skipped=[SkippedExample("line 20", "empty")])


@pytest.mark.parametrize("keep_groups", [True, False])
def test_sides_are_disjoint_and_whole(pairs, keep_groups):
    training, validation = split_pairs(pairs, 1 / 3, keep_groups=keep_groups)
    assert (len(training), len(validation)) == (8, 4)
    sides = [[side.where(row) for row in range(len(side))] for side in (training, validation)]
    assert sorted(sides[0] + sides[1]) == sorted(pairs.where(row) for row in range(12))
    assert bool(set(sides[0]) & set(sides[1])) == (not keep_groups)
    assert [len(side.skipped) for side in (training, validation)] == [1, 0]
    again = split_pairs(pairs, 1 / 3, keep_groups=keep_groups)[1]
    assert [again.where(row) for row in range(4)] == sides[1]
    others = [split_pairs(pairs, 1 / 3, seed=seed, keep_groups=keep_groups)[1] for seed in range(1, 5)]
    assert any([other.where(row) for row in range(4)] != sides[1] for other in others)


def test_a_side_is_pairs(pairs):
    training, _ = split_pairs(pairs, 1 / 3)
    order = training.shuffled(np.random.default_rng(0))
    assert sorted(order) == list(range(8))
    assert len(np.unique(training.groups)) == 4
    readable = [row for row in range(8) if not training.where(row).endswith("5.bin")]
    for row in readable:
        assert f"{training.read(row).image[0]}.bin" in training.where(row)


def test_data_says_what_its_batches_depend_on(tmp_path, tiny_processor):
    paths = []
    for index in range(4):
        Image.fromarray(np.full((20, 20, 3), index, np.uint8)).save(tmp_path / f"{index}.png")
        paths.append(str(tmp_path / f"{index}.png"))
    pairs = ListedPairs(paths, [["x"]] * 4)

    def settings(**changes):
        return json.dumps(TrainingData(pairs, tiny_processor, **{"batch_size": 2, **changes}).settings)

    assert settings() == settings()
    for changes in ({"batch_size": 1}, {"seed": 1}, {"augment": Augmentation()}, {"shuffle": False}, {"max_length": 9}):
        assert settings(**changes) != settings()


@pytest.mark.parametrize(("share", "message"), [(0.0, "`share` must be above 0"), (0.99, "of which 6 would be")])
def test_shares_that_leave_a_side_empty_are_refused(pairs, share, message):
    with pytest.raises(ValueError, match=message):
        split_pairs(pairs, share)


def test_images_come_once_with_all_their_captions(pairs):
    images, captions, skipped = images_and_captions(pairs)
    assert list(images) == [bytes([index]) for index in range(5)]
    assert images[1:3] == [b"\1", b"\2"]
    assert captions == [[f"{index}", "both", f"{index + 6}"] for index in range(5)]
    assert [row.reason for row in skipped] == ["empty"] + ["the image's file does not exist"] * 2
    assert images.where(3).endswith("3.bin")


def test_nothing_to_read_is_an_error(tmp_path):
    with pytest.raises(ValueError, match="must hold a readable pair"):
        images_and_captions(ListedPairs([str(tmp_path / "no.png")], [["x"]]))
