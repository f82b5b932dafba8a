"""The package as a whole: import cost, other backends, the wheel."""

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

import tf_clip
from helpers import ROOT, environment


def python(code, **environment):
    return subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        cwd=ROOT,
        env={**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3", **environment},
        timeout=300,
    )


@pytest.mark.process
def test_importing_is_cheap_and_loads_no_tensorflow():
    code = (
        "import sys, time; start = time.perf_counter(); import tf_clip; "
        "print(time.perf_counter() - start, 'tensorflow' in sys.modules, 'keras' in sys.modules)"
    )
    best = min((python(code).stdout.split() for _ in range(3)), key=lambda words: float(words[0]))
    assert float(best[0]) < 0.5
    assert best[1:] == ["False", "False"]


def test_every_public_name_exists_and_is_documented():
    for name in tf_clip.__all__:
        assert getattr(tf_clip, name).__doc__, name
    with pytest.raises(AttributeError, match="has no attribute 'CLAP'"):
        _ = tf_clip.CLAP


CORE_ON_JAX = """
import sys
import keras
import numpy as np
from tf_clip import CLIPConfig, CLIPModel

tower = {"hidden_size": 16, "intermediate_size": 20, "num_hidden_layers": 2, "num_attention_heads": 2}
config = CLIPConfig(
    text_config={**tower, "vocab_size": 40, "eos_token_id": 39},
    vision_config={**tower, "image_size": 8, "patch_size": 4},
    projection_dim=8,
)
folder = sys.argv[1]
model = CLIPModel(config)
inputs = dict(np.load(folder + "/inputs.npz"))
model.save_pretrained(folder)
np.save(folder + "/logits.npy", np.asarray(model(**inputs).logits_per_image))
assert keras.backend.backend() == "jax"
assert "tensorflow" not in sys.modules  # what fit loads is Keras's own business
model.compile(keras.optimizers.Adam(3e-3))
losses = model.fit(inputs, epochs=15, verbose=0).history["loss"]
assert losses[-1] < losses[0] / 2, losses
print("done")
"""


@pytest.mark.process
def test_the_core_runs_on_jax_without_tensorflow(tmp_path):
    import numpy as np

    from tf_clip import CLIPModel

    inputs = {
        "input_ids": np.arange(24).reshape(8, 3).astype("int32"),
        "pixel_values": np.random.default_rng(0).normal(size=(8, 8, 8, 3)).astype("float32"),
    }
    np.savez(tmp_path / "inputs.npz", **inputs)
    (tmp_path / "core.py").write_text(CORE_ON_JAX)
    command = [sys.executable, str(tmp_path / "core.py"), str(tmp_path)]
    result = subprocess.run(command, capture_output=True, text=True, env=environment(KERAS_BACKEND="jax"), timeout=300)
    assert result.stdout.strip() == "done", result.stderr
    here = CLIPModel.from_pretrained(tmp_path)(**inputs).logits_per_image
    np.testing.assert_allclose(here, np.load(tmp_path / "logits.npy"), atol=1e-5)


@pytest.mark.process
def test_the_wheel_holds_the_package_and_the_shipped_checkpoint(tmp_path):
    build = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(tmp_path), str(ROOT)]
    result = subprocess.run(build, capture_output=True, text=True, timeout=300)
    assert result.returncode == 0, result.stdout + result.stderr
    (wheel,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(tmp_path / "installed")
        assert not [name for name in archive.namelist() if name.startswith(("tests", "examples", "docs"))]
    assert (tmp_path / "installed" / "tf_clip" / "export" / "kit" / "templates" / "compose.yaml").is_file()
    assert (tmp_path / "installed" / "tf_clip" / "serving" / "page.html").is_file()
    assert (tmp_path / "installed" / "tf_clip" / "cli" / "pages" / "evaluation.html").is_file()
    code = "import tf_clip.checkpoints.hub as hub; print(hub.resolve('pictogram-clip'))"
    found = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(tmp_path / "installed")},
        timeout=120,
    )
    assert found.stdout.strip() == str(tmp_path / "installed" / "tf_clip" / "saved_models" / "pictogram-clip"), (
        found.stderr
    )
    assert Path(found.stdout.strip(), "model.safetensors").stat().st_size > 1_000_000


@pytest.mark.process
def test_a_checkpoint_on_the_disk_is_found_without_the_hubs_library():
    code = (
        "import sys; from tf_clip.checkpoints import hub; print(hub.resolve('pictogram-clip').name, "
        "'huggingface_hub' in sys.modules)"
    )
    assert python(code).stdout.split() == ["pictogram-clip", "False"]
