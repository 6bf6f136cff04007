"""Benchmarks beside peers. Each prints what it measured, on which machine."""
