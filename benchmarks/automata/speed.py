"""Speed of the total weight of an automaton's paths, compared with dense matrices.

    python -m benchmarks.automata.speed

Loss and gradient with respect to the scores of 42 classes, jitted, eight sequences of 200 frames.
Peers work on the matrix of all pairs of states: one in log-space; one with matrix products and one
scale per frame, as plain floats allow, which loses states that are less probable than 1e-38 of the
best. Memory is XLA's temporary memory.
"""

import argparse

import jax
import jax.numpy as jnp
import numpy as np

import jaxctc
from benchmarks.common import finished, report, table, time_in_turn

FRAMES, BATCH, CLASSES = 200, 8, 42


def random_graph(states: int, arcs: int, seed: int = 0) -> jaxctc.Fsa:
    """Arcs at random, all into a state with the same label."""
    generator = np.random.default_rng(seed)
    pairs = generator.choice(states * states, arcs, replace=False)
    source, destination = np.divmod(pairs, states)
    label = generator.integers(0, CLASSES, states)[destination]
    weight = generator.normal(-2, 1, arcs)
    return jaxctc.Fsa.from_arcs(
        np.stack([source, destination, label, weight], axis=1),
        start=range(states),
        final=range(states),
    )


def language_graph(sequences: int, seed: int = 0) -> jaxctc.Fsa:
    """A CTC denominator of an unsmoothed trigram model of random, but uneven, sequences."""
    generator = np.random.default_rng(seed)
    likely = 1 / np.arange(1, CLASSES) ** 2
    likely /= likely.sum()
    order = np.array([generator.permutation(CLASSES - 1) for _ in range(CLASSES)])
    labels = []
    for _ in range(sequences):
        sequence, last = [], 0
        for place in generator.choice(CLASSES - 1, 20, p=likely):
            last = int(order[last, place]) + 1
            sequence.append(last)
        labels.append(sequence)
    return jaxctc.ctc_denominator(labels, order=3, discount=0)


def dense_arrays(fsa: jaxctc.Fsa) -> tuple[np.ndarray, np.ndarray]:
    """Weights ``[S, S]`` and the label of each state, of a graph without parallel arcs."""
    states = len(fsa.final)
    weight = np.full((states, states), -np.inf, np.float32)
    weight[fsa.source, fsa.destination] = fsa.weight
    label = np.zeros(states, np.int32)
    label[fsa.destination] = fsa.label
    return weight, label


def checkpointed_scan(step, state, log_probs):
    """A scan in chunks of 40 frames, which is how much is kept for the gradient."""

    @jax.checkpoint
    def chunk(state, scores):
        return jax.lax.scan(lambda q, x: (step(q, x), None), state, scores)

    scores = log_probs.transpose(1, 0, 2).reshape(-1, 40, *log_probs.shape[::2])
    return jax.lax.scan(chunk, state, scores)[0]


def dense_log_space(fsa: jaxctc.Fsa, log_probs: jax.Array) -> jax.Array:
    weight, label = dense_arrays(fsa)

    def step(state, scores):
        terms = state[:, :, None] + weight[None]
        top = jax.lax.stop_gradient(jnp.max(terms, axis=1))
        top = jnp.where(top > -jnp.inf, top, 0)
        total = jnp.sum(jnp.exp(terms - top[:, None]), axis=1)
        possible = total > 0
        total = jnp.log(jnp.where(possible, total, 1)) + top
        return jnp.where(possible, total, -jnp.inf) + scores[:, label]

    start = jnp.broadcast_to(fsa.start, (log_probs.shape[0], len(label)))
    return jax.nn.logsumexp(checkpointed_scan(step, start, log_probs) + fsa.final, axis=1)


def dense_products(fsa: jaxctc.Fsa, log_probs: jax.Array) -> jax.Array:
    weight, label = dense_arrays(fsa)
    weight = np.exp(weight)

    def step(carry, scores):
        state, scale = carry
        top = jax.lax.stop_gradient(jnp.max(scores, axis=1, keepdims=True))
        state = (state @ weight) * jnp.exp(scores - top)[:, label]
        total = jnp.sum(state, axis=1, keepdims=True)
        return state / total, scale + top + jnp.log(total)

    batch = log_probs.shape[0]
    start = jnp.broadcast_to(jnp.exp(fsa.start), (batch, len(label)))
    state, scale = checkpointed_scan(step, (start, jnp.zeros((batch, 1))), log_probs)
    return jnp.log(jnp.sum(state * jnp.exp(fsa.final), axis=1)) + scale[:, 0]


def compiled(score, fsa, log_probs):
    """A call that is timed, and the megabytes of temporary memory of the program."""

    def loss_and_gradient(log_probs):
        scores, pullback = jax.vjp(lambda x: score(fsa, x), log_probs)
        return scores, pullback(jnp.ones_like(scores))[0]

    program = jax.jit(loss_and_gradient).lower(log_probs).compile()
    memory = program.memory_analysis()
    assert memory is not None
    return program, memory.temp_size_in_bytes / 1e6


def compare(fsa, scores, rounds, calls):
    """Milliseconds, megabytes, and the difference of the gradients, of each."""
    log_probs = jax.nn.log_softmax(jax.random.normal(jax.random.key(0), (BATCH, FRAMES, CLASSES)))
    programs = {name: compiled(score, fsa, log_probs) for name, score in scores.items()}
    timings = time_in_turn(
        {name: lambda f=f: finished(f(log_probs)) for name, (f, _) in programs.items()},
        rounds,
        calls,
    )
    first = next(iter(programs.values()))[0](log_probs)
    rows, data = [], {}
    ours = next(iter(timings.values())).median
    for name, (program, megabytes) in programs.items():
        timing = timings[name]
        apart = float(jnp.max(jnp.abs(program(log_probs)[1] - first[1])))
        rows.append(
            [
                name,
                timing.median,
                f"{timing.lower:.3g}–{timing.upper:.3g}",
                f"{timing.median / ours:.2f}x",
                megabytes,
                f"{apart:.0e}",
            ]
        )
        data[name] = {**timing._asdict(), "megabytes": megabytes, "apart": apart}
    header = ["", "ms", "quartiles", "times jaxctc's", "temporary MB", "gradients differ by"]
    return table(header, rows), data


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5, help="turns of each contestant")
    arguments = parser.parse_args()
    sections, data = {}, {}
    ours = {"jaxctc": jaxctc.fsa_score}
    products = {"dense products, one scale a frame": dense_products}
    random, language = random_graph(2000, 20000), language_graph(1500)
    for name, fsa, scores, rounds, calls in (
        ("random", random, {**ours, **products}, arguments.rounds, 3),
        ("CTC with a trigram model", language, {**ours, **products}, arguments.rounds, 3),
        ("random, beside log-space", random, {**ours, "dense log-space": dense_log_space}, 1, 2),
    ):
        heading = f"{name}: {len(fsa.final)} states, {len(fsa.label)} arcs"
        sections[heading], data[heading] = compare(fsa, scores, rounds, calls)
    report("automata.speed", sections, data)


if __name__ == "__main__":
    main()
