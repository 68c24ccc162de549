"""From a command line and YAML files to checked, built objects."""
