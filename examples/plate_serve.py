"""Serves a reader of plates: a page to drop pictures on, and the same as JSON.

    python examples/plate_serve.py
    curl -F pictures=@PLATE.jpg http://127.0.0.1:8000/read

Needs the `serve` extra. Ctrl-C, or SIGTERM, stops it when all requests that came in are answered.
`plate_clients.py` measures it. See examples/README.md.
"""

import argparse
import sys
from collections.abc import Sequence

from plates import models
from plates.reading import CHECKPOINT_HELP, PUBLISHED, SHIFTS, load_reader
from plates.serving import Reader


def parse_arguments(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description="Serve a reader of plates.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    add = parser.add_argument
    add("--checkpoint", default=PUBLISHED, metavar="RUN", help=CHECKPOINT_HELP)
    add("--host", default="127.0.0.1", help="the address to listen on; by default this machine's")
    add("--port", type=int, default=8000, help="the port to listen on")
    add(
        "--views",
        type=int,
        choices=range(1, len(SHIFTS) + 1),
        default=len(SHIFTS),
        help="read each picture this many times, moved by a pixel or two",
    )
    add("--max-pictures", type=int, default=16, help="pictures in a request")
    add("--max-megabytes", type=float, default=16, help="size of a request")
    args = parser.parse_args(arguments)
    if not 0 < args.port < 2**16:
        parser.error("--port must be between 1 and 65535")
    for name in ("max_pictures", "max_megabytes"):
        if getattr(args, name) <= 0:
            parser.error(f"--{name.replace('_', '-')} must be positive")
    return args


def main(arguments: Sequence[str] | None = None) -> None:
    args = parse_arguments(arguments)
    try:
        from aiohttp import web

        from plates.web import Limits, application
    except ImportError as error:
        raise SystemExit(f"{error}: install the `serve` extra") from error
    model, charset = load_reader(args.checkpoint)
    if models.mixes_images(model):
        raise SystemExit(
            f"{args.checkpoint}: its reading of an image depends on the others of its batch; "
            "train it with plate_train.py --init"
        )
    print("compiling …", file=sys.stderr, flush=True)
    reader = Reader(model, charset, views=args.views)
    limits = Limits(args.max_pictures, args.max_megabytes)
    say = lambda text: print(text, file=sys.stderr, flush=True)  # noqa: E731
    try:
        web.run_app(
            application(reader, limits), host=args.host, port=args.port, print=say, access_log=None
        )
    except OSError as error:
        raise SystemExit(f"{args.host}:{args.port}: {error.strerror}") from error


if __name__ == "__main__":
    main()
