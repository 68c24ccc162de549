"""Whole steps of a multilayer perceptron, compiled by the machine's C++ compiler."""
