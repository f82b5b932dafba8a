"""The page at `/` in headless Chromium, on the shipped model."""

from __future__ import annotations

import re
import time
from pathlib import Path

import pytest
from selenium.webdriver.common.by import By
from selenium.webdriver.support.ui import WebDriverWait

from helpers import ROOT
from helpers.browser import browser
from helpers.colors import contrast
from helpers.serving.calls import IMAGES

pytestmark = pytest.mark.process

NAMES = ["owl", "bus", "castle", "strawberry", "rocket"]
SHOWN = ROOT / "docs" / "images" / "local_server.png"


@pytest.fixture(scope="module")
def server(pictogram_server):
    return pictogram_server


@pytest.fixture(scope="module")
def chrome(tmp_path_factory):
    with browser(tmp_path_factory.mktemp("profile")) as chrome:
        yield chrome


class Page:
    """The page as a person uses it.

    Args:
        chrome: the browser.
        server: whose page it is.
    """

    def __init__(self, chrome, server):
        self.chrome = chrome
        chrome.get(server.url)
        self.wait_for("#model", "version")

    def find(self, selector):
        return self.chrome.find_element(By.CSS_SELECTOR, selector)

    def texts(self, selector):
        return [element.text for element in self.chrome.find_elements(By.CSS_SELECTOR, selector)]

    def wait_for(self, selector, part):
        WebDriverWait(self.chrome, 60).until(lambda _: part in self.find(selector).text, f"no {part!r} in {selector}")

    def choose(self, *paths):
        self.find("#files").send_keys("\n".join(str(path) for path in paths))

    def type(self, *labels):
        self.find("#labels").clear()
        self.find("#labels").send_keys("\n".join(labels))

    def compare(self, until="Done"):
        self.find("#compare").click()
        self.wait_for("#status", until)

    def answers(self):
        """Returns (label, percentage) pairs for each image, or the sentence that stands instead."""
        cards = self.chrome.find_elements(By.CSS_SELECTOR, ".answer")
        rows = [[tuple(row.text.split("\n")) for row in card.find_elements(By.TAG_NAME, "li")] for card in cards]
        return [found or card.text for found, card in zip(rows, cards, strict=True)]


@pytest.fixture
def page(chrome, server):
    page = Page(chrome, server)
    yield page
    # Among others, what the content security policy has stopped.
    assert [entry["message"] for entry in chrome.get_log("browser")] == []


def images(*names):
    return [IMAGES / f"{name}.png" for name in names]


def test_images_and_labels_give_bars(page, server, tmp_path):
    (tmp_path / "notes.png").write_text("no image")
    page.choose(*images(*NAMES), tmp_path / "notes.png")
    page.type(*NAMES)
    page.compare(until="Done: 6 images, 1 without an answer.")
    *scored, refused = page.answers()
    assert [rows[0][0] for rows in scored] == NAMES
    assert refused == "No answer: not a JPEG, PNG, WebP or GIF file."
    for rows in scored:
        assert sorted(label for label, _ in rows) == sorted(NAMES)
        shares = [float(share.removeprefix("< ").removesuffix("%")) for _, share in rows]
        assert shares == sorted(shares, reverse=True) and 99 < sum(shares) < 101
    # The bar is as long as its number says.
    bar = page.find("li.best .rail div").size["width"] / page.find("li.best .rail").size["width"]
    assert abs(100 * bar - float(scored[0][0][1].removesuffix("%"))) < 1
    wanted = server.columns("similarity", image_bytes=as_json("owl"), text=NAMES)["probabilities"][0]
    assert scored[0][0][1] == f"{100 * max(wanted):.1f}%"


def as_json(name):
    import base64

    return [{"b64": base64.b64encode((IMAGES / f"{name}.png").read_bytes()).decode()}]


