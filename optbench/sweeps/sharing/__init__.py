"""A study that several processes, on any number of machines, work on together.

Each of them runs the whole program: it composes the same jobs in the same order, and draws the same
points. A job that another one has claimed is left to it, and its result is taken from its folder.
So a phase of a tuned study begins when the one before it is whole, whoever has finished it.
"""
