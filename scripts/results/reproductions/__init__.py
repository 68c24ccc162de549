"""The published figures, rebuilt: our curves over theirs, with a computed verdict.

`python -m scripts.results.reproductions` makes results/reproductions from the packed runs, and
`--run` runs a study of conf/study/reproductions first.
"""
