"""The page in a real browser: `make test-browser` writes pictures to build/screenshots.

Selenium controls Chromium by chromedriver, both from Debian. The server is `ernie-rna serve`.
"""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time

import pytest

pytest.importorskip("selenium")
pytest.importorskip("gradio")

from selenium import webdriver
from selenium.common import exceptions
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support.ui import WebDriverWait

from tests.conftest import ROOT

pytestmark = pytest.mark.browser
SCREENSHOTS = ROOT / "build" / "screenshots"
FLAGS = (
    "--headless=new --no-sandbox --disable-gpu --disable-quic --no-first-run "
    "--disable-background-networking --disable-component-update --disable-sync"
)
BOX, PRIOR = ".rna textarea", "input[value='ViennaRNA']"
RNA = "input[aria-label='RNA to draw']"
REDRAWN = (
    exceptions.StaleElementReferenceException,
    exceptions.ElementClickInterceptedException,
)
SECONDS = 120


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    """The address of `ernie-rna serve`, which runs in an empty folder and must leave no file."""
    folder, temporary = tmp_path_factory.mktemp("folder"), tmp_path_factory.mktemp("temporary")
    words = f"-m ernie_rna serve --port 7899 --threads 1 --seconds {SECONDS}".split()
    process = subprocess.Popen(
        [sys.executable, *words],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT), "TMPDIR": str(temporary)},
        stdout=subprocess.PIPE,
        text=True,
    )
    line = process.stdout.readline()
    address = re.search(r"http://\S+", line)
    assert address, line
    yield address.group()
    process.send_signal(signal.SIGTERM)
    process.wait(60)
    assert list(folder.iterdir()) == []
    assert list(temporary.iterdir()) == []


class Visitor:
    """A browser that shows the page, with methods for what a user does."""

    def __init__(self, address, profile):
        options = webdriver.ChromeOptions()
        options.binary_location = shutil.which("chromium")
        for flag in (*FLAGS.split(), f"--user-data-dir={profile}"):
            options.add_argument(flag)
        options.set_capability("goog:loggingPrefs", {"performance": "ALL"})
        service = Service(shutil.which("chromedriver"))
        self.driver = webdriver.Chrome(options=options, service=service)
        self.driver.set_page_load_timeout(SECONDS)
        self.resize(1280, 1000)
        self.open(address)

    def open(self, address):
        self.driver.get(address)
        self.wait(lambda: self.named("Fold"))
        self.pictures(2)

    def resize(self, width, height):
        size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False}
        self.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)

    def wait(self, condition):
        # Gradio may redraw an element while it is being read.
        wait = WebDriverWait(self.driver, SECONDS, ignored_exceptions=REDRAWN)
        return wait.until(lambda driver: condition())

    def all(self, selector):
        elements = self.driver.find_elements(By.CSS_SELECTOR, selector)
        return [element for element in elements if element.is_displayed()]

    def one(self, selector):
        return self.driver.find_element(By.CSS_SELECTOR, selector)

    def named(self, text):
        buttons = self.all("button")
        return next((button for button in buttons if button.text.strip() == text), None)

    def click(self, text):
        def clicked():
            button = self.named(text)
            if button is None:
                return False
            self.driver.execute_script("arguments[0].scrollIntoView({block: 'center'})", button)
            button.click()
            return True

        self.wait(clicked)

    def press(self, *keys):
        ActionChains(self.driver).send_keys(*keys).perform()

    @property
    def focused(self):
        """Text, label, role and value of the element that has the focus."""
        return self.driver.execute_script(
            "const a = document.activeElement; return [a.innerText.trim(), "
            "a.getAttribute('aria-label'), a.getAttribute('role'), a.value]"
        )

    def value(self, selector):
        return self.one(selector).get_attribute("value")

    @property
    def folded(self):
        return self.value(".dot-bracket textarea")

    def write(self, selector, *keys):
        """Replace the text of a field."""
        self.one(selector).send_keys(Keys.CONTROL, "a")
        self.one(selector).send_keys(*keys)

    def pictures(self, count):
        """Wait for this number of pictures; return their alternative texts."""
        self.wait(lambda: len(self.all(".picture img")) == count)
        return [picture.get_attribute("alt") for picture in self.all(".picture img")]

    def error(self):
        return self.wait(lambda: " ".join(toast.text for toast in self.all(".toast-body")))

    def screenshot(self, name):
        SCREENSHOTS.mkdir(parents=True, exist_ok=True)
        time.sleep(1)  # New elements fade in.
        size = "return [innerWidth, document.documentElement.scrollHeight]"
        self.resize(*self.driver.execute_script(size))
        self.driver.save_screenshot(str(SCREENSHOTS / f"{name}.png"))


@pytest.fixture(scope="module")
def new_visitor(server, tmp_path_factory):
    """A function that starts another browser."""
    visitors = []

    def new_visitor():
        visitors.append(Visitor(server, tmp_path_factory.mktemp("profile")))
        return visitors[-1]

    yield new_visitor
    for visitor in visitors:
        visitor.driver.quit()


@pytest.fixture(scope="module")
def first(new_visitor):
    return new_visitor()


@pytest.fixture
def visitor(first, server):
    first.resize(1280, 1000)
    first.open(server)
    return first


def test_it_opens_with_an_example_folded_and_drawn(visitor):
    loops, arcs = visitor.pictures(2)
    assert loops.startswith("layout: hammerhead: ")
    assert "known structure" in arcs
    assert visitor.folded.startswith(">hammerhead ")
    visitor.screenshot("opening")


