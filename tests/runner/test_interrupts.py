"""Ctrl-C before a run has begun ends the command with status 130, wherever it comes."""

import subprocess
import sys

PROGRAM = """
import signal, sys
from optbench.runner import interrupts

signal.signal(signal.SIGINT, interrupts.first)
try:
    exec("import os, signal; os.kill(os.getpid(), signal.SIGINT)\\nwhile True: pass")
except KeyboardInterrupt:
    sys.exit(130)
"""


def test_ctrl_c_in_a_string_that_a_library_executes_ends_with_130(tmp_path):
    (tmp_path / "program.py").write_text(PROGRAM)
    call = [sys.executable, "-m", "program"]
    ended = subprocess.run(call, cwd=tmp_path, capture_output=True, timeout=60)
    assert (ended.returncode, ended.stderr) == (130, b"")
