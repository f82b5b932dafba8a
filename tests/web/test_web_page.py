"""The page of examples/web in headless Chromium: what it shows is what the Keras model says."""

from __future__ import annotations

import json
import time
from urllib.parse import urlsplit

import numpy as np
import pytest
from PIL import Image
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys

import tf_clip
from helpers.browser import browser
from helpers.colors import contrast
from helpers.web_page import IMAGES, ROOT, WebPage, served, with_model, without

EXAMPLES = sorted(IMAGES.glob("*.png"))
SENTENCES = ["an animal", "a boat on the sea", "Großes ROTES Obst, isn't it? 🍓"]
DOCS_IMAGES = ROOT / "docs" / "images"
# What three digits and a gray level of difference, which resizing may make, come to.
FLOAT32, DYNAMIC_INT8 = 0.0015, 0.02


def assert_shown(page, paths, wanted, tolerance):
    """The cards must be the model's ranking, or differ from it only where it is as good as tied."""
    ranking = page.ranking()
    by_name = {path.name: float(cosine) for path, cosine in zip(paths, wanted, strict=True)}
    assert sorted(name for name, _ in ranking) == sorted(by_name)
    for name, shown in ranking:
        assert shown == pytest.approx(by_name[name], abs=tolerance), name
    cosines = np.array([by_name[name] for name, _ in ranking])
    assert (cosines[:-1] >= cosines[1:] - 2 * tolerance).all()
    best = max(shown for _, shown in ranking)
    assert page.bars() == pytest.approx([max(0, shown / best) for _, shown in ranking], abs=0.01)


@pytest.mark.parametrize("sentence", SENTENCES)
def test_the_page_of_the_readme_ranks_as_the_model_does(sentence, page, cosines):
    page.take_examples()
    page.type(sentence)
    assert_shown(page, EXAMPLES, cosines(EXAMPLES, sentence), DYNAMIC_INT8)
    assert page.texts("#status")[0] == f"“{sentence}” fits {page.ranking()[0][0]} best."


@pytest.mark.parametrize("isolated", [False, True], ids=["one core", "all cores"])
def test_in_float32_it_shows_the_models_own_cosines(isolated, float32_folder, chrome, cosines):
    with served(float32_folder, isolated=isolated) as url:
        page = WebPage(chrome, url)
        assert chrome.execute_script("return crossOriginIsolated") == isolated
        page.take_examples()
        for sentence in SENTENCES:
            page.type(sentence)
            assert_shown(page, EXAMPLES, cosines(EXAMPLES, sentence), FLOAT32)


@pytest.mark.real_size
@pytest.mark.parametrize(("quantization", "tolerance"), [("float16", 0.002), ("int4", 0.1)])
def test_the_other_recipes(quantization, tolerance, folder, chrome, cosines, tmp_path):
    with served(with_model(folder, tmp_path, "--quantization", quantization)) as url:
        page = WebPage(chrome, url)
        page.take_examples()
        page.type("an animal")
        assert_shown(page, EXAMPLES, cosines(EXAMPLES, "an animal"), tolerance)


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    """Images as people have them: wide, tall, tiny, gray, with a palette, transparent, lying on their side."""
    folder = tmp_path_factory.mktemp("images")
    owl, bus = (Image.open(IMAGES / f"{name}.png") for name in ("owl", "bus"))
    white = Image.new("RGBA", owl.size, "white")
    flat = Image.alpha_composite(white, owl.convert("RGBA")).convert("RGB")
    flat.resize((900, 260)).save(folder / "wide.png")
    flat.resize((90, 700)).save(folder / "tall.webp", lossless=True)
    flat.resize((20, 17)).save(folder / "tiny.png")
    flat.convert("L").save(folder / "gray.png")
    bus.convert("RGB").quantize(16).save(folder / "palette.gif")
    bus.save(folder / "transparent.webp", lossless=True)
    exif = Image.Exif()
    exif[0x0112] = 6
    flat.save(folder / "turned.jpg", exif=exif, quality=95)
    return sorted(folder.iterdir())


def test_images_of_ones_own(images, float32_folder, chrome, cosines):
    with served(float32_folder) as url:
        page = WebPage(chrome, url)
        page.choose(*images)
        page.type("an animal")
        # JPEG's decoders may round otherwise, which is some levels.
        assert_shown(page, images, cosines(images, "an animal"), 0.004)


def test_a_photographs_size(float32_folder, chrome, cosines, tmp_path):
    path = tmp_path / "large.jpg"
    Image.open(IMAGES / "castle.png").convert("RGB").resize((4000, 3000), Image.Resampling.BICUBIC).save(path)
    with served(float32_folder) as url:
        page = WebPage(chrome, url)
        page.choose(path)
        page.type("an old building")
        assert_shown(page, [path], cosines([path], "an old building"), 0.01)


