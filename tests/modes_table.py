"""The table of modes of JAX: every public function in each of them, with its gradient.

`test_modes.py` runs it in a process of its own, with four devices. By hand, for some functions::

    python -m pytest tests/modes_table.py -k "forced_align or tdt"
"""

import functools
import os

from devices import flags

# Read when the first array is made.
os.environ["XLA_FLAGS"] = flags(4)

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P
from modes import CASES, HOST, Case

import jaxctc

pytestmark = pytest.mark.filterwarnings("ignore:Some donated buffers were not usable")
EACH = pytest.mark.parametrize("name", CASES)


def with_gradients(case: Case):
    """The function, and the gradients of a sum of all it returns."""

    def run(*arrays):
        def total(chosen):
            given = dict(enumerate(arrays)) | dict(zip(case.differentiable, chosen, strict=True))
            found = case.call(*given.values())
            real = [x for x in jax.tree.leaves(found) if jnp.issubdtype(x.dtype, jnp.floating)]
            # Every element has a different weight; -inf counts as a number.
            return sum(jnp.sum(jnp.tanh(x / 4)) for x in real), found

        if not case.differentiable:
            return case.call(*arrays), ()
        chosen = tuple(arrays[i] for i in case.differentiable)
        (_, found), gradients = jax.value_and_grad(total, has_aux=True)(chosen)
        return found, gradients

    return run


def arrays_of(case: Case) -> tuple:
    return case.batched + case.shared


@functools.cache
def plain(name: str, sequences: int | None = None):
    """The function's results under `jit`; with a number, for that many sequences at a time."""
    case = CASES[name]
    run = jax.jit(with_gradients(case))
    if sequences is None:
        arrays = jax.device_put(arrays_of(case))
        with jax.check_tracer_leaks(True):
            program = run.lower(*arrays).compile()
        with jax.transfer_guard("disallow"):
            found = program(*arrays)
        return jax.tree.map(np.asarray, found)
    size = len(jax.tree.leaves(case.batched)[0])
    parts = [
        run(*map_batched(case, lambda x, i=i: x[i : i + sequences]))
        for i in range(0, size, sequences)
    ]
    found = jax.tree.map(lambda *xs: np.stack(xs), *(part[0] for part in parts))
    gradients = jax.tree.map(lambda *xs: np.concatenate(xs), *(part[1] for part in parts))
    return found, gradients


def map_batched(case: Case, f, g=lambda x: x) -> tuple:
    """The arguments with `f` of those of the batch and `g` of the others."""
    return (*jax.tree.map(f, case.batched), *jax.tree.map(g, case.shared))


def assert_same(found, wanted):
    jax.tree.map(assert_same_array, found, wanted)


def assert_same_array(found, wanted):
    assert found.dtype == wanted.dtype
    if np.issubdtype(wanted.dtype, np.floating):
        np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-5)
    else:
        np.testing.assert_array_equal(found, wanted)


@EACH
def test_eager_with_strict_checks(name):
    with (
        jax.numpy_dtype_promotion("strict"),
        jax.numpy_rank_promotion("raise"),
        jax.debug_nans(True),
    ):
        found = with_gradients(CASES[name])(*arrays_of(CASES[name]))
    assert_same(found, plain(name))


@EACH
def test_jit_without_leaks_and_transfers(name):
    assert not any(np.isnan(x).any() for x in jax.tree.leaves(plain(name)))


@EACH
def test_in_a_scan_over_microbatches_with_remat_and_vmap_and_donated(name):
    case = CASES[name]
    pieces = jax.tree.map(lambda x: np.reshape(x, (2, 1, 2, *x.shape[1:])), case.batched)
    inner = case.call
    batched = tuple(0 for _ in case.batched)
    for axis in (0, 1) if case.batch_rank is None else (1,):
        axes = *(axis for _ in batched), *(None for _ in case.shared)
        inner = jax.vmap(inner, axes, 0 if case.reduces else axis)
    run = with_gradients(case._replace(call=jax.checkpoint(inner)))

    def whole(batched, shared):
        return jax.lax.scan(lambda _, piece: (None, run(*piece, *shared)), None, batched)[1]

    arrays = jax.device_put((pieces, case.shared))
    found, gradients = jax.jit(whole, donate_argnums=(0, 1))(*arrays)
    wanted = plain(name, 1) if case.reduces else plain(name)
    found = jax.tree.map(lambda x, y: np.reshape(x, np.shape(y)), found, wanted[0])
    of_batch = len(case.batched)
    gradients = tuple(
        jax.tree.map(
            lambda x, y, i=i: np.reshape(x, np.shape(y)) if i < of_batch else np.sum(x, 0), x, y
        )
        for i, x, y in zip(case.differentiable, gradients, wanted[1], strict=True)
    )
    assert_same((found, gradients), wanted)


