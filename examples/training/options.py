"""Options that all training scripts have."""

import argparse
from typing import Any

from training.devices import parse_mesh
from training.steps import OPTIMIZERS

# Where to compute. These may change when a run continues.
WHERE = ("mesh", "coordinator", "processes", "process_id")


def add_options(parser: argparse.ArgumentParser, **defaults: Any) -> None:
    """Adds the options; `defaults` are those of a script, by name."""
    add = parser.add_argument_group("training").add_argument
    add("--out", help="directory of checkpoints, metrics and results")
    add("--init", metavar="RUN", help="start from the weights of this run")
    add("--steps", type=int, help="training steps")
    add("--batch-size", type=int, help="examples per step")
    add("--optimizer", choices=OPTIMIZERS, default="muon", help="the update rule")
    add("--learning-rate", type=float, help="its highest value")
    add("--weight-decay", type=float, default=1e-2, help="of matrices and kernels only")
    add("--seed", type=int, default=0, help="seed of initial weights and examples")
    add("--save-every", type=int, help="steps between checkpoints")
    add("--log-every", type=int, help="steps between lines of metrics.jsonl")
    add = parser.add_argument_group("computation").add_argument
    add(
        "--dtype",
        choices=("float32", "bfloat16"),
        default="float32",
        help="of the network's computation",
    )
    add("--accumulate", type=int, default=1, metavar="N", help="microbatches per step")
    add("--ema", type=float, default=0.0, metavar="DECAY", help="of averaged weights; 0: none")
    add = parser.add_argument_group("devices and processes").add_argument
    add("--mesh", default="data", help="devices on each axis, such as data=4,model=2")
    add("--processes", type=int, metavar="N", help="number of processes; 1: only this one")
    add("--process-id", type=int, metavar="I", help="number of this process, from 0")
    add("--coordinator", metavar="HOST:PORT", help="address of process 0")
    parser.set_defaults(**defaults)


def at_least_one(parser: argparse.ArgumentParser, args: argparse.Namespace, *names: str) -> None:
    """Ends the program if one of these options is below 1."""
    for name in names:
        if getattr(args, name) < 1:
            parser.error(f"--{name.replace('_', '-')} must be at least 1")


def check_options(parser: argparse.ArgumentParser, args: argparse.Namespace) -> None:
    """Ends the program if an option of `add_options` has a value that it can't have."""
    at_least_one(parser, args, "steps", "batch_size", "save_every", "log_every", "accumulate")
    if args.seed < 0:
        parser.error("--seed must be at least 0")
    if not 0 <= args.ema < 1:
        parser.error("--ema must be at least 0 and less than 1")
    try:
        parse_mesh(args.mesh)
    except ValueError as error:
        parser.error(str(error))
    processes = 1 if args.processes is None else args.processes
    others = args.coordinator is not None, args.process_id is not None
    if processes < 1:
        parser.error("--processes must be at least 1")
    if processes == 1 and any(others):
        parser.error("--coordinator and --process-id need --processes, and more than 1")
    if processes > 1 and not all(others):
        parser.error("--processes needs --coordinator and --process-id")
    if processes > 1 and not 0 <= args.process_id < processes:
        parser.error(f"--process-id must be between 0 and {processes - 1}")
