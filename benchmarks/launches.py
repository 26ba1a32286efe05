"""Kernel launches of loss and gradient on a GPU: compiled for an NVIDIA H100, not run.

A launch takes some 2 to 4 microseconds, whatever it computes, and a scan launches several kernels
for each frame.
"""

import itertools

import jax
import jax.numpy as jnp

import jaxctc
from benchmarks.chips import compiled, h100, launches, reported, temporary_bytes
from benchmarks.common import SHAPES, report, table
from jaxctc.core import recursion

TRANSDUCERS = {"full": False, "monotonic": True}


def ctc_structs(name: str) -> list[jax.ShapeDtypeStruct]:
    """The arguments of a CTC loss of one of the shapes."""
    frames, batch, classes, labels = SHAPES[name]
    return [
        jax.ShapeDtypeStruct((batch, frames, classes), jnp.float32),
        jax.ShapeDtypeStruct((batch, labels), jnp.int32),
        *[jax.ShapeDtypeStruct((batch,), jnp.int32)] * 2,
    ]


def transducer_structs() -> list[jax.ShapeDtypeStruct]:
    """Those of a transducer loss."""
    batch, frames, labels, classes = 4, 200, 50, 500
    return [
        jax.ShapeDtypeStruct((batch, frames, labels + 1, classes), jnp.float32),
        jax.ShapeDtypeStruct((batch, labels), jnp.int32),
        *[jax.ShapeDtypeStruct((batch,), jnp.int32)] * 2,
    ]


SEARCH_FRAMES = 300


def search_scorers() -> dict[str, jaxctc.Scorer | None]:
    """What a search may know besides the logits, of 29 classes; sizes hardly change a program."""
    words = [str(i) for i in range(1000)]
    alone = {(word,): (-3.0, -0.5) for word in words}
    pairs = {(word, words[7 * i % 1000]): (-1.0, 0.0) for i, word in enumerate(words)}
    model = jaxctc.NGram(alone | pairs, words)
    spelled = [[1 + i // 3**k % 3 + 3 * k for k in range(7)] for i in range(1000)]
    lexicon = jaxctc.Lexicon(spelled, 29, separator=28)
    return {
        "no scorer": None,
        "hotwords": jaxctc.Hotwords({(1, 2): 1.0}, 29).scorer(),
        "lexicon and bigrams": lexicon.scorer(language_model=model.scorer()),
    }


def search(width: int, scorer: jaxctc.Scorer | None):
    """A beam search of 8 utterances, and the shapes of its arguments."""

    def decode(logits, lengths, scorer):
        return jaxctc.ctc_beam_search(
            logits, lengths, beam_width=width, scorer=scorer, max_labels=160
        )

    structs = [
        jax.ShapeDtypeStruct((8, SEARCH_FRAMES, 29), jnp.float32),
        jax.ShapeDtypeStruct((8,), jnp.int32),
        jax.eval_shape(lambda: jax.tree.map(jnp.asarray, scorer)),
    ]
    return decode, structs


def with_gradient(loss):
    """Losses and the gradient of their sum."""

    def run(logits, *pair):
        losses, pullback = jax.vjp(lambda x: loss(x, *pair), logits)
        return losses, pullback(jnp.ones_like(losses))[0]

    return run


def both(loss, way: str = "scan"):
    """Losses and the gradient of their sum; `way` says what computes the recursion."""

    def run(*arguments):
        with jaxctc.kernels.use(way):
            return with_gradient(loss)(*arguments)

    return run


def _search_program(width, scorer, device):
    decode, structs = search(width, scorer)
    return compiled(decode, device, structs)


def main():
    from benchmarks.ctc.contestants import optax_loss

    device = h100()
    recursion.UNROLL = {jax.default_backend(): recursion.UNROLL["gpu"]}  # as if there were a GPU
    rows, kernels, data = [], [], {}

    def count(name, contestants, structs):
        data[name] = {}
        for who, function in contestants.items():
            with reported() as resources:
                program = compiled(function, device, structs)
            memory = temporary_bytes(program)
            found = launches(program)
            data[name][who] = {"launches": found.total, "temporary bytes": memory}
            data[name][who]["by loop"] = str(found)
            if resources:
                data[name]["resources"] = {k: v._asdict() for k, v in resources.items()}
                pair = [resources[f"recursion_{x}"] for x in ("forward", "backward")]
                kernels.append([name, *itertools.chain(*pair)])
        cells = [data[name].get(who) for who in ("kernel", "scan", "optax")]
        rows.append(
            [name, *(x["launches"] if x else "–" for x in cells)]
            + [f"{x['temporary bytes'] / 2**20:.1f} MiB" if x else "–" for x in cells]
        )

    ctc = both(jaxctc.ctc_loss, "kernel"), both(jaxctc.ctc_loss), both(optax_loss)
    for name in SHAPES:
        count(name, dict(zip(("kernel", "scan", "optax"), ctc, strict=True)), ctc_structs(name))
    for name, monotonic in TRANSDUCERS.items():

        def loss(*arguments, monotonic=monotonic):
            return jaxctc.rnnt_loss(*arguments, monotonic=monotonic)

        contestants = {"kernel": both(loss, "kernel"), "scan": both(loss)}
        count(f"transducer, {name}", contestants, transducer_structs())
    header = ["", *("kernel", "scan", "optax"), *("kernel, memory", "scan", "optax")]
    sections = {"Launches, and temporary memory": table(header, rows)}
    header = [
        f"{kernel}: {what}"
        for kernel in ("forward", "backward")
        for what in ("registers of a thread", "bytes spilled", "bytes of shared memory")
    ]
    sections["Registers and shared memory of the two kernels"] = table(["", *header], kernels)
    rows = []
    for name, scorer in search_scorers().items():
        counts = [launches(_search_program(w, scorer, device)).total for w in (16, 64, 1024)]
        data[f"search, {name}"] = dict(zip(("16", "64", "1024"), counts, strict=True))
        rows.append([name, *(round(count / SEARCH_FRAMES, 1) for count in counts)])
    header = ["", "beam 16", "beam 64", "beam 1024"]
    sections["Launches a frame of the beam search"] = table(header, rows)
    report("launches", sections, data, timed=False)


if __name__ == "__main__":
    main()
