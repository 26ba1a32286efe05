"""Several processes that train one model, each with its own devices."""

import argparse
import contextlib
import importlib.util
import json
import os
import sys
import traceback
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils

# Seconds without a sign of life after which a process is considered dead.
HEARTBEAT_TIMEOUT = 60
STOPPED = 130  # exit status of a run that was stopped


def is_first() -> bool:
    """Whether this is process 0, the one that writes and prints."""
    return jax.process_index() == 0


@contextlib.contextmanager
def joined(args: argparse.Namespace) -> Iterator[None]:
    """A context in which this process is connected to the others, if there are any.

    They are given by the options in `args`, or else found by JAX (SLURM, TPU pods). Only process 0
    prints. If a process fails, it exits at once, and the others lose their connection and exit too.
    """
    alone = not _in_cluster() if args.processes is None else args.processes == 1
    if alone:
        yield
        return
    if not jax.distributed.is_initialized():
        jax.config.update("jax_cpu_collectives_implementation", "gloo")
        jax.distributed.initialize(
            args.coordinator,
            args.processes,
            args.process_id,
            heartbeat_timeout_seconds=HEARTBEAT_TIMEOUT,
        )
    try:
        with contextlib.ExitStack() as quiet:
            if not is_first():
                nothing = quiet.enter_context(Path(os.devnull).open("w"))
                quiet.enter_context(contextlib.redirect_stdout(nothing))
                quiet.enter_context(contextlib.redirect_stderr(nothing))
            yield
    except BaseException as error:
        together = isinstance(error, SystemExit) and error.code in (None, 0, STOPPED)
        if together or jax.process_count() == 1:
            raise
        # On a normal exit JAX would wait for the other processes, which wait for this one.
        if isinstance(error, SystemExit):
            print(error, file=sys.stderr)
        else:
            traceback.print_exc()
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(1)


def _in_cluster() -> bool:
    """Whether JAX can find the other processes: in a SLURM step or on a TPU machine."""
    environment = os.environ
    slurm = {"SLURM_JOB_ID", "SLURM_STEP_NODELIST", "SLURM_PROCID"} <= environment.keys()
    if slurm and int(environment.get("SLURM_NTASKS", 1)) > 1:
        return True
    # JAX reads from the metadata of a TPU machine whether it is part of a pod.
    wanted = "tpu" in (jax.config.jax_platforms or "tpu")  # pyright: ignore
    chips = any(Path("/dev").glob("accel[0-9]*")) or any(Path("/dev/vfio").glob("[0-9]*"))
    return wanted and chips and importlib.util.find_spec("libtpu") is not None


def agree(value: Any, what: str) -> None:
    """Raises SystemExit if `value`, of JSON types, is not the same in all processes."""
    if jax.process_count() == 1:
        return
    mine = np.uint32(zlib.crc32(json.dumps(value, sort_keys=True).encode()))
    values = np.ravel(multihost_utils.process_allgather(mine))
    if others := np.flatnonzero(values != values[0]).tolist():
        raise SystemExit(f"process {others[0]} and process 0 differ in {what}")