def auto_mesh(*axes: tuple[str, int]):
    names, sizes = zip(*axes, strict=True)
    return jax.make_mesh(sizes, names, axis_types=(AxisType.Auto,) * len(axes))


def explicit_mesh(*axes: tuple[str, int]):
    names, sizes = zip(*axes, strict=True)
    return jax.make_mesh(sizes, names, axis_types=(AxisType.Explicit,) * len(axes))


def specs(case: Case, spec: P) -> tuple:
    return map_batched(case, lambda x: spec, lambda x: P())


@EACH
def test_shard_map(name):
    """Gradients inside; those of shared arrays are summed over the devices."""
    case = CASES[name]
    run = with_gradients(case)

    def local(*arrays):
        found, gradients = run(*arrays)
        return jax.tree.map(lambda x: x[None], found) if case.reduces else found, gradients

    gradients = tuple(specs(case, P("data"))[i] for i in case.differentiable)
    mapped = jax.shard_map(
        local,
        mesh=auto_mesh(("data", 4)),
        in_specs=specs(case, P("data")),
        out_specs=(P("data"), gradients),
    )
    assert_same(jax.jit(mapped)(*arrays_of(case)), plain(name, 1 if case.reduces else None))


@EACH
def test_shard_map_over_some_axes_of_a_mesh(name):
    """Gradients of the whole, and a batch of two axes where the function takes them."""
    case = CASES[name]
    mesh = auto_mesh(("data", 2), ("model", 2))
    ranks = (2, 2) if case.batch_rank is None else (4,)
    arrays = map_batched(case, lambda x: np.reshape(x, (*ranks, *x.shape[1:])))

    def local(*arrays):
        found = case.call(*arrays)
        return jax.tree.map(lambda x: x[None], found) if case.reduces else found

    mapped = jax.shard_map(
        local,
        mesh=mesh,
        in_specs=specs(case, P("data")),
        out_specs=P("data"),
        axis_names={"data"},
    )
    found = jax.jit(with_gradients(case._replace(call=mapped)))(*arrays)
    wanted = plain(name, 2 if case.reduces else None)
    found = jax.tree.map(lambda x, y: np.reshape(x, np.shape(y)), found, wanted)
    assert_same(found, wanted)


def assert_sharded_like_the_batch(case, found, gradients, arrays, batch: P):
    spec = P() if case.reduces or case.constant else batch
    for x in jax.tree.leaves(found):
        assert x.sharding.is_equivalent_to(NamedSharding(x.sharding.mesh, spec), x.ndim), x.sharding
    for i, gradient in zip(case.differentiable, gradients, strict=True):
        assert gradient.sharding.is_equivalent_to(arrays[i].sharding, gradient.ndim)


@EACH
def test_explicit_mesh(name):
    case = CASES[name]
    with jax.set_mesh(explicit_mesh(("data", 4))):
        arrays = jax.device_put(arrays_of(case), specs(case, P("data")))
        found, gradients = with_gradients(case)(*arrays)
    assert_same((found, gradients), plain(name))
    assert_sharded_like_the_batch(case, found, gradients, arrays, P("data"))


@EACH
def test_explicit_mesh_of_two_axes_under_jit(name):
    """A batch of two axes where the function takes them, and logits sharded over classes too."""
    case = CASES[name]
    ranks = (2, 2) if case.batch_rank is None else (4,)
    batch = P("data") if case.batch_rank is None else P(("data",))
    arrays = map_batched(case, lambda x: np.reshape(x, (*ranks, *x.shape[1:])))
    with jax.set_mesh(explicit_mesh(("data", 2), ("model", 2))):

        def spec(i, x):
            lead = ["data", *[None] * (x.ndim - 1)] if i < len(case.batched) else [None] * x.ndim
            if i in case.over_classes:
                lead[-1] = "model"
            return P(*lead)

        arrays = tuple(
            jax.tree.map(lambda x, i=i: jax.device_put(x, spec(i, np.asarray(x))), tree)
            for i, tree in enumerate(arrays)
        )
        found, gradients = jax.jit(with_gradients(case))(*arrays)
    assert_sharded_like_the_batch(case, found, gradients, arrays, batch)
    wanted = plain(name)
    found = jax.tree.map(lambda x, y: np.reshape(x, np.shape(y)), (found, gradients), wanted)
    assert_same(found, wanted)


