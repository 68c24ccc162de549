"""Tables of numeric and nominal columns, from files and frames."""
