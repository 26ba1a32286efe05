"""The real TPU compiler compiles the programs: they fit, and have the expected operations.

This proves neither numbers nor speed on a TPU. It needs `pip install -e '.[test,tpu-compile]'`,
which brings libtpu; no TPU is used.
"""

import functools
import importlib.util
import math
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from class_sharding import CASES
from class_sharding import compiled as compiled_by_classes
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

import jaxctc
from benchmarks.chips import v5e
from benchmarks.launches import search, search_scorers

pytestmark = [
    pytest.mark.tpu_compile,
    pytest.mark.usefixtures("compile_fully"),
    pytest.mark.skipif(
        importlib.util.find_spec("libtpu") is None,
        reason="libtpu is not installed: pip install -e '.[test,tpu-compile]'",
    ),
]

COLLECTIVES = ("all-reduce", "all-gather", "all-to-all", "collective-permute", "reduce-scatter")
SHAPES = {"plates": (256, 18, 68, 8), "speech": (8, 1500, 32, 250), "ocr": (64, 80, 6625, 25)}


@pytest.fixture(scope="module")
def devices():
    """The four chips of a v5e host, as the compiler knows them."""
    return np.array(v5e())


def compiled(function, devices, shapes, sharded=0):
    """`function` compiled for the devices, its first `sharded` arguments split along axis 0."""
    mesh = Mesh(devices, ("batch",))

    def placed(index, struct):
        spec = PartitionSpec("batch") if index < sharded else PartitionSpec()
        sharding = NamedSharding(mesh, spec)
        return jax.tree.map(
            lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding), struct
        )

    return jax.jit(function).lower(*[placed(i, s) for i, s in enumerate(shapes)]).compile()


def pair_shapes(name, dtype):
    batch, frames, classes, labels = SHAPES[name]
    return [
        jax.ShapeDtypeStruct((batch, frames, classes), dtype),
        jax.ShapeDtypeStruct((batch, labels), jnp.int32),
        jax.ShapeDtypeStruct((batch,), jnp.int32),
        jax.ShapeDtypeStruct((batch,), jnp.int32),
    ]


def transducer_shapes(dtype):
    batch, frames, labels, classes = 4, 200, 50, 500
    return [
        jax.ShapeDtypeStruct((batch, frames, labels + 1, classes), dtype),
        jax.ShapeDtypeStruct((batch, labels), jnp.int32),
        jax.ShapeDtypeStruct((batch,), jnp.int32),
        jax.ShapeDtypeStruct((batch,), jnp.int32),
    ]


def loss_and_gradient(logits, labels, frames, lengths):
    losses, pullback = jax.vjp(lambda x: jaxctc.ctc_loss(x, labels, frames, lengths), logits)
    return losses, pullback(jnp.ones_like(losses))[0]


def loop_bodies(text):
    """The text of every computation that a while loop runs, with all that it calls."""
    computations = dict(re.findall(r"^%?([\w.-]+) [^\n]*\{\n(.*?)^\}", text, re.M | re.S))
    pending = re.findall(r"body=%?([\w.-]+)", text)
    assert pending, "there is no loop"
    seen = set()
    while pending:
        name = pending.pop()
        if name not in seen and name in computations:
            seen.add(name)
            pending += re.findall(r"(?:calls|to_apply|body)=%?([\w.-]+)", computations[name])
    return "\n".join(computations[name] for name in seen)


def collectives(text):
    """The operations of that kind in a program."""
    return {c for c in COLLECTIVES if re.search(rf"\b{c}(-start)?\(", text)}


def reduced_numbers(text):
    """How many numbers the chips add up."""
    return sum(map(elements, re.findall(r"= (.*?) all-reduce(?:-start)?\(", text)))