@EACH
def test_explicit_mesh_and_arrays_that_are_on_every_device(name):
    case = CASES[name]
    with jax.set_mesh(explicit_mesh(("data", 4))):
        jax.eval_shape(with_gradients(case), *jax.device_put(arrays_of(case), P()))


@EACH
def test_x64_with_strict_promotion(name):
    case = CASES[name]
    with jax.enable_x64(True), jax.numpy_dtype_promotion("strict"):
        assert_same(jax.jit(with_gradients(case))(*arrays_of(case)), plain(name))


@EACH
def test_float64(name):
    """All that is real is then float64, and integers stay what they are."""
    case = CASES[name]

    def wide(x):
        return x.astype(np.float64) if x.dtype == np.float32 else x

    wanted = plain(name)
    if any(x.dtype == np.float32 for x in jax.tree.leaves(arrays_of(case))):
        wanted = jax.tree.map(wide, wanted)
    with jax.enable_x64(True), jax.numpy_dtype_promotion("strict"):
        found = jax.eval_shape(with_gradients(case), *jax.tree.map(wide, arrays_of(case)))
    assert jax.tree.map(lambda x: x.dtype, found) == jax.tree.map(lambda x: x.dtype, wanted)


@EACH
def test_disable_jit(name):
    with jax.disable_jit():
        found = with_gradients(CASES[name])(*arrays_of(CASES[name]))
    assert_same(found, plain(name))


@pytest.mark.parametrize("name", HOST)
def test_on_the_host(name):
    """The same numbers in every mode, and none of them traced."""
    wanted = HOST[name]()
    assert all(isinstance(x, np.ndarray) for x in wanted)
    for mode in (
        jax.numpy_dtype_promotion("strict"),
        jax.numpy_rank_promotion("raise"),
        jax.enable_x64(True),
        jax.debug_nans(True),
        jax.check_tracer_leaks(True),
        jax.disable_jit(),
        jax.transfer_guard("disallow"),
        jax.set_mesh(explicit_mesh(("data", 4))),
    ):
        with mode:
            assert_same(HOST[name](), wanted)
            jax.eval_shape(lambda: assert_same(HOST[name](), wanted))


BROADCASTING = {
    "ctc_loss": jaxctc.ctc_loss,
    "ctc_posteriors": lambda x, y: jaxctc.ctc_posteriors(x, y).blank,
    "forced_align": lambda x, y: jaxctc.forced_align(x, y).score,
    "ctc_loss_from_features": lambda x, y: jaxctc.ctc_loss_from_features(jnp.tanh, x, y),
}


@pytest.mark.parametrize("jit", [False, True])
@pytest.mark.parametrize("name", BROADCASTING)
def test_broadcast_axes_over_an_explicit_mesh(name, jit):
    """Sharded are the candidates of one sequence, or the sequences of several candidates each."""
    generator = np.random.default_rng(0)
    one = generator.standard_normal((9, 5)).astype(np.float32)
    several = generator.standard_normal((4, 1, 9, 5)).astype(np.float32)
    candidates, table = generator.integers(1, 5, (8, 3)), generator.integers(1, 5, (4, 2, 3))
    function = jax.jit(BROADCASTING[name]) if jit else BROADCASTING[name]

    def value_and_gradient(x, y):
        return jax.grad(lambda x: (jnp.sum(function(x, y)), function(x, y)), has_aux=True)(x)

    for logits, labels, spec in ((one, candidates, P()), (several, table, P("data"))):
        want = value_and_gradient(logits, labels)
        with jax.set_mesh(explicit_mesh(("data", 4))):
            gradient, found = value_and_gradient(
                *jax.device_put((logits, labels), (spec, P("data")))
            )
        assert_same((gradient, found), want)
        for x, sharding in ((found, P("data")), (gradient, spec)):
            mesh = x.sharding.mesh
            assert x.sharding.is_equivalent_to(NamedSharding(mesh, sharding), x.ndim)
