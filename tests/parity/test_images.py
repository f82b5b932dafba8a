"""The same pixels as transformers makes with Pillow: of generated images, photographs and files of all formats."""

from __future__ import annotations

import importlib.metadata
import io
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image, ImageDraw

from tf_clip import CLIPFeatureExtractorTF

from .conftest import Process
from .measuring import largest, report

BYTES_ONLY = {"do_rescale": False, "do_normalize": False}
COUNT = 2000
SUBSET = 20  # of each set of options, whose pixel_values are compared as well

# Each is traced once.
OPTIONS: dict[str, dict[str, Any]] = {
    "CLIP's own": {},
    "336 pixels": {"size": 336, "crop_size": 336},
    "Lanczos, a wide crop": {"size": 64, "crop_size": {"height": 48, "width": 80}, "resample": 1},
    "bilinear, a crop larger than the image": {"size": 50, "crop_size": 73, "resample": 2},
    "bilinear, a tall crop": {"size": 224, "crop_size": {"height": 301, "width": 200}, "resample": 2},
    "box, squeezed, no crop": {"size": {"height": 96, "width": 72}, "do_center_crop": False, "resample": 4},
    "Hamming, squeezed": {"size": {"height": 33, "width": 211}, "crop_size": 64, "resample": 5},
    "Hamming": {"size": 112, "crop_size": 112, "resample": 5},
    "box": {"size": 31, "crop_size": 31, "resample": 4},
    "Lanczos, no crop": {"size": 40, "do_center_crop": False, "resample": 1},
    "bicubic, no crop": {"size": 100, "do_center_crop": False},
    "no resize": {"do_resize": False, "crop_size": {"height": 100, "width": 101}},
    "nearest": {"size": 64, "crop_size": 64, "resample": 0},
    "nearest, squeezed, no crop": {"size": {"height": 97, "width": 31}, "do_center_crop": False, "resample": 0},
}
EXTREMES = [(1, 1), (1, 2), (1, 300), (300, 1), (3000, 40), (40, 3000), (2, 999), (640, 480), (480, 641)]
NEAR = [(224, 224), (223, 225), (227, 224), (224, 299), (112, 113), (64, 64), (33, 211), (100, 101), (99, 102)]


def photo(generator: np.random.Generator, height: int, width: int) -> Image.Image:
    """Noise over gradients, so that every frequency is there."""
    rows, columns = np.mgrid[0:height, 0:width]
    base = np.stack([rows * 255 / height, columns * 255 / width, (rows + columns) % 256], axis=-1)
    return Image.fromarray(np.clip(base + generator.normal(0, 40, base.shape), 0, 255).astype(np.uint8))


def flat(generator: np.random.Generator, height: int, width: int) -> Image.Image:
    return Image.new("RGB", (width, height), tuple(generator.integers(0, 256, 3).tolist()))


def noise(generator: np.random.Generator, height: int, width: int) -> Image.Image:
    return Image.fromarray(generator.integers(0, 256, (height, width, 3), dtype=np.uint8))