def elements(shapes):
    """The number of elements of the shapes in HLO text, ``f32[3,4]{…}`` or a tuple of such."""
    sizes = re.findall(r"\b[a-z]+[0-9]+\[([0-9,]*)\]", shapes)
    return sum(math.prod(int(n) for n in size.split(",") if n) for size in sizes)


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16], ids=["float32", "bfloat16"])
@pytest.mark.parametrize("name", SHAPES)
@pytest.mark.parametrize("chips", [1, 4])
def test_loss_and_gradient(devices, name, dtype, chips):
    program = compiled(
        loss_and_gradient, devices.reshape(-1)[:chips], pair_shapes(name, dtype), sharded=4
    )
    text = program.as_text()
    assert not collectives(text)
    body = loop_bodies(text)
    assert not re.search(r"\b(gather|scatter)\(", body)
    batch, frames, classes, labels = SHAPES[name]
    # Copies of the logits, and of the lattice, in layouts whose last axis is padded to 128 lanes.
    batch //= chips
    logits = 4 * batch * frames * (-(-classes // 128) * 128)
    lattice = 4 * frames * (labels + 1) * max(batch, 128)
    assert program.memory_analysis().temp_size_in_bytes < 5 * logits + 2 * lattice


@pytest.mark.parametrize("name", SHAPES)
@pytest.mark.parametrize("chips", [1, 4])
def test_kernels(devices, name, chips):
    """Two launches for loss and gradient, and no loop beside them; one launch for the loss."""

    def on_each_chip(function):
        if chips == 1:
            return function
        spec = PartitionSpec("batch")
        mesh = Mesh(devices.reshape(-1)[:chips], ("batch",))
        return jax.shard_map(function, mesh=mesh, in_specs=spec, out_specs=spec)

    launches = {jaxctc.ctc_loss: 1, loss_and_gradient: 2}
    for function, count in launches.items() if chips == 1 else [(loss_and_gradient, 2)]:
        with jaxctc.kernels.use("kernel"):
            program = compiled(
                on_each_chip(function),
                devices.reshape(-1)[:chips],
                pair_shapes(name, jnp.float32),
                sharded=4,
            )
        text = program.as_text()
        assert text.count('custom_call_target="tpu_custom_call"') == count
        assert " while(" not in text
        assert not collectives(text)


def skipping(logits, labels, *lengths):
    """Where words may be missing at both ends."""
    return jaxctc.w_transducer_loss(*jaxctc.rnnt_log_probs(logits, labels, *lengths), *lengths)


KERNELS = {
    "full": jaxctc.rnnt_loss,
    "monotonic": functools.partial(jaxctc.rnnt_loss, monotonic=True),
    "few labels a frame": functools.partial(jaxctc.rnnt_loss, max_symbols=2),
    "skipping": skipping,
}


@pytest.mark.parametrize("loss", KERNELS.values(), ids=KERNELS)
def test_kernels_of_transducers(devices, loss):
    def both(logits, *pair):
        losses, pullback = jax.vjp(lambda x: loss(x, *pair), logits)
        return losses, pullback(jnp.ones_like(losses))[0]

    with jaxctc.kernels.use("kernel"):
        program = compiled(both, devices.reshape(-1)[:1], transducer_shapes(jnp.float32))
    text = program.as_text()
    assert text.count('custom_call_target="tpu_custom_call"') == 2
    assert " while(" not in text


def test_kernels_of_alignments(devices):
    """Two launches, and no loop beside them."""

    def transducer(logits, labels, *lengths):
        return jaxctc.rnnt_align(*jaxctc.rnnt_log_probs(logits, labels, *lengths), *lengths)

    functions = {
        jaxctc.forced_align: pair_shapes("plates", jnp.float32),
        transducer: transducer_shapes(jnp.float32),
    }
    for function, shapes in functions.items():
        with jaxctc.kernels.use("kernel"):
            text = compiled(function, devices.reshape(-1)[:1], shapes).as_text()
        assert text.count('custom_call_target="tpu_custom_call"') == 2
        assert " while(" not in text


def pruned(logits, labels, *lengths):
    """From ranges that advance as the labels do, of five positions."""
    *_, frames, spaces, _ = logits.shape
    ranges = (jnp.arange(frames)[:, None] * (spaces - 4)) // frames + jnp.arange(5)[None]
    ranges = jnp.broadcast_to(ranges, (*logits.shape[:-2], 5))
    return jaxctc.rnnt_loss_pruned(logits[..., :5, :], labels, ranges, *lengths)


TRANSDUCERS = {
    "full": jaxctc.rnnt_loss,
    "monotonic": functools.partial(jaxctc.rnnt_loss, monotonic=True),
    "joint in chunks": lambda x, *pair: jaxctc.rnnt_loss_from_joint(
        jnp.add, x[:, :, 0], x[:, 0], *pair
    ),
    "simple": lambda x, *pair: jaxctc.rnnt_loss_simple(x[:, :, 0], x[:, 0], *pair),
    "pruned": pruned,
    "durations": lambda x, *pair: jaxctc.tdt_loss(x, x[..., :3], *pair, durations=(0, 1, 2)),
}


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16], ids=["float32", "bfloat16"])
@pytest.mark.parametrize(
    ("loss", "chips"), [("full", 1), *((name, 4) for name in TRANSDUCERS)], ids=str
)
def test_transducer_loss_and_gradient(devices, dtype, loss, chips):
    def loss_and_gradient(logits, *pair):
        losses, pullback = jax.vjp(lambda x: TRANSDUCERS[loss](x, *pair), logits)
        return losses, pullback(jnp.ones_like(losses))[0]

    structs = transducer_shapes(dtype)
    batch, frames, *_ = structs[0].shape
    program = compiled(loss_and_gradient, devices.reshape(-1)[:chips], structs, sharded=4)
    text = program.as_text()
    if loss == "simple":
        # Whether matrix products are exact enough for all: one boolean for the whole program.
        assert collectives(text) == {"all-reduce"}
        assert reduced_numbers(text) == 1
    else:
        assert not collectives(text)
    if loss != "joint in chunks":  # that picks labels from the logits of each chunk
        assert not re.search(r"\b(gather|scatter)\(", loop_bodies(text))
    # Copies of the logits whose last axes are padded to tiles of 8 times 128.
    logits = 4 * (batch // chips) * frames * 56 * 512
    assert program.memory_analysis().temp_size_in_bytes < 3 * logits


@pytest.mark.parametrize("kind", [AxisType.Auto, AxisType.Explicit], ids=str)
@pytest.mark.parametrize("name", CASES)
def test_logits_sharded_over_classes(devices, name, kind):
    mesh = Mesh(devices.reshape(2, 2), ("data", "model"), axis_types=(kind, kind))
    compiled_by_classes(CASES[name], mesh)


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16], ids=["float32", "bfloat16"])
def test_the_loss_from_features(devices, dtype):
    """Neither logits nor a second gradient of the head is in memory."""
    batch, frames, features, classes = 2, 1500, 512, 128000

    def loss(kernel, bias, features, *pair):
        head = lambda x: x @ kernel + bias[None, None]  # noqa: E731
        return jaxctc.ctc_loss_from_features(head, features, *pair).sum()

    gradients = jax.value_and_grad(loss, argnums=(0, 1, 2))
    structs = [
        *[jax.ShapeDtypeStruct(s, dtype) for s in ((features, classes), (classes,))],
        jax.ShapeDtypeStruct((batch, frames, features), dtype),
        jax.ShapeDtypeStruct((batch, 60), jnp.int32),
        *[jax.ShapeDtypeStruct((batch,), jnp.int32)] * 2,
    ]
    program = compiled(gradients, devices.reshape(-1)[:1], structs)
    chunk = 4 * 256 * classes  # the default: 256 frames of all sequences together
    in_float32 = 4 * features * classes if dtype == jnp.bfloat16 else 0  # the head's gradient
    used = program.memory_analysis().temp_size_in_bytes
    assert used < 3.5 * chunk + in_float32
    assert used < 2 * 4 * batch * frames * classes / 5  # of all logits and their gradient


