"""Speed and memory of the transducer loss.

    python -m benchmarks.transducer.speed

Loss and gradient with respect to the logits, on ragged batches, compared with warprnnt-numba (CPU,
its log_softmax included) and a plain log-space scan over the diagonals in JAX; and with torch's
log_softmax and its backward pass on the same logits, a unit in which times of another machine can
be compared. Then memory: the loss compared with its logits, and the chunked joint and the pruned
loss compared with the full one as frames, labels and classes grow.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

import jaxctc
from benchmarks.common import finished, options, report, table, time_in_turn, write_once

MIB = 2**20


class Shape(NamedTuple):
    """A batch of ragged pairs."""

    batch: int
    frames: int
    labels: int
    classes: int


# Milliseconds that torchaudio's CPU kernel was reported to take on a 2-core machine.
TORCHAUDIO = {
    Shape(4, 200, 50, 500): 1014,
    Shape(8, 100, 20, 128): 107,
    Shape(2, 400, 100, 500): 1980,
}


def random_batch(shape: Shape):
    """Logits, labels, frames and label lengths: 80–100 % of the frames, 50–100 % of the labels."""
    generator = np.random.default_rng(0)
    batch, frames, labels, classes = shape
    lengths = generator.integers(labels // 2, labels + 1, batch, np.int32)
    spoken = generator.integers(int(0.8 * frames), frames + 1, batch, np.int32)
    lengths[0], spoken[0] = labels, frames
    return (
        generator.standard_normal((batch, frames, labels + 1, classes), np.float32),
        generator.integers(1, classes, (batch, labels), np.int32),
        spoken,
        lengths,
    )


def plain(logits, labels, frames, lengths):
    """The textbook recursion in log-space, over diagonals, differentiated by jax."""
    batch, times, spaces, _ = logits.shape
    log_probs = jax.nn.log_softmax(logits)
    blank = log_probs[..., 0]
    index = jnp.pad(labels, ((0, 0), (0, 1)))[:, None, :, None]
    label = jnp.take_along_axis(log_probs, index, axis=3)[..., 0]
    inside = jnp.arange(times)[None, :, None] < frames[:, None, None]
    blank, label = jnp.where(inside, blank, 0.0), jnp.where(inside, label, -1e30)
    u = jnp.arange(spaces)

    def diagonal(x, n, fill):
        t = n - u
        rows = x[:, jnp.clip(t, 0, times - 1), u]
        return jnp.where((t >= 0) & (t < times), rows, fill)

    def step(alpha, n):
        moving = alpha + diagonal(label, n, -1e30)
        moving = jnp.concatenate([jnp.full((batch, 1), -1e30), moving[:, :-1]], axis=1)
        return jnp.logaddexp(alpha + diagonal(blank, n, 0.0), moving), None

    start = jnp.where(u == 0, 0.0, -1e30) * jnp.ones((batch, 1))
    alpha, _ = jax.lax.scan(step, start, jnp.arange(times + spaces - 1))
    return -jnp.take_along_axis(alpha, lengths[:, None], axis=1)[:, 0]


def jax_function(loss):
    """Jitted: the summed loss and its gradient."""
    return jax.jit(jax.value_and_grad(lambda *arguments: loss(*arguments).sum()))


def contestants(batch):
    """By name, functions that compute loss and gradient; warprnnt-numba separately."""
    import torch
    from warprnnt_numba import RNNTLossNumba

    torch.set_num_threads(2)
    arrays = [jnp.asarray(x) for x in batch]
    functions = {}
    for name, loss in (("jaxctc", jaxctc.rnnt_loss), ("plain scan", plain)):
        jitted = jax_function(loss)
        functions[name] = lambda f=jitted: finished(f(*arrays))
    logits = torch.tensor(batch[0], requires_grad=True)
    rest = [torch.tensor(x) for x in batch[1:]]
    loss = RNNTLossNumba(blank=0, reduction="sum")
    ones = torch.ones_like(logits)

    def numba():
        logits.grad = None
        loss(logits, *rest).backward()

    def softmax():
        logits.grad = None
        torch.nn.functional.log_softmax(logits, dim=-1).backward(ones)

    functions |= {
        "log_softmax": softmax,
        "floor": lambda: finished(write_once(arrays[0])),
        **halves(arrays),
    }
    return functions, numba


def halves(arrays):
    """By name, functions that compute the two halves of loss and gradient."""
    to_arcs = jax.jit(jaxctc.rnnt_log_probs)
    arcs = to_arcs(*arrays)

    @jax.jit
    def there_and_back(logits, cotangents):
        value, pullback = jax.vjp(lambda logits: to_arcs(logits, *arrays[1:]), logits)
        return value, pullback(cotangents)

    from_arcs = jax.jit(
        jax.value_and_grad(lambda arcs: jaxctc.rnnt_loss_from_log_probs(*arcs, *arrays[2:]).sum())
    )
    return {
        "arcs": lambda: finished(there_and_back(arrays[0], arcs)),
        "lattice": lambda: finished(from_arcs(arcs)),
    }


def speed(rounds):
    rows, scaled, floors, by_half, data = [], [], [], [], {}
    for shape, torchaudio in TORCHAUDIO.items():
        batch = random_batch(shape)
        functions, numba = contestants(batch)
        timings = time_in_turn(functions, rounds)
        # A call of warprnnt-numba takes seconds, and only its order of magnitude matters.
        slow = time_in_turn({"jaxctc": functions["jaxctc"], "warprnnt-numba": numba}, 2, calls=1)
        timings["warprnnt-numba"] = slow["warprnnt-numba"]
        median = {name: t.median for name, t in timings.items()}
        ratios = {
            "plain scan": median["plain scan"] / median["jaxctc"],
            "warprnnt-numba": slow["warprnnt-numba"].median / slow["jaxctc"].median,
        }
        name = str(tuple(shape))
        times = [timings[n] for n in ("jaxctc", "plain scan", "warprnnt-numba")]
        rows.append([name, *times, *(f"**{r:.3g}x**" for r in ratios.values())])
        units = [t / median["log_softmax"] for t in (median["jaxctc"], torchaudio)]
        scaled.append([name, timings["log_softmax"], *units])
        over = [f"{median[n] / median['floor']:.2f}x" for n in ("jaxctc", "plain scan")]
        floors.append([name, timings["floor"], *over])
        without_lattice = f"{median['plain scan'] / median['arcs']:.2f}x"
        by_half.append([name, timings["arcs"], timings["lattice"], without_lattice])
        data[name] = {
            "milliseconds": {k: t._asdict() for k, t in timings.items()},
            "ratios": ratios,
        }
    header = ["(B, T, U, C)", "jaxctc", "plain scan", "warprnnt-numba"]
    header += ["to the plain scan", "to warprnnt-numba"]
    sections = {
        "Loss and gradient, milliseconds": table(header, rows),
        "In units of torch's log_softmax and backward of the same logits": table(
            ["(B, T, U, C)", "log_softmax, ms", "jaxctc", "torchaudio's reported time"], scaled
        ),
        "Above the floor: read the logits and write the gradient, one exp each": table(
            ["(B, T, U, C)", "floor, ms", "jaxctc", "plain scan"], floors
        ),
        "The halves of loss and gradient, milliseconds": table(
            ["(B, T, U, C)", "logits to arcs", "arcs to loss", "plain scan to the first half"],
            by_half,
        ),
    }
    return sections, data


def temporary(function, *structs):
    """MiB of temporary memory of a jitted function."""
    return function.lower(*structs).compile().memory_analysis().temp_size_in_bytes / MIB


def loss_memory():
    rows, data = [], {}
    for shape in TORCHAUDIO:
        batch = [jax.ShapeDtypeStruct(x.shape, x.dtype) for x in random_batch(shape)]
        logits = batch[0].size * 4 / MIB
        ours, theirs = (temporary(jax_function(f), *batch) for f in (jaxctc.rnnt_loss, plain))
        rows.append([str(tuple(shape)), logits, ours, ours / logits, theirs])
        data[str(tuple(shape))] = {"logits": logits, "jaxctc": ours, "plain scan": theirs}
    header = ["(B, T, U, C)", "logits", "jaxctc", "as share of the logits", "plain scan"]
    return {"Loss and gradient, temporary memory in MiB": table(header, rows)}, data


def joint_memory(width=256, s_range=5):
    """A joint network of tanh and one layer; gradients of its weights and of both inputs."""
    rows, data = [], {}
    for shape in (Shape(4, 100, 25, 500), Shape(4, 200, 50, 500), Shape(4, 400, 100, 500),
                  Shape(4, 400, 100, 2000)):  # fmt: skip
        batch, frames, labels, classes = shape
        floats = [(width, classes), (batch, frames, width), (batch, labels + 1, width)]
        structs = [jax.ShapeDtypeStruct(s, jnp.float32) for s in floats]
        structs += [jax.ShapeDtypeStruct((batch, labels), jnp.int32)]

        def full(weights, encoder, predictor, spoken):
            logits = jnp.tanh(encoder[:, :, None] + predictor[:, None]) @ weights
            return jaxctc.rnnt_loss(logits, spoken)

        def chunked(weights, encoder, predictor, spoken):
            def joint(e, p):
                return jnp.tanh(e + p) @ weights

            return jaxctc.rnnt_loss_from_joint(joint, encoder, predictor, spoken)

        def pruned(weights, encoder, predictor, spoken):
            simple = jaxctc.rnnt_simple_log_probs(encoder @ weights, predictor @ weights, spoken)
            ranges = jaxctc.rnnt_prune_ranges(*jaxctc.rnnt_posteriors(*simple), s_range=s_range)
            kept = jaxctc.rnnt_prune(encoder, predictor, ranges)
            logits = jnp.tanh(kept.encoder + kept.predictor) @ weights
            loss = jaxctc.rnnt_loss_pruned(logits, spoken, ranges)
            return loss + jaxctc.rnnt_loss_from_log_probs(*simple)

        taken = []
        for loss in (full, chunked, pruned):
            gradients = jax.jit(jax.grad(lambda *x, f=loss: f(*x).sum(), argnums=(0, 1, 2)))
            taken.append(temporary(gradients, *structs))
        logits = batch * frames * (labels + 1) * classes * 4 / MIB
        rows.append([str(tuple(shape)), logits, *taken])
        data[str(tuple(shape))] = dict(zip(("full", "chunked", "pruned"), taken, strict=True))
    header = ["(B, T, U, C)", "logits", "`rnnt_loss`", "`rnnt_loss_from_joint`"]
    header += [f"simple and pruned, s_range {s_range}"]
    return {"Training a joint network, temporary memory in MiB": table(header, rows)}, data


def main():
    rounds = options(__doc__, rounds=9).rounds
    sections, data = {}, {}
    for part in (speed(rounds), loss_memory(), joint_memory()):
        sections.update(part[0])
        data[next(iter(part[0]))] = part[1]
    report("transducer.speed", sections, data)


if __name__ == "__main__":
    main()
