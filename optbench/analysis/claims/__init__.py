"""Claims of studies, judged by their runs."""
