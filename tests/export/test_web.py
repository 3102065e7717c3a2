"""The page that runs a model in the browser: the runtime's masks, and nothing that leaves the machine."""

import functools
import http.server
import io
import json
import shutil
import subprocess
import threading
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.export.conftest import noise
from tests.export.test_kit import write_model
from tests.export.test_metadata import CASES

WEB = Path(__file__).parents[2] / "export" / "web"
ORIGIN = "http://127.0.0.1"
STATUS = "document.getElementById('status').textContent"
PIXELS = """
document.getElementById("opacity").value = 100;
document.getElementById("opacity").dispatchEvent(new Event("input"));
const canvas = document.querySelector(`figure canvas[aria-label^="${arguments[0]}"]`);
return Array.from(canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height).data);
"""


@pytest.fixture(scope="module")
def site(tmp_path_factory, exported):
    """The page with its library and a model, served; its address."""
    if shutil.which("npm") is None:
        pytest.skip("npm is not installed")
    folder = tmp_path_factory.mktemp("web") / "site"
    shutil.copytree(WEB, folder, ignore=shutil.ignore_patterns("node_modules"))
    install = ["npm", "install", "--ignore-scripts", "--no-package-lock", "--no-audit", "--no-fund", "--silent"]
    if subprocess.run(install, cwd=folder, check=False).returncode:
        pytest.skip("no npm registry can be reached")
    shutil.copy(exported, folder / "model.onnx")

    class Handler(http.server.SimpleHTTPRequestHandler):
        extensions_map = http.server.SimpleHTTPRequestHandler.extensions_map | {".mjs": "text/javascript"}

        def log_message(self, *args):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Handler, directory=folder))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"{ORIGIN}:{server.server_port}/index.html"
    server.shutdown()
    server.server_close()


def wait_for(driver, script):
    from selenium.webdriver.support.ui import WebDriverWait

    return WebDriverWait(driver, 60).until(lambda d: d.execute_script(f"return {script}"))


@pytest.mark.slow
def test_the_browser_gives_the_masks_of_the_runtime_and_sends_nothing_away(
    site, browser, tmp_path, runtime, exported, phantoms
):
    model = runtime.Model(exported)
    browser.get(site)
    assert wait_for(browser, f"{STATUS}.includes('ready') && {STATUS}") == "model.onnx: ready. Choose images."
    assert [e.text for e in browser.find_elements("css selector", "#legend li")] == list(model.names)
    shutil.copy(sorted((phantoms / "test" / "images").iterdir())[0], tmp_path / "phantom.png")
    Image.fromarray(noise(61, 83, 3)).save(tmp_path / "odd.png")
    Image.fromarray(noise(50, 40)).save(tmp_path / "grey.png")
    names = ["phantom.png", "odd.png", "grey.png"]
    browser.find_element("id", "images").send_keys("\n".join(str(tmp_path / name) for name in names))
    wait_for(browser, "document.querySelectorAll('figure[data-counts]').length == 3")
    browser.save_screenshot(str(tmp_path / "page.png"))
    for name in names:
        image = runtime.read_image(tmp_path / name)
        drawn = np.array(browser.execute_script(PIXELS, name), np.uint8).reshape(*image.shape[:2], 4)[..., :3]
        mask = model.predict(image)
        expected = np.where(mask[..., None] > 0, np.array(model.colors, np.uint8)[mask], image)
        assert np.mean((drawn != expected).any(axis=2)) <= 1e-4, name
    loaded = browser.execute_script("return performance.getEntriesByType('resource').map((e) => e.name)")
    assert any(url.endswith(".wasm") for url in loaded)
    assert all(url.startswith((f"{ORIGIN}:", "blob:", "data:")) for url in loaded), loaded
    refused = browser.execute_async_script(
        "const done = arguments[0]; fetch('https://example.org/').then(() => done('sent'), () => done('refused'))"
    )
    assert refused == "refused"
    said = [entry["message"] for entry in browser.get_log("browser") if "example.org" not in entry["message"]]
    assert not said


