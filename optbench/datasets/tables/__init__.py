"""Tables of numeric and nominal columns: files, frames, and what the training part decides."""
