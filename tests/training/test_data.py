"""`TrainingData`: what is in a batch, that it is the same again, and what unreadable examples do."""

import subprocess
import sys
import threading

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from helpers import environment
from helpers.pair_files import faults, image, write_csv, write_images, write_tar
from tf_clip import (
    Augmentation,
    CLIPFeatureExtractorTF,
    CLIPProcessor,
    CLIPTokenizer,
    ListedPairs,
    TrainingData,
    read_pairs,
)
from tf_clip.data.skipped import ExampleError, SkippedExample, SkippedExamples, TooManySkipped, listed
from tf_clip.data.tar_shards import TarPairs

AUGMENT = Augmentation(
    scale=(0.5, 1.0), flip_prob=0.5, color_jitter=(0.4, 0.4, 0.4, 0.1), color_jitter_prob=0.8, gray_scale_prob=0.2
)


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    """50 rows: every tenth has a broken image, line 12 has none, and all of the rest have two captions."""
    folder = tmp_path_factory.mktemp("table")
    write_images(folder, 50)
    for index in range(3, 50, 10):
        path = folder / f"{index}.png"
        path.write_bytes(path.read_bytes()[:500])
    (folder / "10.png").unlink()
    rows = [(f"{index}.png", f"{index} of", f"nr {index}") for index in range(50)]
    return write_csv(folder / "pairs.csv", rows, ("image", "caption", "caption"))


def training_data(table, processor, **changes):
    options = {"batch_size": 8, "augment": AUGMENT, "max_skipped_share": 0.2, "seed": 5, **changes}
    return TrainingData(read_pairs(table), processor, **options)


def batches(dataset):
    return list(dataset.as_numpy_iterator())


def rows_of(batch, processor):
    """Returns which row each text of a batch is of: the number in its caption."""
    texts = processor.tokenizer.batch_decode(batch["input_ids"], skip_special_tokens=True)
    return [int("".join(filter(str.isdigit, text))) for text in texts]


def assert_equal(found, expected):
    assert len(found) == len(expected)
    for one, other in zip(found, expected, strict=True):
        assert one.keys() == other.keys()
        for name in one:
            np.testing.assert_array_equal(one[name], other[name])


@pytest.mark.slow
def test_without_augmentation_images_are_the_processors(tmp_path, tiny_processor):
    """Orientation tags are honored, as the processor does for paths."""
    exif = Image.Exif()
    exif[0x0112] = 6
    kinds = [
        ("PNG", {}),
        ("JPEG", {"exif": exif}),
        ("WebP", {"lossless": True}),
        ("GIF", {}),
        ("JPEG", {"quality": 50}),
    ]
    paths = []
    for index, (kind, options) in enumerate(kinds):
        paths.append(tmp_path / f"{index}.{kind.lower()}")
        paths[-1].write_bytes(image(index, (30 + index, 47), kind, **options))
    captions = ["one", "two words", "three", "four", "five"]
    table = write_csv(tmp_path / "pairs.csv", [(path.name, text) for path, text in zip(paths, captions, strict=True)])
    data = TrainingData(read_pairs(table), tiny_processor, batch_size=5, shuffle=False)
    (batch,) = batches(data.dataset())
    expected = tiny_processor(text=captions, images=paths, return_tensors="np")
    assert batch.keys() == expected.keys()
    for name, values in expected.items():
        np.testing.assert_allclose(batch[name], values, rtol=0, atol=1e-6)
        assert batch[name].dtype == values.dtype


@pytest.mark.slow
def test_each_epoch_has_every_row_once_in_another_order(table, tiny_processor):
    data = training_data(table, tiny_processor, drop_remainder=False, batch_size=10)
    epochs = [batches(data.dataset(epoch)) for epoch in (0, 1)]
    orders = [[row for batch in epoch for row in rows_of(batch, tiny_processor)] for epoch in epochs]
    good = set(range(50)) - {10, *range(3, 50, 10)}
    assert set(orders[0]) == set(orders[1]) == good
    assert orders[0] != orders[1]
    again = training_data(table, tiny_processor, drop_remainder=False, batch_size=10)
    assert_equal(batches(again.dataset(1)), epochs[1])
    assert rows_of(batches(training_data(table, tiny_processor, seed=6).dataset())[0], tiny_processor) != orders[0][:8]