@pytest.mark.slow
def test_what_cannot_be_used_is_named(site, browser, tmp_path, exported):
    browser.get(site)
    wait_for(browser, f"{STATUS}.includes('ready')")
    whole = io.BytesIO()
    Image.fromarray(noise(40, 40, 3)).save(whole, format="PNG")
    (tmp_path / "cut.png").write_bytes(whole.getvalue()[:900])
    (tmp_path / "page.png").write_bytes(b"<html>")
    Image.fromarray(noise(20, 20, 4)).save(tmp_path / "glass.png")
    (tmp_path / "good.png").write_bytes(whole.getvalue())
    names = ("page.png", "glass.png", "good.png")
    browser.find_element("id", "images").send_keys("\n".join(str(tmp_path / n) for n in names))
    wait_for(browser, "document.querySelectorAll('figure[data-counts]').length == 1")
    captions = [e.text for e in browser.find_elements("css selector", "figure.bad figcaption")]
    assert len(captions) == 2
    assert any(c == "glass.png: has transparent pixels; flatten it onto a background first" for c in captions)
    assert any(c.startswith("page.png: is damaged, or no image") for c in captions)
    for name, content in {"cut": exported.read_bytes()[:5000], "junk": b"junk" * 50, "empty": b""}.items():
        (tmp_path / f"{name}.onnx").write_bytes(content)
        browser.find_element("id", "model").send_keys(str(tmp_path / f"{name}.onnx"))
        said = wait_for(browser, f"{STATUS}.startsWith('{name}.onnx: ') && {STATUS}")
        assert "is no ONNX file" in said or "was not exported by flexunet" in said


@pytest.mark.slow
def test_the_browser_reads_and_refuses_metadata_as_the_runtime_does(site, browser, count):
    browser.get(site)
    wait_for(browser, f"{STATUS}.includes('ready')")
    found = browser.execute_async_script(
        """
        const [texts, done] = arguments;
        import("./model_file.mjs").then(({ parseMetadata }) => done(texts.map((text) => {
          try { return { names: parseMetadata(text).names }; } catch (error) { return { reason: error.message }; }
        })));
        """,
        [case["text"] for case in CASES],
    )
    differing = [
        case["what"] for case, got in zip(CASES, found, strict=True)
        if got.get("reason") != case.get("reason") or got.get("names") != case.get("names")
    ]  # fmt: skip
    count("H1", len(CASES) - len(differing), len(CASES), f"the page in Chromium reads and refuses alike {differing}")


@pytest.mark.slow
@pytest.mark.case("H1")
def test_names_keep_their_order_and_never_become_markup(site, browser, tmp_path):
    names = ["10", "2", "<img src=x onerror=document.title='markup'>", "__proto__", "1"]
    facts = json.dumps({"format": 2, "image_size": [8, 8], "classes": [[n, [9, i, i]] for i, n in enumerate(names)]})
    write_model(tmp_path / "odd.onnx", text=facts)
    browser.get(site)
    wait_for(browser, f"{STATUS}.includes('ready')")
    title = browser.title
    browser.find_element("id", "model").send_keys(str(tmp_path / "odd.onnx"))
    wait_for(browser, f"{STATUS}.startsWith('odd.onnx: ready')")
    Image.fromarray(noise(20, 30, 3)).save(tmp_path / "<b>a.png")
    browser.find_element("id", "images").send_keys(str(tmp_path / "<b>a.png"))
    wait_for(browser, "document.querySelectorAll('figure[data-counts]').length == 1")
    assert [e.text for e in browser.find_elements("css selector", "#legend li")] == names
    assert [e.text for e in browser.find_elements("css selector", "figure th")] == names
    assert not browser.find_elements("css selector", "main img, main b")
    assert browser.title == title
    write_model(tmp_path / "more.onnx", add=7)
    browser.find_element("id", "model").send_keys(str(tmp_path / "more.onnx"))
    wait_for(browser, f"{STATUS}.startsWith('more.onnx: ready')")
    Image.fromarray(noise(20, 30, 3)).save(tmp_path / "c.png")  # the same one again is no change
    browser.find_element("id", "images").send_keys(str(tmp_path / "c.png"))
    wait_for(browser, "document.querySelectorAll('figure.bad').length >= 1")
    assert "names 2 classes, and its network has others" in browser.find_element("css selector", "figure.bad").text
