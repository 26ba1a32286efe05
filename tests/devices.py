"""A CPU that looks like several devices."""

import os
import subprocess
import sys


def flags(devices: int) -> str:
    """XLA_FLAGS of a process with so many devices, beside those of this one."""
    return f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count={devices}"


def run_on_eight_devices(program):
    """In a separate process, since the number of devices is fixed when jax starts."""
    environment = {
        **os.environ,
        "JAX_PLATFORMS": "cpu",
        "XLA_FLAGS": flags(8),
        "PYTHONPATH": os.path.dirname(__file__),
    }
    done = subprocess.run(
        [sys.executable, "-c", program], env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
