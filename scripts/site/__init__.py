"""Parts of the documentation site: extensions of Sphinx that `docs/conf.py` names."""
