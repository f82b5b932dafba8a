"""`set_inference_threads`: before TensorFlow computes anything, and not afterwards."""

import subprocess
import sys

import pytest
import tensorflow as tf

from tf_clip import set_inference_threads
from tf_clip.inference import threads

IN_A_NEW_PROCESS = """
from tf_clip.inference import threads
threads.usable_cores = lambda: {cores}
threads.set_inference_threads()
import tensorflow as tf
print(tf.config.threading.get_intra_op_parallelism_threads(), tf.config.threading.get_inter_op_parallelism_threads())
"""


@pytest.mark.process
@pytest.mark.parametrize(("cores", "expected"), [(2, "1 2"), (4, "1 4"), (5, "0 0")])
def test_each_operation_gets_a_core_where_there_are_enough_operations(cores, expected):
    command = [sys.executable, "-c", IN_A_NEW_PROCESS.format(cores=cores)]
    found = subprocess.run(command, capture_output=True, text=True, check=True)
    assert found.stdout.split() == expected.split()


def test_later_is_too_late(monkeypatch):
    monkeypatch.setattr(threads, "usable_cores", lambda: 3)
    tf.constant(1.0) + 1.0
    with pytest.raises(RuntimeError, match="must be called before TensorFlow computes anything"):
        set_inference_threads()


def test_blocks_have_a_part_for_each_core(monkeypatch):
    for cores, parts in ((1, 1), (3, 3), (64, threads.MOST_PARTS)):
        monkeypatch.setattr(threads, "usable_cores", lambda cores=cores: cores)
        assert threads.parts() == parts