def test_the_prompt_around_the_labels_is_used(page, server):
    page.choose(*images("owl"))
    page.type("owl", "bus")
    page.find("#template").clear()
    page.find("#template").send_keys("a drawing of $& {}")
    page.compare()
    text = ["a drawing of $& owl", "a drawing of $& bus"]
    wanted = server.columns("similarity", image_bytes=as_json("owl"), text=text)["probabilities"][0]
    assert page.answers()[0][0][1] == f"{100 * max(wanted):.1f}%"
    page.find("#template").clear()
    page.find("#template").send_keys("a drawing")
    page.compare(until="must have {}")


def test_the_models_own_labels(page):
    page.choose(*images("castle", "owl"))
    page.find("#own").click()
    page.wait_for("#status", "Done")
    assert [rows[0][0] for rows in page.answers()] == ["castle", "owl"]
    assert {len(rows) for rows in page.answers()} == {5}


def test_more_images_than_one_request_takes(page):
    page.choose(*[path for _ in range(4) for path in images(*NAMES)])
    page.type(*NAMES)
    page.compare(until="Done: 20 images")
    assert [rows[0][0] for rows in page.answers()] == NAMES * 4


def test_many_labels_are_folded(page):
    page.choose(*images("owl"))
    page.type("owl", *(f"a thing of kind {index}" for index in range(11)))
    page.compare()
    assert len(page.chrome.find_elements(By.CSS_SELECTOR, ".answer > ol > li")) == 8
    assert page.texts("summary") == ["4 more"]


def test_images_are_dropped_and_taken_away(page):
    script = """
        const files = new DataTransfer();
        for (const name of ["one.png", "two.png"]) files.items.add(new File(["x"], name, {type: "image/png"}));
        document.body.dispatchEvent(new DragEvent("drop", {dataTransfer: files, bubbles: true, cancelable: true}));
    """
    page.chrome.execute_script(script)
    assert page.texts("figcaption") == ["one.png", "two.png"]
    page.find(".remove").click()
    assert page.texts("figcaption") == ["two.png"]
    page.find("#clear").click()
    assert page.texts("figcaption") == [] and page.find("#empty").is_displayed()


def test_names_and_labels_are_text_whatever_they_hold(page, tmp_path):
    attack = "<img src=x onerror=document.title='taken'>"
    path = tmp_path / "<b onmouseover=alert(1)>.png"
    path.write_bytes((IMAGES / "owl.png").read_bytes())
    page.choose(path)
    page.type(attack, "owl")
    page.compare()
    assert attack in [label for label, _ in page.answers()[0]]
    assert page.texts("figcaption") == [path.name]
    assert page.chrome.title == "Images and labels"


def test_what_is_missing_and_what_the_server_refuses_is_said(page, chrome):
    page.type("owl")
    page.compare(until="Choose an image first")
    page.choose(*images("owl"))
    page.find("#labels").clear()
    page.compare(until="at least one label")
    # By script, since typing two hundred lines takes long.
    chrome.execute_script("arguments[0].value = Array(200).fill('owl').join('\\n')", page.find("#labels"))
    page.compare(until="larger than maximum input batch size 128")
    messages = [entry["message"] for entry in chrome.get_log("browser")]
    assert len(messages) == 1 and "400 (Bad Request)" in messages[0]
    page.type("owl", "bus")
    page.compare()


def test_a_server_that_does_not_answer_is_said(page, chrome):
    page.choose(*images("owl"))
    page.type("owl")
    network = {"latency": 0, "downloadThroughput": -1, "uploadThroughput": -1}
    chrome.execute_cdp_cmd("Network.emulateNetworkConditions", {"offline": True, **network})
    try:
        page.compare(until="does not answer")
    finally:
        chrome.execute_cdp_cmd("Network.emulateNetworkConditions", {"offline": False, **network})
    assert all("ERR_INTERNET_DISCONNECTED" in entry["message"] for entry in chrome.get_log("browser"))


