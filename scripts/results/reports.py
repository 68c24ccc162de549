"""Pictures of reports, by Playwright and Chromium."""

import os
import shutil
from pathlib import Path

from PIL import Image

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")


def picture(page: Path, out: Path, width: int = 1240, height: int = 1530) -> None:
    """Save a picture of the top of the page, at its ordinary size."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        path = next((found for found in map(shutil.which, NAMES) if found), None)
        arguments = ["--no-sandbox"] if os.geteuid() == 0 else []  # the sandbox fails as root
        browser = playwright.chromium.launch(executable_path=path, args=arguments)
        tab = browser.new_page(viewport={"width": width, "height": height})
        tab.goto(page.as_uri())
        tab.wait_for_selector("#curves canvas")
        # Close the sections, so that the curves are in the picture.
        tab.evaluate(
            "document.querySelectorAll('details').forEach((node) => { node.open = false; })"
        )
        tab.screenshot(path=out)
        browser.close()
    with Image.open(out) as image:
        small = image.convert("RGB").quantize(
            128, Image.Quantize.MAXCOVERAGE
        )  # a third of the bytes
    small.save(out, optimize=True)
    print(f"{out}: {out.stat().st_size} bytes")
