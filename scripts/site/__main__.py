"""Build the documentation site, strictly.

    python -m scripts.site [FOLDER]

Any warning is an error. So is a link within the site that leads nowhere, and a picture without a
text alternative. FOLDER is build/site by default.
"""

import argparse
import sys
from pathlib import Path

from sphinx.cmd.build import build_main

from scripts import ROOT

STRICT = ("--fail-on-warning", "--keep-going", "--nitpicky", "--fresh-env", "--quiet")


def main() -> int:
    """Build the site; return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", nargs="?", type=Path, default=ROOT / "build" / "site")
    out = parser.parse_args().folder.resolve()
    places = ["--conf-dir", str(ROOT / "docs"), "--doctree-dir", str(out.parent / "doctrees")]
    status = build_main([*STRICT, *places, "--builder", "html", str(ROOT), str(out)])
    if status == 0:
        print(f"site: {out / 'index.html'}")
    return int(status)


if __name__ == "__main__":
    sys.exit(main())
