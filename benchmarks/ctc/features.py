"""Memory and time of the CTC loss from features, compared with the loss of all logits.

    python -m benchmarks.ctc.features

The last layer and the loss: value, and gradients with respect to features, kernel and bias, in
float32, jitted. Memory is XLA's own figure for the compiled program (`memory_analysis`): temporary
memory, that is, without features and parameters and without their gradients. The two are timed in
turn, and the ratio is taken in each turn, since other programs on the machine slow both.
"""

import time

import jax
import jax.numpy as jnp
import numpy as np

import jaxctc
from benchmarks.common import finished, options, report, table

MIB = 2**20
LABELS = 60
SHAPES = {"32 000 classes": (8, 400, 256, 32_000), "128 000 classes": (2, 1500, 512, 128_000)}


def of_logits(features, kernel, bias, *pair):
    return jaxctc.ctc_loss(features @ kernel + bias, *pair).mean()


def from_features(features, kernel, bias, *pair):
    return jaxctc.ctc_loss_from_features(lambda x: x @ kernel + bias, features, *pair).mean()


LOSSES = {"all logits": of_logits, "from features": from_features}


def arguments(shape):
    batch, frames, features, classes = shape
    generator = np.random.default_rng(0)
    floats = ((batch, frames, features), (features, classes), (classes,))
    return (
        *[jnp.asarray(generator.standard_normal(s, np.float32) / 16) for s in floats],
        jnp.asarray(generator.integers(1, classes, (batch, LABELS), np.int32)),
        jnp.asarray(generator.integers(frames * 4 // 5, frames + 1, batch, np.int32)),
        jnp.asarray(generator.integers(LABELS // 2, LABELS + 1, batch, np.int32)),
    )


def temporary(program):
    """Bytes of temporary memory of a compiled program."""
    return program.memory_analysis().temp_size_in_bytes


def in_turn(programs, given, rounds):
    """Seconds of each call; turns begin with one and with the other alternately."""
    seconds = {name: [] for name in programs}
    for turn in range(rounds + 1):
        for name in sorted(programs, reverse=turn % 2 == 1):
            start = time.perf_counter()
            finished(programs[name](*given))
            if turn:  # the first fetches memory from the system
                seconds[name].append(time.perf_counter() - start)
    return seconds


def main():
    chosen = options(__doc__, rounds=5, shapes=SHAPES)
    rows: dict[str, list] = {"memory": [], "time": []}
    data = {}
    for name in chosen.only:
        given = arguments(SHAPES[name])
        programs = {
            kind: jax.jit(jax.value_and_grad(loss, argnums=(0, 1, 2))).lower(*given).compile()
            for kind, loss in LOSSES.items()
        }
        bytes_of = {kind: temporary(program) for kind, program in programs.items()}
        seconds = in_turn(programs, given, chosen.rounds)
        ratios = np.divide(seconds["from features"], seconds["all logits"])
        what = [name, str(SHAPES[name])]
        used = [bytes_of[kind] / MIB for kind in LOSSES]
        rows["memory"].append([*what, *used, f"**1/{used[0] / used[1]:.1f}**"])
        medians = [float(np.median(seconds[kind])) for kind in LOSSES]
        quartiles = "{:.2f}–{:.2f}".format(*np.percentile(ratios, (25, 75)))
        rows["time"].append([*what, *medians, f"**{np.median(ratios):.2f}x**", quartiles])
        data[name] = {"bytes": bytes_of, "seconds": seconds, "ratio": float(np.median(ratios))}
    header = ["", "(B, T, D, C)", *LOSSES]
    sections = {
        "Temporary memory of loss and gradients, MiB": table([*header, "share"], rows["memory"]),
        "Loss and gradients, seconds": table([*header, "ratio", "quartiles"], rows["time"]),
    }
    report("ctc.features", sections, data, keep=chosen.only == list(SHAPES))


if __name__ == "__main__":
    main()
