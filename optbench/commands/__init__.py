"""The sub-commands: arguments and files, then one call each."""
