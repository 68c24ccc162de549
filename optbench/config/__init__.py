"""From command line and YAML to checked, built objects."""