def test_files_that_are_no_images_are_said_and_cost_nobody_else(page, tmp_path):
    attack = "<img src=x onerror=document.title='taken'>.png"
    (tmp_path / "notes.png").write_text("no image")
    (tmp_path / "cut.png").write_bytes((IMAGES / "owl.png").read_bytes()[:60])
    (tmp_path / attack).write_bytes((IMAGES / "owl.png").read_bytes())
    page.choose(tmp_path / "notes.png", tmp_path / attack, tmp_path / "cut.png", IMAGES / "bus.png")
    page.type("an animal")
    assert page.texts(".name")[:2] == [attack, "bus.png"]
    assert page.texts(".problem") == ["Not an image that this browser reads."] * 2
    assert page.chrome.title == "Find an image by a sentence"
    page.find("#clear").click()
    page.choose(tmp_path / "notes.png")
    page.wait_for("None of these files is an image.")


def test_a_sentence_that_is_too_long_or_none(page):
    page.choose(IMAGES / "owl.png")
    page.type("an owl " * 300, until="only its beginning was read")
    page.type("   ", until="Type a sentence")
    assert page.texts(".score") == [""] and not page.find("#legend").is_displayed()


@pytest.mark.parametrize(
    ("missing", "told", "command"),
    [
        ("model", "There is no model here yet (model/", "tf-clip export litert model --parts image,"),
        ("node_modules", "LiteRT.js is not in this folder", "npm ci"),
        ("images", "The example images are not here", "cp -R examples/images ."),
    ],
)
def test_what_is_missing_is_told_with_the_command_that_brings_it(missing, told, command, folder, chrome, tmp_path):
    with served(without(missing, folder, tmp_path)) as url:
        page = WebPage(chrome, url, until="Ready" if missing == "images" else told)
        if missing == "images":
            page.take_examples()
            page.wait_for(told)
        assert page.find("#command").text.startswith(command)
        assert not page.find("#progress").is_displayed()
    chrome.get_log("browser")


def test_files_that_do_not_belong_together_are_told(folder, chrome, tiny_model, tiny_processor, tmp_path):
    images = folder / "model" / "image_encoder.tflite"
    other = tf_clip.export.litert(tiny_model, tiny_processor, tmp_path / "tiny", parts=["text_from_utf8"])
    for name, texts, told in (
        ("lacking", images, "lack what this page asks for"),
        ("mixed", other["text_from_utf8"], "are of different models"),
    ):
        (tmp_path / name / "model").mkdir(parents=True)
        (tmp_path / name / "model" / images.name).symlink_to(images)
        (tmp_path / name / "model" / "text_from_utf8.tflite").symlink_to(texts)
        with served(without("model", folder, tmp_path / name)) as url:
            page = WebPage(chrome, url, until=told)
            assert page.find("#command").text.endswith("--quantization dynamic_int8 --overwrite")


def test_all_requests_are_to_the_pages_own_server(page, chrome):
    chrome.get_log("performance")
    page = WebPage(chrome, page.url)
    page.take_examples()
    page.type("an animal")
    events = [json.loads(entry["message"])["message"] for entry in chrome.get_log("performance")]
    asked = [event["params"]["request"]["url"] for event in events if event["method"] == "Network.requestWillBeSent"]
    remote = [address for address in asked if urlsplit(address).scheme not in ("data", "blob")]
    assert len(remote) > 15 and all(address.startswith(page.url + "/") for address in remote)
    assert any(address.endswith(".wasm") for address in remote)


def test_the_page_cannot_send_anything_elsewhere(page, chrome, tmp_path):
    with served(tmp_path) as elsewhere:
        script = (
            "const done = arguments[1]; fetch(arguments[0], {mode: 'no-cors'}).then(() => done('sent'), "
            "error => done(error.name))"
        )
        assert chrome.execute_async_script(script, elsewhere) == "TypeError"
    assert any("Content Security Policy" in entry["message"] for entry in chrome.get_log("browser"))


def test_nothing_is_refused_by_its_own_policy(page, chrome):
    page.take_examples()
    page.type("an animal")
    assert not [entry for entry in chrome.get_log("browser") if "Content Security Policy" in entry["message"]]


