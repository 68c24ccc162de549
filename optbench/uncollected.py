"""To be imported before all else by a process that only imports: see `optbench.startup`."""

from optbench import startup

startup.begin()
