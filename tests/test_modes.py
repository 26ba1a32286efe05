"""Every public function works in every mode of JAX, which is what `modes_table.py` tests.

The columns that take the most of a function run here, for a function of each kind. All columns of
all functions take more than eight minutes of one core, so `.ci/run` runs them apart.
"""

import subprocess
import sys
from pathlib import Path

from modes import CASES, HOST, public_functions

TABLE = Path(__file__).parent / "modes_table.py"


def test_every_public_function_is_in_the_table():
    assert public_functions() == CASES.keys() | HOST.keys()


COLUMNS = "test_shard_map", "test_explicit_mesh"
FUNCTIONS = "ctc_loss", "forced_align", "ctc_beam_search", "rnnt_loss", "edit_operations"


def test_the_table():
    """In a process of its own, since the number of devices is settled when jax starts."""
    tests = [f"{TABLE}::{column}[{name}]" for column in COLUMNS for name in FUNCTIONS]
    tests.append(f"{TABLE}::test_on_the_host")
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *tests]
    done = subprocess.run(command, capture_output=True, text=True, cwd=TABLE.parent.parent)
    assert done.returncode == 0, done.stdout + done.stderr