def page(generator: np.random.Generator, height: int, width: int) -> Image.Image:
    """Black on white, or the other way round, with edges as hard as can be."""
    image = Image.new("RGB", (width, height), "white")
    draw = ImageDraw.Draw(image)
    for top in range(0, height, 12):
        draw.text(
            (int(generator.integers(0, 9)), top), "The quick brown fox, 0123456789 " * (width // 150 + 1), "black"
        )
    draw.line([(0, 0), (width, height)], (255, 0, 0))
    return Image.fromarray(255 - np.asarray(image)) if generator.integers(0, 2) else image


def generated(generator: np.random.Generator, count: int) -> dict[str, Image.Image]:
    """Returns images of four kinds, and of odd sizes, most of them small."""
    sizes = [*EXTREMES, *NEAR]
    while len(sizes) < count:
        height, width = np.exp(generator.uniform(0, np.log(260), 2)).astype(int).tolist()
        sizes.append((height, width))
    kinds = [photo, noise, page, flat]
    made = {}
    for index, (height, width) in enumerate(sizes):
        # Flat images tell the least.
        kind = kinds[index % 3] if index % 10 else flat
        made[f"{index} {kind.__name__} {height}x{width}.png"] = kind(generator, height, width)
    return made


@pytest.fixture(scope="module", params=["saved there", "saved here"])
def saved(
    request: pytest.FixtureRequest, vocabulary: Path, reference: Process, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """An image processor's folder: transformers saves `processor_config.json`, we the older file; both read both."""
    folder = tmp_path_factory.mktemp("images") / request.param
    if request.param == "saved there":
        reference("make_processor", folder, vocabulary)
        assert (folder / "processor_config.json").is_file()
    else:
        CLIPFeatureExtractorTF().save_pretrained(folder)
        assert [path.name for path in folder.iterdir()] == ["preprocessor_config.json"]
    return folder


@pytest.fixture
def prepared(reference: Process, saved: Path, folder: Path) -> Callable[..., dict[str, np.ndarray]]:
    """What transformers makes of a folder of files, by the name of the file."""

    def prepare(files: Path, **options: Any) -> dict[str, np.ndarray]:
        outputs = folder / "outputs.npz"
        reference("pixels", saved, files, json.dumps(options), outputs)
        with np.load(outputs) as arrays:
            assert set(arrays) == {path.name for path in files.iterdir()}
            return dict(arrays)

    return prepare


def prepared_here(extractor: CLIPFeatureExtractorTF, files: Path, **options: Any) -> dict[str, np.ndarray]:
    """Opens a folder's files with Pillow, and returns what we make of the images."""
    rows = {}
    for path in files.iterdir():
        with Image.open(path) as image:
            rows[path.name] = extractor(image, **options)["pixel_values"][0].numpy()
    return rows


def compare_bytes(label: str, here: dict[str, np.ndarray], there: dict[str, np.ndarray]) -> None:
    """Counts the levels that differ; none may."""
    count, different = 0, 0
    for name, values in there.items():
        assert values.dtype == np.uint8 and here[name].shape == values.shape, name
        differing = int((here[name] != values).sum())
        if differing:
            print(f"\n  {name}: {differing} of {values.size} levels differ", end="")
        count, different = count + values.size, different + differing
    report(f"{label}: levels that differ of {count} in {len(there)} images", different, 0)


def compare_values(label: str, here: dict[str, np.ndarray], there: dict[str, np.ndarray]) -> None:
    difference = max(largest(here[name], values) for name, values in there.items())
    count = sum(values.size for values in there.values())
    report(f"{label}: {count} pixel_values of {len(there)} images", difference, 1e-6)


def write(files: Path, images: dict[str, Image.Image]) -> Path:
    files.mkdir()
    for name, image in images.items():
        image.save(files / name, compress_level=1)
    return files


@pytest.mark.parametrize("saved", ["saved here"], indirect=True)
@pytest.mark.parametrize("name", OPTIONS)
def test_generated_images(saved: Path, prepared: Callable[..., Any], folder: Path, name: str) -> None:
    options = OPTIONS[name]
    seed, count = list(OPTIONS).index(name), -(-COUNT // len(OPTIONS))
    images = generated(np.random.default_rng(seed), count)
    files = write(folder / "files", images)
    extractor = CLIPFeatureExtractorTF.from_pretrained(saved)
    here = prepared_here(extractor, files, **options, **BYTES_ONLY)
    compare_bytes(name, here, prepared(files, **options, **BYTES_ONLY))

    for key in list(images)[SUBSET:]:
        (files / key).unlink()
    compare_values(name, prepared_here(extractor, files, **options), prepared(files, **options))


def odd_modes() -> dict[str, Image.Image]:
    generator = np.random.default_rng(0)
    made = {"gradient.png": Image.fromarray(np.tile(np.linspace(0, 255, 300, dtype=np.uint8), (260, 1)))}
    base = photo(generator, 260, 310)
    made |= {f"mode {mode}.png": base.convert(mode) for mode in ("RGB", "L", "P", "LA", "1")}
    see_through = base.copy()
    see_through.putalpha(Image.fromarray(generator.integers(0, 256, (260, 310), dtype=np.uint8)))
    made |= {"mode RGBA.png": see_through, "mode LA, varied.png": see_through.convert("LA")}
    palette = base.convert("P")
    palette.info["transparency"] = palette.getpixel((5, 5))
    made["mode P, one color transparent.png"] = palette
    return made


def test_odd_modes(saved: Path, prepared: Callable[..., Any], folder: Path) -> None:
    """Read from the files of both libraries."""
    files = write(folder / "files", odd_modes())
    extractor = CLIPFeatureExtractorTF.from_pretrained(saved)
    opened = prepared_here(extractor, files)
    read = {path.name: extractor(path.read_bytes())["pixel_values"][0].numpy() for path in files.iterdir()}
    wanted = prepared(files)
    compare_values(f"PIL images of odd modes, {saved.name}", opened, wanted)
    compare_values(f"files of odd modes, {saved.name}", read, wanted)


def encoded() -> dict[str, bytes]:
    """Returns files of all formats and orientations."""
    generator = np.random.default_rng(0)
    made: dict[str, bytes] = {}

    def add(name: str, image: Image.Image, file_format: str, **options: Any) -> None:
        file = io.BytesIO()
        image.save(file, file_format, **options)
        made[f"{name}.{file_format.lower()}"] = file.getvalue()

    for tag in range(1, 9):
        exif = Image.Exif()
        exif[0x0112] = tag
        for kind in (photo, page):
            name, image = f"{kind.__name__}, orientation {tag}", kind(generator, 150 + tag, 211)
            for file_format in ("JPEG", "PNG", "WEBP"):
                add(name, image, file_format, exif=exif)
    for quality in (30, 75, 98):
        for subsampling in (0, 1, 2):
            image = photo(generator, 233, 301)
            add(f"quality {quality}, {subsampling}", image, "JPEG", quality=quality, subsampling=subsampling)
            add(f"progressive {quality}, {subsampling}", image, "JPEG", progressive=True, subsampling=subsampling)
    image = photo(generator, 141, 200)
    see_through = image.copy()
    see_through.putalpha(Image.fromarray(generator.integers(0, 256, (141, 200), dtype=np.uint8)))
    for name, shown in {"opaque": image, "transparent": see_through}.items():
        add(f"{name} lossless", shown, "WEBP", lossless=True)
        add(f"{name} lossy", shown, "WEBP", quality=60)
        add(name, shown, "PNG")
    add("gray", image.convert("L"), "JPEG")
    add("cmyk", image.convert("CMYK"), "JPEG")
    add("gray", image.convert("L"), "GIF")
    add("colors", image, "GIF")
    add("transparent", image.quantize(9), "GIF", transparency=3)
    add("animated", image, "GIF", save_all=True, append_images=[image.rotate(90)])
    return made


def photographs() -> list[Path]:
    """Real images, from a wheel that holds some; the package itself is not imported."""
    try:
        files = importlib.metadata.files("scikit-image") or []
    except importlib.metadata.PackageNotFoundError:
        files = []
    found = [Path(str(file.locate())) for file in files if file.suffix in (".jpg", ".png", ".gif")]
    # A comparison that skips itself would look like one that passed.
    assert len(found) > 20, "needs its images: pip install --no-deps scikit-image"
    return found


@pytest.fixture(params=["encoded here", "photographs"])
def files(request: pytest.FixtureRequest, folder: Path) -> Path:
    made = folder / request.param
    made.mkdir()
    if request.param == "photographs":
        for path in photographs():
            shutil.copy(path, made)
    else:
        for name, data in encoded().items():
            (made / name).write_bytes(data)
    return made


@pytest.mark.parametrize("saved", ["saved here"], indirect=True)
def test_files(saved: Path, prepared: Callable[..., Any], files: Path) -> None:
    """Decoded in the graph, against Pillow and its `exif_transpose`."""
    names = sorted(path.name for path in files.iterdir())
    data = [(files / name).read_bytes() for name in names]
    extractor = CLIPFeatureExtractorTF.from_pretrained(saved)
    wanted = prepared(files, **BYTES_ONLY)
    eager = extractor(data, **BYTES_ONLY)["pixel_values"].numpy()
    compare_bytes(f"{files.name}, eager", dict(zip(names, eager, strict=True)), wanted)
    dataset = tf.data.Dataset.from_tensor_slices(data).batch(7).map(lambda rows: extractor(rows, **BYTES_ONLY))
    graph = np.concatenate([batch["pixel_values"].numpy() for batch in dataset])
    compare_bytes(f"{files.name}, in a dataset", dict(zip(names, graph, strict=True)), wanted)
    values = extractor(data)["pixel_values"].numpy()
    compare_values(f"{files.name}, eager", dict(zip(names, values, strict=True)), prepared(files))


@pytest.mark.parametrize("saved", ["saved here"], indirect=True)
@pytest.mark.parametrize("resample", [0, 1, 2, 3, 4, 5])
def test_photographs_through_every_filter(
    saved: Path, prepared: Callable[..., Any], folder: Path, resample: int
) -> None:
    files = folder / "photographs"
    files.mkdir()
    for path in photographs():
        shutil.copy(path, files)
    extractor = CLIPFeatureExtractorTF.from_pretrained(saved)
    options = {"size": 160, "crop_size": 160, "resample": resample, **BYTES_ONLY}
    compare_bytes(
        f"photographs, filter {resample}", prepared_here(extractor, files, **options), prepared(files, **options)
    )