def take(visitor, example, id):
    """Click an example, whose first RNA is `id`, and wait until one of its RNAs is selected."""
    visitor.click(example)
    visitor.wait(lambda: visitor.value(BOX).startswith(f">{id} "))
    ids = re.findall(r">(\S+)", visitor.value(BOX))
    visitor.wait(lambda: visitor.value(RNA) in ids)


def open_tab(visitor, name, width):
    if name == "Structure":  # This tab is open at the start.
        return
    if width < 600 and name in ("Substitutions", "Embeddings"):  # A narrow page has a menu.
        visitor.all(".overflow-menu > button")[0].click()
    visitor.click(name)


@pytest.mark.parametrize("width", [1280, 390])
@pytest.mark.parametrize(
    ("tab", "button", "caption", "files"),
    [
        ("Structure", "Fold", "hammerhead: ", ("layout.svg", "arcs.svg", ".dbn", ".ct", ".npz")),
        ("Pairing maps", "Draw the map", "base pairs are read off", ("map.svg", ".npz")),
        ("Substitutions", "Score all substitutions", "pseudo-perplexity", (".svg", ".npz")),
        ("Embeddings", "Plot the vectors", "14 vectors", (".svg", ".npz")),
    ],
)
def test_each_tab(visitor, tab, button, caption, files, width):
    visitor.resize(width, 844)
    take(visitor, "All 14 examples", "tRNA-Phe")
    visitor.one(PRIOR).click()
    visitor.wait(lambda: visitor.folded.count(">") == 14)
    open_tab(visitor, tab, width)
    visitor.click(button)
    visitor.wait(lambda: visitor.all("a[download]"))
    assert caption in visitor.pictures(2 if tab == "Structure" else 1)[0]
    links = [link.get_attribute("href") for link in visitor.all("a[download]")]
    for name in files:
        assert any(link.endswith(name) for link in links), links
    visitor.screenshot(f"{tab} {width}")
    page_width, window_width = visitor.driver.execute_script(
        "return [document.documentElement.scrollWidth, innerWidth]"
    )
    assert page_width <= window_width


def test_bad_input_gets_a_message_without_a_traceback(visitor):
    visitor.write(BOX, Keys.DELETE, ">a<img src=x>\nMKVLAEFFGP")
    visitor.click("Fold")
    assert "looks like a protein" in visitor.error()
    assert "Traceback" not in visitor.driver.page_source
    assert not visitor.all("img[src='x']")
    # No result of another RNA is left below the message.
    visitor.wait(lambda: not visitor.all(".picture img") and not visitor.folded)
    visitor.screenshot("bad-input")


def test_choosing_another_rna_draws_it(visitor):
    take(visitor, "All 14 examples", "tRNA-Phe")
    visitor.click("Fold")
    visitor.wait(lambda: visitor.folded.count(">") == 14)
    visitor.write(RNA, "purine-1", Keys.ENTER)
    visitor.wait(lambda: visitor.pictures(2)[0].startswith("layout: purine-1: "))
    assert visitor.folded.count(">") == 14


def test_two_users_at_once(new_visitor, visitor):
    other = new_visitor()
    take(visitor, "tRNA", "tRNA-Phe")
    take(other, "Purine riboswitch", "purine-1")
    for user in (visitor, other):
        user.click("Fold")
    for user, id in ((visitor, "tRNA-Phe"), (other, "purine-1")):
        user.wait(lambda user=user, id=id: user.folded.startswith(f">{id} "))
        assert id in user.pictures(2)[0]


def focus(visitor, text):
    """Press Tab until the focus is on an element with this text, label, role or value."""
    for _ in range(60):
        visitor.press(Keys.TAB)
        if text in visitor.focused:
            return
    raise AssertionError(f"Tab does not reach {text}")


def test_the_page_can_be_used_by_the_keyboard_alone(visitor):
    focus(visitor, "tRNA")
    visitor.press(Keys.ENTER)
    visitor.wait(lambda: "GCGGAUUU" in visitor.value(BOX))
    focus(visitor, "Fold")
    visitor.press(Keys.ENTER)
    visitor.wait(lambda: visitor.folded.startswith(">tRNA-Phe"))
    visitor.driver.execute_script("document.activeElement.blur(); scrollTo(0, 0)")
    focus(visitor, "ViennaRNA")  # Tab stops at each of Gradio's radio buttons.
    visitor.press(Keys.SPACE)
    visitor.wait(lambda: visitor.one(PRIOR).is_selected())
    visitor.wait(lambda: visitor.folded.startswith(">tRNA-Phe"))
    for tab, button, count in (
        ("Pairing maps", "Draw the map", 1),
        ("Substitutions", "Score all substitutions", 1),
        ("Embeddings", "Plot the vectors", 0),
    ):
        visitor.driver.execute_script("document.activeElement.blur(); scrollTo(0, 0)")
        focus(visitor, "tab")
        # If Tab stops at only one of the tabs, the arrows move between them; else Tab does.
        for _ in range(6):
            if tab in visitor.focused:
                break
            before = visitor.focused
            visitor.press(Keys.ARROW_RIGHT)
            if visitor.focused == before:
                visitor.press(Keys.TAB)
        visitor.press(Keys.ENTER)
        focus(visitor, button)
        visitor.press(Keys.ENTER)
        visitor.pictures(count)
    assert "two RNAs or more" in visitor.error()


def test_the_page_requests_nothing_from_other_servers(first, server):
    hosts = set()
    for entry in first.driver.get_log("performance"):
        message = json.loads(entry["message"])["message"]
        if message["method"] == "Network.requestWillBeSent":
            hosts.add(message["params"]["request"]["url"].partition("?")[0][: len(server)])
    assert {host for host in hosts if host.startswith("http")} == {server}
