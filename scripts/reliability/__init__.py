"""Programs that try to break optbench, each for a section of results/reliability.

Some compare runs with the tests' loop of plain torch, so tests/ is added to the path here.
"""

import sys

from scripts import ROOT

sys.path.append(str(ROOT / "tests"))
