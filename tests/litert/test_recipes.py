"""Every recipe: what it saves, and how near to the model it stays, on images that training never saw."""

import dataclasses

import numpy as np
import pytest

import tf_clip
from helpers.lite_files import held_out, noise, unit
from tf_clip import CLIPConfig, CLIPFeatureExtractorTF, CLIPModel, CLIPProcessor
from tf_clip.export import LiteRTModel
from tf_clip.export.tflite.file import operations_of

pytestmark = pytest.mark.slow

TEXTS = ["an owl", "a red bus", "the moon over a castle", "é"]


@pytest.mark.parametrize("quantization", ["float16", "dynamic_int8", "int4", "int8"])
def test_the_small_model_by_every_recipe(quantization, small, tmp_path):
    model, processor = small
    images = [noise(20, 20, seed) for seed in range(4)]
    calibration = {"calibration_images": [noise(30, 25, 9)] * 2, "calibration_texts": ["a", *TEXTS]}
    options = {"parts": ["image", "text_from_utf8"], "text_lengths": [8], **calibration}
    tf_clip.export.litert(model, processor, tmp_path, quantization=quantization, **options)
    runtime = LiteRTModel(tmp_path)
    embeds = unit(model.get_image_features(processor(images=images)["pixel_values"]))
    texts = unit(model.get_text_features(**processor(text=TEXTS, max_length=16)))
    floor = {"float16": 0.99999, "dynamic_int8": 0.99}.get(quantization, 0.9)
    assert np.sum(unit(runtime.encode_images(images)) * embeds, axis=1).min() > floor
    assert np.sum(unit(runtime.encode_texts(TEXTS)) * texts, axis=1).min() > floor
    assert runtime.encode_images([noise(9, 31)]).shape == (1, 28)


def table(title, reports):
    print(f"\n{title}\n| recipe | image MB | text MB | of float32 | image cosine, worst | text cosine, worst |", end="")
    print(" agreement | R@1 | image time | text time |\n|" + "---|" * 10)
    whole = sum(reports[0].sizes.values())
    for report in reports:
        sizes = report.sizes
        cells = [report.quantization, f"{sizes['image'] / 1e6:.2f}", f"{sizes['text'] / 1e6:.2f}"]
        cells += [f"{sum(sizes.values()) / whole:.3f}"]
        cells += [f"{mean:.5f}, {worst:.5f}" for mean, worst in (report.image_cosine, report.text_cosine)]
        cells += [f"{report.agreement:.3f}", "" if report.recall is None else f"{report.recall:.3f}"]
        print("|", " | ".join([*cells, f"{report.image_time:.2f}", f"{report.text_time:.2f}"]), "|")


@pytest.mark.real_size
@pytest.mark.parametrize("question", ["unseen_style", "unseen_concepts"])
def test_the_shipped_model_on_its_held_out_images(question, pictogram):
    images, held = held_out(question)
    others, _ = held_out("unseen_concepts" if question == "unseen_style" else "unseen_style")
    chosen = np.random.default_rng(0).permutation(len(images))[:1000]
    reports = tf_clip.export.litert_report(
        *pictogram,
        [images[index] for index in chosen],
        held["names"],
        templates=held["templates"][:1],
        targets=[held["targets"][index] for index in chosen],
        calibration_images=others[:200],
        calibration_texts=[
            template.replace("{}", name) for name in held["names"][:60] for template in held["templates"]
        ],
    )
    table(question, reports)
    by_name = {report.quantization: report for report in reports}
    float32 = by_name["float32"]
    assert min(*float32.image_cosine, *float32.text_cosine) > 0.99999 and float32.agreement > 0.998
    int8 = by_name["dynamic_int8"]
    assert min(int8.image_cosine[0], int8.text_cosine[0]) >= 0.99 and int8.recall >= float32.recall - 0.01
    for report in reports:
        assert min(report.image_cosine[0], report.text_cosine[0]) >= 0.98, dataclasses.asdict(report)


@pytest.mark.real_size
def test_a_random_vit_b_32(real_tokenizer, tmp_path):
    model, processor = CLIPModel(CLIPConfig()), CLIPProcessor(CLIPFeatureExtractorTF(), real_tokenizer)
    sizes = {}
    for quantization in ("float32", "dynamic_int8"):
        files = tf_clip.export.litert(model, processor, tmp_path / quantization, quantization=quantization)
        sizes[quantization] = {part: file.stat().st_size for part, file in files.items()}
        print(f"\n{quantization}", {part: f"{size / 1e6:.2f} MB" for part, size in sizes[quantization].items()})
        for part, file in files.items():
            print(part, *operations_of(file.read_bytes()))
            assert not [name for name in operations_of(file.read_bytes()) if name.startswith("CUSTOM")]
    for part in ("image", "text", "text_from_utf8"):
        assert sizes["dynamic_int8"][part] <= 0.26 * sizes["float32"][part], part
    # 1e-5 is what a float32 file is checked with before it is there; here once more, on other inputs.
    runtime = LiteRTModel(tmp_path / "float32")
    images = [noise(224, 224, seed) for seed in range(2)]
    wanted = unit(model.get_image_features(processor(images=images)["pixel_values"]))
    np.testing.assert_allclose(runtime.encode_images(images), wanted, atol=1e-5)
    wanted = unit(model.get_text_features(**processor(text=TEXTS)))
    np.testing.assert_allclose(runtime.encode_texts(TEXTS), wanted, atol=1e-5)
