"""Programs that try to break optbench; each writes one section of results/reliability.

Some hold runs against the tests' loop of plain torch: tests/ is put on the path here.
"""

import sys

from scripts import ROOT

sys.path.append(str(ROOT / "tests"))