def test_beam_search(devices):
    """With a lexicon and a word model: no loop within a frame, and nothing between the chips."""
    decode, structs = search(64, search_scorers()["lexicon and bigrams"])
    program = compiled(decode, devices.reshape(-1), structs, sharded=2)
    text = program.as_text()
    assert not collectives(text)
    assert " while(" not in loop_bodies(text)
    assert program.memory_analysis().temp_size_in_bytes < 2**24


@pytest.mark.parametrize("name", ["rnnt_greedy_decode", "rnnt_beam_search", "tdt_beam_search"])
def test_transducer_decoders(devices, name):
    """With a language model, each chip for itself: nothing between the chips."""
    width, classes, frames = 128, 256, 100
    hot = jaxctc.Hotwords({(3, 5): 1.0}, classes=classes).scorer()
    options = {"durations": (0, 1, 2)} if name == "tdt_beam_search" else {}

    def decode(encoder, lengths, rows, output, scorer):
        def joint(frame, predicted):
            logits = jnp.tanh(frame + predicted) @ output
            return (logits, logits[:3]) if options else logits

        functions = joint, lambda state, label: (0.5 * state + rows[label],) * 2, jnp.zeros(width)
        more = {"max_labels": 50, "scorer": scorer, **options}
        return getattr(jaxctc, name)(*functions, encoder, lengths, **more)

    mesh = Mesh(devices.reshape(-1), ("batch",))
    batch, none = PartitionSpec("batch"), PartitionSpec()
    each = jax.shard_map(
        decode, mesh=mesh, in_specs=(batch, batch, none, none, none), out_specs=batch
    )
    structs = [
        jax.ShapeDtypeStruct((16, frames, width), jnp.float32),
        jax.ShapeDtypeStruct((16,), jnp.int32),
        jax.ShapeDtypeStruct((classes, width), jnp.float32),
        jax.ShapeDtypeStruct((width, classes), jnp.float32),
        jax.eval_shape(lambda: jax.tree.map(jnp.asarray, hot)),
    ]
    program = compiled(each, devices.reshape(-1), structs, sharded=2)
    assert not collectives(program.as_text())
    assert program.memory_analysis().temp_size_in_bytes < 2**24


