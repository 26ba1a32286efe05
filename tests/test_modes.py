"""Every public function works in every mode of JAX: see `modes_table.py`, which runs here."""

import subprocess
import sys
from pathlib import Path

from modes import CASES, HOST, public_functions

TABLE = Path(__file__).parent / "modes_table.py"


def test_every_public_function_is_in_the_table():
    assert public_functions() == CASES.keys() | HOST.keys()


def test_the_table():
    """In a separate process, since the number of devices is fixed when jax starts."""
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(TABLE)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=TABLE.parent.parent)
    assert done.returncode == 0, done.stdout + done.stderr