def test_nothing_comes_from_elsewhere_and_only_the_pages_own_script_runs(page, server, chrome):
    response = server.http.get("/")
    policy = response.headers["Content-Security-Policy"]
    assert "default-src 'none'" in policy and "unsafe" not in policy
    assert not re.search(r"(?:src|href)=[\"']?(?:https?:)?//", response.text)
    assert not re.search(r"\son\w+=[\"']|\sstyle=[\"']", response.text)
    names = chrome.execute_script("return performance.getEntriesByType('resource').map(entry => entry.name)")
    assert all(name.startswith(server.url) for name in names)
    inject = (
        "const s = document.createElement('script'); s.textContent = 'window.injected = 1'; document.body.append(s);"
    )
    chrome.execute_script(inject)
    assert chrome.execute_script("return window.injected") is None
    assert any("Content Security Policy" in entry["message"] for entry in chrome.get_log("browser"))


def test_everything_to_operate_has_a_name_and_a_visible_focus(page, chrome):
    page.choose(*images("owl"))
    nodes = chrome.execute_cdp_cmd("Accessibility.getFullAXTree", {})["nodes"]
    operated = [
        node for node in nodes if node.get("role", {}).get("value") in ("button", "textbox", "link", "checkbox")
    ]
    names = [node["name"]["value"] for node in operated]
    assert len(names) >= 7 and all(names)
    assert {"Labels, one a line", "Remove owl.png"} <= set(names)
    assert chrome.execute_script("return document.documentElement.lang") == "en"
    # The file field cannot be seen: the frame that stands for it shows that it has the focus.
    chrome.execute_script("arguments[0].focus({focusVisible: true})", page.find("#files"))
    assert page.find("#drop").value_of_css_property("outline-style") == "solid"


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_text_can_be_told_from_what_it_is_on(page, chrome, dark):
    scheme = [{"name": "prefers-color-scheme", "value": "dark" if dark else "light"}]
    chrome.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": scheme})
    read = "const s = getComputedStyle(document.documentElement); return arguments[0].map(n => s.getPropertyValue(n))"
    pairs = [("ink", "paper"), ("ink", "card"), ("ink", "field"), ("soft", "paper"), ("soft", "card"), ("soft", "rail")]
    pairs += [("accent", "card"), ("accent", "tint"), ("on-accent", "accent"), ("bad", "bad-tint"), ("bad", "card")]
    for text, ground in pairs:
        colors = chrome.execute_script(read, [f"--{text}", f"--{ground}"])
        assert contrast(*colors) >= 4.5, (text, ground)
    # A bar must be told from its rail, too, if less than letters.
    assert contrast(*chrome.execute_script(read, ["--accent", "--rail"])) >= 3


def test_the_image_of_the_page(server, tmp_path, request):
    """Also the page at the size that the docs show it at; the file is written on demand only."""
    bad = tmp_path / "notes.png"
    bad.write_text("no image")
    target = SHOWN if request.config.getoption("write_image") else tmp_path / "page.png"
    target.parent.mkdir(exist_ok=True)
    with browser(tmp_path / "profile", width=1280, height=1080) as chrome:
        page = Page(chrome, server)
        page.choose(*images(*NAMES), bad)
        page.type(*NAMES)
        page.compare()
        time.sleep(0.5)  # the bars take their time
        assert chrome.execute_script("return document.documentElement.scrollWidth <= innerWidth")
        chrome.save_screenshot(str(target))
    assert Path(target).read_bytes().startswith(b"\x89PNG")


def test_the_page_on_a_phone(server, tmp_path):
    with browser(tmp_path / "profile", width=360, height=780, dark=True) as chrome:
        page = Page(chrome, server)
        page.choose(*images("owl"))
        page.type("owl", "averyveryveryveryveryveryveryveryveryverylonglabelthatdoesnotend")
        page.compare()
        assert chrome.execute_script("return document.documentElement.scrollWidth <= innerWidth")
