"""How long an exported model takes from its files to its first answer, as ratios within this run.

Each time is taken in a process of its own with TensorFlow alone, as a server would: from the folder of a version,
with and without the requests of its serving kit that warm it up.

python benchmarks/cold_load.py
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

import keras

import tf_clip
from tf_clip.export import saved_model, serving_kit

ROUNDS = 3
ONE_PROCESS = """
import json, sys, time
moments = [time.perf_counter()]
def passed():
    moments.append(time.perf_counter())
    return moments[-1] - moments[-2]
import tensorflow as tf
times = {"import": passed()}
model = tf.saved_model.load(sys.argv[1])
times["load"] = passed()
if sys.argv[2] == "warm":
    from tensorflow_serving.apis import prediction_log_pb2
    file = sys.argv[1] + "/assets.extra/tf_serving_warmup_requests"
    for record in tf.data.TFRecordDataset(file):
        request = prediction_log_pb2.PredictionLog.FromString(record.numpy()).predict_log.request
        inputs = {name: tf.constant(tf.make_ndarray(value)) for name, value in request.inputs.items()}
        model.signatures[request.model_spec.signature_name](**inputs)
    times["warm"] = passed()
image = tf.constant([open(sys.argv[3], "rb").read()])
passed()
for name in ("first", "second"):
    model.signatures["encode_image"](image_bytes=image)
    times[name] = passed()
for _ in range(10):
    model.signatures["encode_image"](image_bytes=image)
    times["usual"] = min(times.get("usual", 9e9), passed())
print(json.dumps(times))
"""


def models() -> dict[str, tuple[tf_clip.CLIPModel, tf_clip.CLIPProcessor]]:
    """Returns the shipped model, and one of the size of ViT-B/32 whose weights are of no use."""
    shipped = tf_clip.CLIPModel.from_pretrained("pictogram-clip")
    processor = tf_clip.CLIPProcessor.from_pretrained("pictogram-clip")
    keras.utils.set_random_seed(0)
    # The defaults of the configuration are those of ViT-B/32; the shipped tokenizer's ids are among its own.
    end = {"eos_token_id": processor.tokenizer.eos_token_id, "bos_token_id": processor.tokenizer.bos_token_id}
    large = tf_clip.CLIPModel(tf_clip.CLIPConfig(text_config=end))
    for_large = tf_clip.CLIPProcessor(tf_clip.CLIPFeatureExtractorTF(), processor.tokenizer)
    return {"pictogram-clip": (shipped, processor), "ViT-B/32": (large, for_large)}


def measured(folder: Path, kind: str, image: Path) -> dict[str, float]:
    """Returns the median times of some processes."""
    runs = []
    for _ in range(ROUNDS):
        command = [sys.executable, "-c", ONE_PROCESS, str(folder), kind, str(image)]
        environment = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"}
        output = subprocess.run(command, check=True, capture_output=True, text=True, env=environment).stdout
        runs.append(json.loads(output))
    return {name: statistics.median(run[name] for run in runs) for name in runs[0]}


def main() -> None:
    """Measures and prints."""
    image = Path(__file__).resolve().parents[1] / "examples" / "images" / "owl.png"
    print("| model | loading, in imports of TensorFlow | warm-up, in loadings | first answer cold | after warm-up |")
    print("|---|---|---|---|---|")
    for name, (model, processor) in models().items():
        with tempfile.TemporaryDirectory() as temporary:
            folder = saved_model(model, processor, temporary)
            serving_kit(temporary, seconds=4, max_batch_size=8)
            cold, warm = (measured(folder, kind, image) for kind in ("cold", "warm"))
        print(
            f"| {name} | {cold['load'] / cold['import']:.1f} | {warm['warm'] / warm['load']:.1f} "
            f"| {cold['first'] / cold['usual']:.0f} usual answers | {warm['first'] / warm['usual']:.1f} usual answers |"
        )


if __name__ == "__main__":
    main()
