"""What is measured of the package, beside its peers. Each module is run by its name, from the root:

    python -m benchmarks.ctc.speed

`run.py` runs all, and writes docs/benchmarks.md and the tables of README.md from `results/`.
"""
