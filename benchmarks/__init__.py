"""Benchmarks beside peers, each in an environment of its own; see `run` and `table`.

Importing this package loads nothing, so that its workers run where Luthier is not installed.
"""