@pytest.mark.slow
@pytest.mark.parametrize("drop_remainder", [True, False])
def test_a_run_goes_on_with_the_very_batches_it_would_have_got(table, tiny_processor, drop_remainder):
    """Shuffled, augmented, with two captions an image, unreadable examples among them: bit for bit, in a new object."""
    whole = batches(training_data(table, tiny_processor, drop_remainder=drop_remainder).dataset(epoch=2))
    steps = 6 if drop_remainder else 7
    assert [len(batch["input_ids"]) for batch in whole] == [8] * 6 + [2] * (steps - 6)
    for start in (1, 4, steps - 1, steps):
        data = training_data(table, tiny_processor, drop_remainder=drop_remainder)
        assert data.steps_per_epoch == steps
        assert_equal(batches(data.dataset(epoch=2, start=start)), whole[start:])


def test_nothing_before_the_start_is_read(table, tiny_processor):
    pairs = read_pairs(table)
    read, lock = set(), threading.Lock()

    class Watched(ListedPairs):
        def read(self, row):
            with lock:
                read.add(row)
            return pairs.read(row)

    watched = Watched([str(row) for row in range(50)], [["x"]] * 50)
    data = TrainingData(watched, tiny_processor, batch_size=8, shuffle=False, max_skipped_share=0.2)
    assert len(batches(data.dataset(start=3))) == 3
    # 41 stands in for the unreadable 33; for 43, round the end, 11 does, as 3 is unreadable, too.
    assert read == {*range(24, 48), 3, 11}


def test_an_unreadable_example_does_not_move_the_others_and_no_row_is_twice_in_a_batch(table, tiny_processor):
    data = training_data(table, tiny_processor, shuffle=False, batch_size=7, drop_remainder=False)
    for start, batch in enumerate(batches(data.dataset())):
        rows = rows_of(batch, tiny_processor)
        assert len(set(rows)) == len(rows)
        for place, row in enumerate(rows):
            slot = 7 * start + place
            if slot in (3, 10, 13, 23, 33, 43):
                assert row == next(
                    other
                    for other in [*range(slot + 7, 50, 7), *range(place, slot, 7)]
                    if other not in (3, 10, 13, 23, 33, 43)
                )
            else:
                assert row == slot


def test_a_table_as_small_as_a_batch_is_filled_up(tmp_path, tiny_processor):
    write_images(tmp_path, 3)
    (tmp_path / "1.png").write_bytes(b"")
    table = write_csv(tmp_path / "pairs.csv", [(f"{index}.png", f"nr {index}") for index in range(3)])
    data = training_data(table, tiny_processor, batch_size=3, shuffle=False, max_skipped_share=0.5)
    assert rows_of(batches(data.dataset())[0], tiny_processor) == [0, 2, 2]


BROKEN = {
    4: ("missing.png", "a missing file"),
    30: ("truncated.jpg", "a truncated image"),
    50: ("50.png", ""),
    70: ("70.png", "wrong encoding: caf\udce9"),
    90: ("90.png", "too many columns", "x"),
}


@pytest.mark.slow
def test_a_table_with_broken_rows_trains_and_lists_them_all(tmp_path, tiny_processor, tiny_model):
    write_images(tmp_path, 100)
    (tmp_path / "truncated.jpg").write_bytes(image(0, file_format="JPEG")[:-200])
    lines = [",".join(BROKEN.get(index, (f"{index}.png", f"number {index}"))) for index in range(100)]
    table = tmp_path / "pairs.csv"
    table.write_bytes("\n".join(["image,caption", *lines]).encode("utf-8", "surrogateescape"))
    data = TrainingData(read_pairs(table), tiny_processor, batch_size=16, drop_remainder=False, max_skipped_share=0.05)
    tiny_model.compile("adam")
    history = tiny_model.fit(data.dataset(), epochs=1, verbose=0)
    assert np.isfinite(history.history["loss"][0])
    assert faults(data.skipped) == [
        ("pairs.csv:52", "the caption is empty"),
        ("pairs.csv:72", "the caption is not valid UTF-8"),
        ("pairs.csv:92", "3 columns where the first line has 2"),
        ("pairs.csv:6", "the image's file does not exist"),
        ("pairs.csv:32", data.skipped[-1].reason),
    ]
    assert data.skipped[-1].reason.startswith("the image cannot be decoded: ")
    batches(data.dataset(1))
    assert len(data.skipped) == 5, "each is listed once"

    strict = TrainingData(
        read_pairs(table), tiny_processor, batch_size=16, drop_remainder=False, max_skipped_share=0.04
    )
    with pytest.raises(TooManySkipped, match="pairs.csv:52: the caption is empty\n") as stopped, strict.raising():
        tiny_model.fit(strict.dataset(), verbose=0)
    assert {row.where for row in stopped.value.skipped} == {row.where for row in data.skipped}
    with pytest.raises(TooManySkipped, match="at least 3 unreadable of 100 examples"):
        TrainingData(read_pairs(table), tiny_processor, batch_size=16, max_skipped_share=0.02)


