"""Options of both training scripts: precision, memory, devices and processes."""

import argparse

from training.devices import parse_mesh

# Where to compute. These may change when a run continues.
WHERE = ("mesh", "coordinator", "processes", "process_id")


def add_options(parser: argparse.ArgumentParser) -> None:
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


def at_least_one(parser: argparse.ArgumentParser, args: argparse.Namespace, *names: str) -> None:
    """Ends the program if one of these options is below 1."""
    for name in names:
        if getattr(args, name) < 1:
            parser.error(f"--{name.replace('_', '-')} must be at least 1")


def check_options(parser: argparse.ArgumentParser, args: argparse.Namespace) -> None:
    at_least_one(parser, args, "accumulate")
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
