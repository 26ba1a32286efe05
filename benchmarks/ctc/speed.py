"""Speed of the CTC loss, compared with optax's and torch's.

    python -m benchmarks.ctc.speed

Loss and gradient with respect to the logits, and the loss alone, jitted, on ragged batches; torch
with its log_softmax and two threads; with default memory pages and with huge pages.
Then: how time grows with each size, the time above the floor, the time of a call on a tiny
input, and the time of compiling.
"""

import concurrent.futures
import multiprocessing
import os
import time
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.common import (
    SHAPES,
    Shape,
    finished,
    geometric_mean,
    options,
    random_batch,
    read_once,
    report,
    table,
    time_in_turn,
    write_once,
)
from benchmarks.ctc.contestants import JAX_LOSSES, contestants, jax_functions


def to_the_faster_peer(timings):
    """The time of the faster of the two peers, divided by ours."""
    return min(timings["optax"].median, timings["torch"].median) / timings["jaxctc"].median


def against_peers(names, rounds):
    """A table for each of loss and gradient, and loss alone."""
    rows: dict[str, list] = {"Loss and gradient": [], "Loss alone": []}
    data = {}
    for name in names:
        shape = SHAPES[name]
        alone, both = contestants(random_batch(shape))
        for heading, functions in (("Loss and gradient", both), ("Loss alone", alone)):
            timings = time_in_turn(functions, rounds)
            ratio = to_the_faster_peer(timings)
            rows[heading].append([name, str(tuple(shape)), *timings.values(), f"**{ratio:.2f}x**"])
            data[f"{name}, {heading.lower()}"] = {
                "milliseconds": {k: t._asdict() for k, t in timings.items()},
                "ratio": ratio,
            }
    header = ["", "(T, B, C, S)", "jaxctc", "optax", "torch", "to the faster peer"]
    return {f"{k}, milliseconds": table(header, r) for k, r in rows.items()}, data


def with_huge_pages(names, rounds):
    """The same in a process whose memory comes in huge pages, if the system has them.

    The memory of a large new array is fetched from the system page by page at every call, and for
    some shapes that takes longer than filling it.
    """
    huge = {"GLIBC_TUNABLES": "glibc.malloc.hugetlb=1"}  # read when a process starts
    spawn = multiprocessing.get_context("spawn")
    with mock.patch.dict(os.environ, huge), concurrent.futures.ProcessPoolExecutor(1, spawn) as one:
        sections, data = one.submit(against_peers, names, rounds).result()
    return {f"{k}, with huge pages": text for k, text in sections.items()}, data


def in_place(names, rounds):
    """Loss and gradient where the gradient may take the logits' memory, as in a training step.

    There the logits are not an argument but an intermediate array. Here they are donated, and the
    gradient of each call is the logits of the next one.
    """
    rows, data = [], {}
    for name in names:
        batch = random_batch(SHAPES[name])
        functions = {}
        for contestant, loss in JAX_LOSSES.items():
            logits, *rest = (jnp.asarray(x) for x in batch)
            donating = jax.jit(jax_functions(loss)[1], donate_argnums=0)
            held = [jnp.array(logits)]

            def call(f=donating, held=held, rest=tuple(rest)):
                held.append(finished(f(held.pop(), *rest)[1]))

            functions[contestant] = call
        functions["torch"] = contestants(batch)[1]["torch"]
        timings = time_in_turn(functions, rounds)
        ratio = to_the_faster_peer(timings)
        rows.append([name, *timings.values(), f"**{ratio:.2f}x**"])
        data[name] = {
            "milliseconds": {k: t._asdict() for k, t in timings.items()},
            "ratio": ratio,
        }
    return table(["", "jaxctc", "optax", "torch, as above", "to the faster peer"], rows), data


def growth(rounds):
    """Time of loss and gradient as one size at a time grows fourfold."""
    base = Shape(400, 16, 128, 60)
    rows, data = [], {}
    for field in Shape._fields:
        row: list[object] = [{"frames": "T", "batch": "B", "classes": "C", "labels": "S"}[field]]
        for factor in (1, 4):
            size = getattr(base, field) * factor
            shape = base._replace(**{field: size})
            if field == "labels":
                shape = shape._replace(frames=800)
            timing = time_in_turn(
                {"jaxctc": contestants(random_batch(shape))[1]["jaxctc"]}, rounds
            )["jaxctc"]
            row += [str(tuple(shape)), timing.median]
            data[f"{row[0]}, {tuple(shape)}"] = timing._asdict()
        rows.append([*row, f"{row[4] / row[2]:.2f}x"])  # type: ignore[operator]
    return table(["grows", "(T, B, C, S)", "ms", "(T, B, C, S)", "ms", "ratio"], rows), data