def test_errors_that_are_not_about_rows_stay_what_they_are(table, tiny_processor):
    data = training_data(table, tiny_processor)
    with pytest.raises(tf.errors.NotFoundError), data.raising():
        tf.io.read_file("nowhere")


def test_a_source_without_a_usable_row_stops_the_run(tmp_path, tiny_processor):
    table = write_csv(tmp_path / "pairs.csv", [(f"{index}.png", "x") for index in range(4)])
    data = training_data(table, tiny_processor, batch_size=2, max_skipped_share=1.0)
    with pytest.raises(TooManySkipped) as stopped, data.raising():
        batches(data.dataset())
    assert len(stopped.value.skipped) == 4


def test_the_list_of_skipped_examples_is_cut_in_messages_only():
    rows = [SkippedExample(f"file:{number}", "bad") for number in range(30)]
    error = TooManySkipped(rows, 100, 0.1)
    assert error.skipped == rows and str(error).count("file:") == 20 and "and 10 more" in str(error)
    assert listed(rows[:2]) == "  file:0: bad\n  file:1: bad"
    counted = SkippedExamples(rows[:1], 10, 0.3)
    for number in (7, 5, 7):
        counted.add(number, SkippedExample(f"row {number}", "bad"))
    assert [row.where for row in counted.to_list()] == ["file:0", "row 5", "row 7"]
    with pytest.raises(TooManySkipped):
        counted.add(6, SkippedExample("row 6", "bad"))


def test_one_of_several_captions_is_drawn(table, tiny_processor):
    data = training_data(table, tiny_processor, shuffle=False, batch_size=50)
    seen = set()
    for epoch in range(4):
        (batch,) = batches(data.dataset(epoch))
        seen.update(tiny_processor.tokenizer.batch_decode(batch["input_ids"][:3], skip_special_tokens=True))
    assert len(seen) == 6


def test_pairs_that_belong_together_share_a_number(tmp_path, tiny_processor):
    write_images(tmp_path, 3)
    rows = [("0.png", "one"), ("1.png", "two"), ("0.png", "three"), ("2.png", "four")]
    table = write_csv(tmp_path / "pairs.csv", rows)
    (batch,) = batches(TrainingData(read_pairs(table), tiny_processor, batch_size=4, shuffle=False).dataset())
    assert batch["pair_ids"].tolist() == [0, 1, 0, 2] and batch["pair_ids"].dtype == np.int32


def test_shards_make_the_same_batches_as_tables(table, tiny_processor, tmp_path):
    members = []
    for index in range(50):
        path = table.parent / f"{index}.png"
        members.append((path.name, path.read_bytes() if path.exists() else b""))
        members += [(f"{index}.0.txt", f"{index} of"), (f"{index}.1.txt", f"nr {index}")]
    shards = read_pairs(write_tar(tmp_path / "a.tar", members))
    assert isinstance(shards, TarPairs)
    data = TrainingData(shards, tiny_processor, batch_size=8, augment=AUGMENT, max_skipped_share=0.2, seed=5)
    assert_equal(batches(data.dataset()), batches(training_data(table, tiny_processor).dataset()))
    assert data.skipped[0].where.endswith("a.tar: 3")


def test_texts_are_cut_and_padded(table, tiny_processor):
    data = training_data(table, tiny_processor, max_length=5, padding="max_length", batch_size=50)
    assert data.dataset().element_spec["input_ids"].shape == batches(data.dataset())[0]["input_ids"].shape == (50, 5)
    longest = training_data(table, tiny_processor, batch_size=50)
    assert batches(longest.dataset())[0]["input_ids"].shape[1] < 16


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"batch_size": 0}, "`batch_size` must be from 1 to the number of pairs, 50"),
        ({"batch_size": 51}, "`batch_size` must be from 1"),
        ({"seed": -1}, "`seed` must be"),
        ({"max_skipped_share": 1.5}, "`max_skipped_share` must be from 0 to 1"),
        ({"padding": "do_not_pad"}, "`padding` must be"),
    ],
)
def test_arguments_out_of_range_are_refused(table, tiny_processor, changes, message):
    with pytest.raises(ValueError, match=message):
        training_data(table, tiny_processor, **changes)


