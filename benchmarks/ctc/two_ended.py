"""Speed of the lattice run from both ends to the middle, compared with the package's.

    python -m benchmarks.ctc.two_ended

The CTC lattice read backwards is the lattice of the reversed labels. Both halves then run as one
batch, twice as wide with half as many steps, and are joined in the middle. The loss is the same.
The package does this only if it is faster, which is measured here.
"""

import jax
import jax.numpy as jnp
from jax import lax

from benchmarks.common import SHAPES, finished, options, random_batch, report, table, time_in_turn
from benchmarks.ctc.contestants import ours
from jaxctc.core import recursion, semirings, xfloat
from jaxctc.core.semirings import PROBABILITY
from jaxctc.ctc.lattice import CTCTopology, lattice


class TwoEnded(CTCTopology):
    """Twice the batch: the sequences from the front, then the same from the back."""

    def start(self, semiring, dtype):
        # Reversed, the padding of the labels comes first, so the lattice starts after it.
        batch = self.label_lengths.size // 2
        spaces = self.skip.shape[self.axis]
        behind = spaces - 1 - self.label_lengths[batch:]
        first = jnp.concatenate([jnp.zeros(batch, jnp.int32), behind])
        nothing = semiring.zeros(self.skip.shape, dtype)
        place = lax.broadcasted_iota(jnp.int32, self.skip.shape, self.axis)
        one = semiring.ones(self.skip.shape, dtype)
        blank = semirings.where(place == jnp.expand_dims(first, self.axis), one, nothing)
        return (blank, nothing), super().start(semiring, dtype)[1]

    def finish(self, semiring, state):
        """Weight of all arcs from the front half's states into the back half's, [B]."""
        axis, batch = self.axis, self.label_lengths.size // 2

        def half(weight, index):
            cut = (index * batch, (index + 1) * batch)
            return jax.tree.map(lambda x: lax.slice_in_dim(x, *cut, axis=1 - axis), weight)

        blank, label = (half(w, 0) for w in state)
        after_blank, after_label = (
            jax.tree.map(lambda x: jnp.flip(x, axis), half(w, 1)) for w in state
        )
        padding = [(-1, 1, 0) if d == axis else (0, 0, 0) for d in range(2)]
        zero = semiring.zeros((), label.mantissa.dtype)
        next_label = jax.tree.map(lambda x, fill: lax.pad(x, fill, padding), label, zero)
        either = semiring.plus(blank, label)
        skip = lax.slice_in_dim(self.skip, 0, batch, axis=1 - axis)
        into_label = semiring.plus(next_label, semirings.where(skip, either, blank))
        met = semiring.plus(
            semiring.times(either, after_blank), semiring.times(into_label, after_label)
        )
        top = jnp.max(met.exponent, axis, keepdims=True)
        top = jnp.where(top > -jnp.inf, top, 0)
        # Slower than aligning by bits, but done once.
        total = jnp.sum(met.mantissa * jnp.exp2(met.exponent - top), axis)
        return xfloat.XFloat(total, jnp.squeeze(top, axis))


jax.tree_util.register_dataclass(TwoEnded, ["skip", "label_lengths"], ["axis"])


def two_ended(logits, labels, logit_lengths, label_lengths):
    """The losses [B] of `ctc_loss` with blank 0, for feasible pairs."""
    topology, scores, *_ = lattice(logits, labels, logit_lengths, label_lengths, 0)
    axis, batch = topology.axis, labels.shape[0]
    if scores.shape[0] % 2:
        scores = jnp.concatenate([scores, topology.neutral[None]])
    front, back = jnp.split(scores, 2)
    back = jnp.flip(back, 0)
    blank, label = jnp.split(back, [1], axis=axis + 1)
    back = jnp.concatenate([blank, jnp.flip(label, axis + 1)], axis=axis + 1)
    both = TwoEnded(
        jnp.concatenate([topology.skip, jnp.flip(topology.skip, axis)], 1 - axis),
        jnp.concatenate([label_lengths, label_lengths]),
        axis,
    )
    # The two halves of a sequence have one scale each: they are added after the join.
    state, scale, _ = recursion._scan(
        both, jnp.concatenate([front, back], 2 - axis), PROBABILITY, lambda state, scale: None
    )
    exponent = jnp.squeeze(scale.exponent, axis)
    total = both.finish(PROBABILITY, state)
    exponent = total.exponent + exponent[:batch] + exponent[batch:]
    return -PROBABILITY.to_log(xfloat.XFloat(total.mantissa, exponent))


def main():
    arguments = options(__doc__, rounds=9, shapes=SHAPES)
    rows, data = [], {}
    for name in arguments.only:
        batch = [jnp.asarray(x) for x in random_batch(SHAPES[name])]
        functions, values = {}, []
        for contestant, loss in (("one end", ours), ("both ends", two_ended)):
            both = jax.jit(jax.value_and_grad(lambda *a, f=loss: f(*a).sum()))
            functions[contestant] = lambda f=both, a=batch: finished(f(*a))
            values.append(both(*batch))
        difference = float(jnp.abs(values[0][1] - values[1][1]).max())
        timings = time_in_turn(functions, arguments.rounds)
        one, two = timings["one end"].median, timings["both ends"].median
        rows.append([name, one, two, f"{one / two:.2f}x", f"{difference:.0e}"])
        data[name] = {k: t._asdict() for k, t in timings.items()}
    header = ["", "from one end, ms", "from both, ms", "gain", "gradients differ by"]
    sections = {"Loss and gradient": table(header, rows)}
    report("ctc.two_ended", sections, data, keep=arguments.only == list(SHAPES))


if __name__ == "__main__":
    main()