def floor(names, rounds):
    """Each shape compared with the floor, the least work on its logits."""
    rows, data = [], {}
    for name in names:
        batch = random_batch(SHAPES[name])
        logits = jnp.asarray(batch.logits)
        alone, both = contestants(batch)
        timings = time_in_turn(
            {
                "read": lambda x=logits: finished(read_once(x)),
                "loss": alone["jaxctc"],
                "write": lambda x=logits: finished(write_once(x)),
                "gradient": both["jaxctc"],
            },
            rounds,
        )
        data[name] = {k: t._asdict() for k, t in timings.items()}
        row: list[object] = [name]
        for ours, bound in (("loss", "read"), ("gradient", "write")):
            ratio = timings[ours].median / timings[bound].median
            row += [timings[ours].median, timings[bound].median, f"{ratio:.2f}x"]
        rows.append(row)
    header = ["", "loss, ms", "floor, ms", "ratio", "and gradient, ms", "floor, ms", "ratio"]
    return table(header, rows), data


def dispatch(rounds):
    """Microseconds of a call on a tiny input."""
    arguments = [jnp.asarray(x) for x in random_batch(Shape(4, 1, 4, 1))]
    functions = {}
    for name, loss in JAX_LOSSES.items():
        functions[name] = lambda f=loss: finished(f(*arguments))
        jitted = jax.jit(loss)
        functions[f"{name}, jitted"] = lambda f=jitted: finished(f(*arguments))
    timings = time_in_turn(functions, rounds, calls=20)
    rows = [
        [name, 1e3 * t.median, f"{1e3 * t.lower:.3g}–{1e3 * t.upper:.3g}"]
        for name, t in timings.items()
    ]
    data = {name: t._asdict() for name, t in timings.items()}
    return table(["", "µs a call", "quartiles"], rows), data


def compiling(names, repeats=5):
    """Seconds to trace and compile loss and gradient."""
    rows, data = [], {}
    shapes = {name: SHAPES[name] for name in names}
    shapes["character speech, 8 times as long"] = SHAPES["character speech"]._replace(frames=12000)
    for name, shape in shapes.items():
        batch = random_batch(shape)
        structs = [jax.ShapeDtypeStruct(x.shape, x.dtype) for x in batch]
        seconds: dict[str, list[float]] = {n: [] for n in JAX_LOSSES}
        for _ in range(repeats):
            for contestant, loss in JAX_LOSSES.items():
                jax.clear_caches()
                start = time.perf_counter()
                jax_functions(loss)[1].lower(*structs).compile()
                seconds[contestant].append(time.perf_counter() - start)
        medians = {n: float(np.median(s)) for n, s in seconds.items()}
        ratio = medians["jaxctc"] / medians["optax"]
        rows.append([name, medians["jaxctc"], medians["optax"], f"{ratio:.2f}x"])
        data[name] = seconds
    return table(["", "jaxctc, s", "optax, s", "ratio"], rows), data


def main():
    arguments = options(__doc__, rounds=9, shapes=SHAPES)
    sections, data = against_peers(arguments.only, arguments.rounds)
    ratios = {k: v["ratio"] for k, v in data.items()}
    print(
        {k: round(v, 2) for k, v in ratios.items()},
        f"mean {geometric_mean(list(ratios.values())):.2f}x\n",
    )
    more, data["huge pages"] = with_huge_pages(arguments.only, arguments.rounds)
    sections.update(more)
    heading = "Loss and gradient, milliseconds, the gradient in the memory of the logits"
    sections[heading], data["in place"] = in_place(arguments.only, arguments.rounds)
    parts = {
        "How loss and gradient grow, one size at a time": growth(max(3, arguments.rounds // 2)),
        "Above the floor: read the logits, and write the gradient, one exp each": floor(
            arguments.only, arguments.rounds
        ),
        "A call on a tiny input": dispatch(arguments.rounds),
        "Compiling loss and gradient": compiling(arguments.only),
    }
    for heading, (text, numbers) in parts.items():
        sections[heading], data[heading] = text, numbers
    report("ctc.speed", sections, data, keep=arguments.only == list(SHAPES))


if __name__ == "__main__":
    main()