@pytest.mark.parametrize("chips", [1, 4])
def test_automata(devices, chips):
    """A denominator on every chip, a numerator for each sequence."""
    labels = [[1 + (i * j) % 29 for j in range(20)] for i in range(1, 9)]
    denominator = jaxctc.ctc_denominator(labels, order=2)
    numerator = jaxctc.Fsa.stack([jaxctc.ctc_fsa(y) for y in labels])

    def loss_and_gradient(logits, numerator, lengths, denominator):
        losses, pullback = jax.vjp(
            lambda x: jaxctc.lfmmi_loss(x, numerator, denominator, lengths), logits
        )
        return losses, pullback(jnp.ones_like(losses))[0]

    shapes = [
        jax.ShapeDtypeStruct((8, 200, 30), jnp.bfloat16),
        jax.eval_shape(lambda: jax.tree.map(jnp.asarray, numerator)),
        jax.ShapeDtypeStruct((8,), jnp.int32),
        jax.eval_shape(lambda: jax.tree.map(jnp.asarray, denominator)),
    ]
    program = compiled(loss_and_gradient, devices.reshape(-1)[:chips], shapes, sharded=3)
    assert program.memory_analysis().temp_size_in_bytes < 2**29


def test_plate_train_step(devices):
    """One step of the example, the batch split over four chips, the parameters on each."""
    from flax import nnx

    import plate_train
    import training
    from plates import models

    arguments = plate_train.parse_arguments([])
    model = models.build({"name": "light"}, 68, seed=0)
    optimizer = training.make_optimizer(
        model,
        learning_rate=arguments.learning_rate,
        weight_decay=arguments.weight_decay,
        steps=arguments.steps,
    )
    graph, state = nnx.split((model, optimizer))

    def step(batch, state):
        model, optimizer = nnx.merge(graph, state)
        metrics = plate_train.train_step(model, optimizer, batch, seed=0)
        return metrics, nnx.split((model, optimizer))[1]

    batch = {
        "images": jax.ShapeDtypeStruct((64, 24, 94, 3), jnp.uint8),
        "labels": jax.ShapeDtypeStruct((64, 8), jnp.int32),
        "label_lengths": jax.ShapeDtypeStruct((64,), jnp.int32),
    }
    state = jax.eval_shape(lambda: state)
    with jax.numpy_rank_promotion("allow"):  # Flax relies on it
        program = compiled(step, devices.reshape(-1), [batch, state], sharded=1)
    text = program.as_text()
    assert collectives(text) == {"all-reduce"}
    # Of gradients, of what is averaged to normalise, and of metrics: one number a parameter, and
    # a few of each channel. Nothing as large as activations, and nothing in the loss's loops.
    assert "all-reduce" not in loop_bodies(text)
    parameters = sum(x.size for x in jax.tree.leaves(nnx.state(model, nnx.Param)))
    assert parameters <= reduced_numbers(text) < 1.02 * parameters
    assert program.memory_analysis().temp_size_in_bytes < 2**24
