"""Make the report of results/comparison, and pictures of reports.

The runs are not committed: `python -m scripts.results.mnist_comparison` makes them. A picture needs
Playwright and Chromium.
"""

import argparse
import os
import shutil
import sys
from pathlib import Path

from PIL import Image

from optbench.common.errors import UserError
from optbench.report import page as report
from scripts import ROOT

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
REPORTS = {  # folder of results/: title, and where the runs' folders lie in it
    "comparison": ("Seven optimizers on the full MNIST", "runs/final-*"),
}


def main() -> int:
    """Make the reports; return exit status 1 if a report's runs are missing."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", help=f"of {', '.join(REPORTS)} (default: all)")
    status = 0
    for name in parser.parse_args().names or REPORTS:
        title, pattern = REPORTS[name]
        base = ROOT / "results" / name
        folders = sorted(base.glob(pattern))
        try:
            written = report.write(folders, base / "report.html", title=title)
        except UserError as error:
            print(f"{name}: {error}", file=sys.stderr)
            status = 1
            continue
        print(f"{written.path}: {written.runs} runs, {written.path.stat().st_size} bytes")
    return status


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


if __name__ == "__main__":
    sys.exit(main())