def test_batches_that_there_are_not_are_refused(table, tiny_processor):
    data = training_data(table, tiny_processor)
    for epoch, start in ((-1, 0), (0, -1), (0, 7)):
        with pytest.raises(ValueError, match="`start` must be a batch of an epoch, from 0 to 6"):
            data.dataset(epoch, start)
    assert batches(data.dataset(0, 6)) == []


def test_a_processor_must_make_images_of_one_size(table, tiny_processor):
    for options in ({"do_center_crop": False}, {"do_resize": False}):
        processor = CLIPProcessor(CLIPFeatureExtractorTF(size=20, crop_size=20, **options), tiny_processor.tokenizer)
        with pytest.raises(ValueError, match="`processor` must bring all images to one size"):
            training_data(table, processor)
    squeezing = CLIPFeatureExtractorTF(size={"height": 10, "width": 12}, do_center_crop=False)
    data = training_data(table, CLIPProcessor(squeezing, tiny_processor.tokenizer))
    assert batches(data.dataset(0, 5))[0]["pixel_values"].shape == (8, 10, 12, 3)


def test_a_tokenizer_that_is_python_will_do(table, tiny_processor):
    vocabulary = tiny_processor.tokenizer.vocabulary
    cleaning = CLIPTokenizer(vocabulary.symbols, vocabulary.merges, model_max_length=16, clean="openai")
    processor = CLIPProcessor(tiny_processor.image_processor, cleaning)
    (batch,) = batches(training_data(table, processor).dataset(0, 5))
    assert rows_of(batch, tiny_processor) == rows_of(
        batches(training_data(table, tiny_processor).dataset(0, 5))[0], tiny_processor
    )
    escaped = ListedPairs([table.parent / "0.png"], ["ant &amp;amp; bee"])
    (batch,) = batches(TrainingData(escaped, processor, batch_size=1).dataset())
    np.testing.assert_array_equal(batch["input_ids"], tiny_processor(text=["ant & bee"])["input_ids"])


def test_lists_in_memory_will_do(tmp_path, tiny_processor):
    write_images(tmp_path, 2)
    pairs = ListedPairs([tmp_path / "0.png", str(tmp_path / "1.png")], ["one", ["two"]])
    assert pairs.groups is None and pairs.where(1).endswith("1.png")
    (batch,) = batches(TrainingData(pairs, tiny_processor, batch_size=2, shuffle=False).dataset())
    np.testing.assert_array_equal(batch["input_ids"], tiny_processor(text=["one", "two"])["input_ids"])
    with pytest.raises(ValueError, match="`captions` must hold the captions of each of `images`"):
        ListedPairs(["a"], [])


@pytest.mark.parametrize(
    ("captions", "reason"), [([], "the caption is empty"), (["", None], "the caption is empty"), ([7], "is not text")]
)
def test_an_image_without_a_caption_is_skipped(tmp_path, tiny_processor, captions, reason):
    write_images(tmp_path, 2)
    pairs = ListedPairs([tmp_path / "0.png", tmp_path / "1.png"], [captions, "two"])
    data = TrainingData(pairs, tiny_processor, batch_size=1, max_skipped_share=0.5)
    assert len(batches(data.dataset())) == 2
    ((where, why),) = data.skipped
    assert where.endswith("0.png") and reason in why


@pytest.mark.parametrize("path", ["folder", "a\0b", "http://example.org/a.png"])
def test_what_is_no_file_is_skipped(tmp_path, path):
    (tmp_path / "folder").mkdir()
    pairs = ListedPairs([path if "://" in path else str(tmp_path / path)], [["x"]])
    with pytest.raises(ExampleError, match="the image's file cannot be read"):
        pairs.read(0)


def test_an_image_file_of_gigabytes_is_skipped(tmp_path):
    with (tmp_path / "large.png").open("wb") as file:
        file.truncate(5_000_000_000)
    with pytest.raises(ExampleError, match="more than 268435456"):
        ListedPairs([str(tmp_path / "large.png")], [["x"]]).read(0)


@pytest.mark.process
@pytest.mark.parametrize(("ending", "status"), [("stop", 0), ("raise", 1)])
def test_a_program_that_ends_in_the_middle_of_its_data_ends(ending, status, table, small_checkpoint):
    """It once hung after its last line, `tf-clip train` after Ctrl-C."""
    command = [sys.executable, "-m", "helpers.end_in_the_midst", small_checkpoint, table, ending]
    result = subprocess.run(command, env=environment(), capture_output=True, text=True, timeout=120)
    assert result.returncode == status, result.stderr
    assert ("ArithmeticError: in the midst" in result.stderr) == (ending == "raise")
