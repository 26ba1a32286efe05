"""Benchmarks of the package and its peers. Run a module by its name from the repository's root:

    python -m benchmarks.ctc.speed

`run.py` runs all, and writes docs/benchmarks.md and the tables of README.md from `results/`.
"""
