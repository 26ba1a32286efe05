"""Where the numbers that others published are kept, each file with its source."""

from pathlib import Path

DATA = Path(__file__).parent / "data"
VOCABULARY = ["<blank>", "a", "b", "c", "d", "zzz"]  # of small.arpa, and one it does not know