def test_the_keyboard_is_enough(page, chrome):
    order = []
    # A click would move the place that the first Tab starts from.
    chrome.execute_script("arguments[0].click()", page.find("#examples"))
    page.type("an animal")
    for _ in range(10):
        ActionChains(chrome).send_keys(Keys.TAB).perform()
        focused = chrome.switch_to.active_element
        order.append(focused.get_attribute("id") or focused.accessible_name)
        style = chrome.execute_script("return getComputedStyle(arguments[0]).outlineStyle", focused)
        assert style == "solid" or order[-1] == "files"
    assert order[0] == "sentence" and order[1:6] == page.texts("#ideas button")
    assert order[6:9] == ["files", "examples", "clear"] and order[9] == f"Remove {page.ranking()[0][0]}"
    first, second = page.texts(".name")[:2]
    chrome.switch_to.active_element.send_keys(Keys.ENTER)
    assert page.texts(".name")[0] == second and first not in page.texts(".name")
    assert chrome.switch_to.active_element.accessible_name == f"Remove {second}"
    page.find("#ideas button").send_keys(Keys.SPACE)
    page.wait_for(f"“{page.find('#ideas button').text}” fits ")
    field = page.find("#sentence")
    field.send_keys(Keys.CONTROL, "a")
    field.send_keys("a slice of pizza", Keys.ENTER)
    page.wait_for("“a slice of pizza” fits pizza.png best.")
    # The file field cannot be seen: the frame that stands for it shows that it has the focus.
    chrome.execute_script("arguments[0].focus({focusVisible: true})", page.find("#files"))
    assert page.find("#choose").value_of_css_property("outline-style") == "solid"


def test_everything_to_operate_has_a_name(page, chrome):
    page.choose(IMAGES / "owl.png")
    nodes = chrome.execute_cdp_cmd("Accessibility.getFullAXTree", {})["nodes"]
    operated = [node for node in nodes if node.get("role", {}).get("value") in ("button", "textbox", "progressbar")]
    names = [node["name"]["value"] for node in operated]
    assert all(names) and {"What are you looking for?", "Remove owl.png", "Take the example images"} <= set(names)
    assert chrome.execute_script("return document.documentElement.lang") == "en"


def test_images_are_dropped(page):
    script = """
        const files = new DataTransfer();
        for (const name of ["one.png", "two.png"]) files.items.add(new File(["x"], name, {type: "image/png"}));
        document.body.dispatchEvent(new DragEvent("drop", {dataTransfer: files, bubbles: true, cancelable: true}));
    """
    page.chrome.execute_script(script)
    assert page.texts(".name") == ["one.png", "two.png"]


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_text_can_be_told_from_what_it_is_on(page, chrome, dark):
    scheme = [{"name": "prefers-color-scheme", "value": "dark" if dark else "light"}]
    chrome.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": scheme})
    read = "const s = getComputedStyle(document.documentElement); return arguments[0].map(n => s.getPropertyValue(n))"
    pairs = [("ink", "paper"), ("ink", "card"), ("soft", "paper"), ("soft", "card"), ("soft", "rail"), ("soft", "tint")]
    pairs += [("accent", "paper"), ("accent", "tint"), ("bad", "bad-tint")]
    for text, ground in pairs:
        colors = chrome.execute_script(read, [f"--{text}", f"--{ground}"])
        assert contrast(*colors) >= 4.5, (text, ground)
    assert contrast(*chrome.execute_script(read, ["--accent", "--rail"])) >= 3


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_the_image_of_the_page(dark, url, tmp_path, request):
    """The page at the size that the docs show it at; the file is written on demand only."""
    name = "web_page_dark.png" if dark else "web_page.png"
    target = (DOCS_IMAGES if request.config.getoption("write_image") else tmp_path) / name
    with browser(tmp_path / "profile", width=1180, height=940, dark=dark) as chrome:
        page = WebPage(chrome, url)
        page.take_examples()
        page.type("a boat on the sea")
        time.sleep(0.5)  # the bars take their time
        assert chrome.execute_script("return document.documentElement.scrollWidth <= innerWidth")
        chrome.save_screenshot(str(target))
    assert target.read_bytes().startswith(b"\x89PNG")


def test_the_page_on_a_phone(url, tmp_path):
    with browser(tmp_path / "profile", width=360, height=780, dark=True) as chrome:
        page = WebPage(chrome, url)
        long = tmp_path / f"{'averyvery' * 12}longname.png"
        long.write_bytes((IMAGES / "owl.png").read_bytes())
        page.choose(long, IMAGES / "bus.png")
        page.type("averyvery" * 20)
        assert chrome.execute_script("return document.documentElement.scrollWidth <= innerWidth")
        assert len({card.rect["y"] for card in chrome.find_elements(By.CSS_SELECTOR, "#cards > li")}) == 1
