"""What TensorFlow computes with: `set_inference_threads` before anything else, parts for cores, and oneDNN."""

import platform
import subprocess
import sys

import pytest
import tensorflow as tf

from helpers import environment
from tf_clip import set_inference_threads
from tf_clip.inference import hardware

THREADS = """
from tf_clip.inference import hardware
hardware.usable_cores = lambda: {cores}
hardware.set_inference_threads()
import tensorflow as tf
print(tf.config.threading.get_intra_op_parallelism_threads(), tf.config.threading.get_inter_op_parallelism_threads())
"""
ONEDNN = "from tf_clip.inference.hardware import multiplies_with_onednn as found; print(int(found()))"


def printed(program, **switches):
    command, variables = [sys.executable, "-c", program], environment(**switches)
    return subprocess.run(command, env=variables, capture_output=True, text=True, check=True).stdout.strip()


@pytest.mark.process
@pytest.mark.parametrize(("cores", "expected"), [(2, "1 2"), (5, "0 0")])
def test_each_operation_gets_one_core_where_there_are_enough_operations(cores, expected):
    assert printed(THREADS.format(cores=cores)) == expected


@pytest.mark.process
@pytest.mark.skipif(platform.machine() not in ("x86_64", "AMD64"), reason="oneDNN can only be switched on for x86")
@pytest.mark.parametrize("switch", ["0", "1"])
def test_onednn_is_seen_in_what_tensorflow_runs(switch):
    assert printed(ONEDNN, TF_ENABLE_ONEDNN_OPTS=switch) == switch


def test_later_is_too_late(monkeypatch):
    monkeypatch.setattr(hardware, "usable_cores", lambda: 3)
    tf.constant(1.0) + 1.0
    with pytest.raises(RuntimeError, match="must be called before TensorFlow computes anything"):
        set_inference_threads()


def test_blocks_have_a_part_for_each_core(monkeypatch):
    for cores, parts in ((1, 1), (3, 3), (64, hardware.MOST_PARTS)):
        monkeypatch.setattr(hardware, "usable_cores", lambda cores=cores: cores)
        assert hardware.parts() == parts
