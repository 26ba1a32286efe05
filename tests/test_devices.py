"""Export of programs, and sharding of the batch over devices."""

import re
import textwrap
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from devices import run_on_eight_devices
from jax import export

import jaxctc
from jaxctc.core.kernels import dispatch

ARGUMENTS = (
    np.random.default_rng(0).standard_normal((8, 40, 12)).astype(np.float32),
    np.random.default_rng(1).integers(1, 12, (8, 10)).astype(np.int32),
    np.array([40, 33, 40, 12, 25, 40, 0, 38], np.int32),
    np.array([10, 7, 0, 10, 9, 10, 1, 3], np.int32),
)


def loss_and_gradient(logits, labels, frames, lengths):
    losses, pullback = jax.vjp(lambda x: jaxctc.ctc_loss(x, labels, frames, lengths), logits)
    return losses, pullback(jnp.ones_like(losses))[0]


def test_export_round_trip():
    jitted = jax.jit(loss_and_gradient)
    exported = export.export(jitted, platforms=("cpu", "cuda", "tpu"))(*ARGUMENTS)
    assert exported.platforms == ("cpu", "cuda", "tpu")
    loaded = export.deserialize(exported.serialize())
    for got, want in zip(loaded.call(*ARGUMENTS), jitted(*ARGUMENTS), strict=True):
        np.testing.assert_allclose(got, want, atol=1e-6)


def test_a_program_is_exported_for_any_batch_size():
    """Without a constraint; one sequence, or more sequences than labels."""
    (b,) = export.symbolic_shape("b")
    structs = [jax.ShapeDtypeStruct((b, *x.shape[1:]), x.dtype) for x in ARGUMENTS]
    exported = export.export(jax.jit(loss_and_gradient))(*structs)
    for arguments in (tuple(x[:1] for x in ARGUMENTS), ARGUMENTS):
        for got, want in zip(exported.call(*arguments), loss_and_gradient(*arguments), strict=True):
            np.testing.assert_allclose(got, want, atol=1e-6)
    export.export(jax.jit(jaxctc.forced_align))(*structs)
    joint = jax.ShapeDtypeStruct((b, 4, 3, 5), "float32")
    labels = jax.ShapeDtypeStruct((b, 2), "int32")
    export.export(jax.jit(jaxctc.rnnt_loss))(joint, labels)
    tdt_loss = partial(jaxctc.tdt_loss, durations=(0, 1, 2, 3, 4))
    export.export(jax.jit(tdt_loss))(joint, joint, labels)


def test_a_program_with_kernels_is_exported_for_all_platforms():
    with jaxctc.kernels.use("kernel"):
        jitted = jax.jit(loss_and_gradient)
        exported = export.export(jitted, platforms=("cpu", "cuda", "tpu"))(*ARGUMENTS)
        text = exported.mlir_module()
    assert "tpu_custom_call" in text
    assert not dispatch.GPU or "mosaic_gpu" in text
    loaded = export.deserialize(exported.serialize())
    want = jax.jit(loss_and_gradient)(*ARGUMENTS)
    for got, expected in zip(loaded.call(*ARGUMENTS), want, strict=True):
        np.testing.assert_allclose(got, expected, atol=1e-6)


def test_eight_devices_give_the_same_as_one_and_gather_nothing():
    program = textwrap.dedent("""
        import jax, numpy as np
        from jax.sharding import AxisType, NamedSharding, PartitionSpec
        from test_devices import ARGUMENTS, loss_and_gradient

        assert len(jax.devices()) == 8
        for kind in (AxisType.Auto, AxisType.Explicit):
            mesh = jax.make_mesh((8,), ("batch",), axis_types=(kind,))
            sharding = NamedSharding(mesh, PartitionSpec("batch"))
            arguments = [jax.device_put(x, sharding) for x in ARGUMENTS]
            sharded = jax.jit(loss_and_gradient).lower(*arguments).compile()
            text = sharded.as_text()
            for collective in ("all-", "collective-", "reduce-scatter"):
                assert f" {collective}" not in text, (kind, collective)
            for got, want in zip(sharded(*arguments), jax.jit(loss_and_gradient)(*ARGUMENTS)):
                assert got.sharding.is_equivalent_to(sharding, got.ndim), got.sharding
                np.testing.assert_allclose(got, want, rtol=1e-6, atol=1e-6)
    """)
    run_on_eight_devices(program)


def test_kernels_on_eight_devices():
    """Each device runs a kernel for its sequences: within `shard_map`, and where the compiler
    splits the program. If that is exported, or for a TPU, or over explicit axes, it has the scan.
    """
    program = textwrap.dedent("""
        import jax, numpy as np, jaxctc
        from jax import export
        from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec
        from jaxctc.core.kernels import choice, dispatch
        from test_devices import ARGUMENTS, loss_and_gradient

        spec = PartitionSpec("batch")
        mesh = Mesh(np.array(jax.devices()), ("batch",))
        explicit = jax.make_mesh((8,), ("batch",), axis_types=(AxisType.Explicit,))
        want = jax.jit(loss_and_gradient)(*ARGUMENTS)
        by_kernel, shapes = dispatch._by_kernel, []

        def spied(topology, scores, *rest):
            shapes.append(scores.shape)
            return by_kernel(topology, scores, *rest)

        dispatch._by_kernel = spied

        def check(function, mesh, kernels):
            arguments = [jax.device_put(x, NamedSharding(mesh, spec)) for x in ARGUMENTS]
            shapes.clear()
            compiled = jax.jit(function, donate_argnums=0).lower(*arguments).compile()
            assert [shape[1:] for shape in shapes] == [(1, 16)] * kernels, shapes
            for collective in ("all-", "collective-", "reduce-scatter"):
                assert f" {collective}" not in compiled.as_text(), collective
            for got, expected in zip(compiled(*arguments), want):
                assert got.sharding.spec[0] == "batch", got.sharding
                np.testing.assert_allclose(got, expected, rtol=1e-6, atol=1e-6)

        def mapped(**options):
            specs = dict(mesh=mesh, in_specs=spec, out_specs=spec)
            return jax.shard_map(loss_and_gradient, **specs, **options)

        def views(logits, *pair):
            of_view = lambda x: loss_and_gradient(x, *pair)
            losses, gradients = jax.vmap(of_view, 1, 1)(jax.numpy.stack([logits, logits], 1))
            return losses[:, 0], gradients[:, 1]

        with jaxctc.kernels.use("kernel"):
            check(loss_and_gradient, mesh, 0)
            check(mapped(), mesh, 0)
            with jax.set_mesh(explicit):
                check(loss_and_gradient, explicit, 0)
            arguments = [jax.device_put(x, NamedSharding(mesh, spec)) for x in ARGUMENTS]
            jitted = jax.jit(loss_and_gradient)
            text = export.export(jitted, platforms=("cuda", "tpu"))(*arguments).mlir_module()
            for call in ("CustomSPMDPartitioning", "mosaic_gpu", "tpu_custom_call"):
                assert call not in text, call
            text = jitted.trace(*arguments).lower(lowering_platforms=("tpu",)).as_text()
            assert "CustomSPMDPartitioning" not in text
        with choice.interpreted("tpu"):
            check(loss_and_gradient, mesh, 1)
            with jax.set_mesh(explicit):
                check(loss_and_gradient, explicit, 0)
            for checked in (True, False):
                check(mapped(check_vma=checked), mesh, 1)
            shapes.clear()
            compiled = jax.jit(views).lower(*arguments).compile()
            assert [shape[1:] for shape in shapes] == [(2, 16)], shapes
            assert " all-gather" not in compiled.as_text()
            for got, expected in zip(compiled(*arguments), want):
                np.testing.assert_allclose(got, expected, rtol=1e-6, atol=1e-6)
    """)
    run_on_eight_devices(program)


def test_decoders_compute_functions_for_each_part_of_the_batch_on_explicit_axes():
    """What they close over is sharded over an axis of its own; a lookup is computed everywhere."""
    program = textwrap.dedent("""
        import jax, jax.numpy as jnp, numpy as np, jaxctc
        from jax.sharding import AxisType, PartitionSpec as P

        batch, beam, width, classes = 8, 3, 6, 10
        generator = np.random.default_rng(0)
        draw = lambda *shape: generator.standard_normal(shape).astype(np.float32)
        arrays = draw(width, classes), draw(classes, width), draw(2, batch // 2, 5, width)

        def decode(projection, table, encoder):
            joint = lambda frame, output: jnp.tanh(frame + output) @ projection
            predictor = lambda state, label: (table[label], state)
            internal = jaxctc.rnnt_internal_lm(joint, predictor, (), np.zeros(width, np.float32))
            search = dict(beam_width=beam, max_symbols=2, max_labels=6, scorer=internal)
            return jaxctc.rnnt_beam_search(joint, predictor, (), encoder, **search)

        want = jax.jit(decode)(*arrays)
        mesh = jax.make_mesh((2, 2, 2), ("a", "b", "model"), axis_types=(AxisType.Explicit,) * 3)
        with jax.set_mesh(mesh):
            for rows in (P("a", "b"), P(None, "b")):
                specs = P(None, "model"), P(), rows
                placed = [jax.device_put(x, spec) for x, spec in zip(arrays, specs)]
                compiled = jax.jit(decode).lower(*placed).compile()
                parts = batch * beam // int(np.prod([2 for name in rows if name]))
                assert f"f32[{parts},{classes // 2}]" in compiled.as_text(), rows
                for got, expected in zip(jax.tree.leaves(compiled(*placed)), jax.tree.leaves(want)):
                    assert tuple(got.sharding.spec)[:2] == tuple(rows), got.sharding
                    np.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-5)
    """)
    run_on_eight_devices(program)


def test_chunks_of_frames_that_are_sharded():
    program = textwrap.dedent("""
        import jax, numpy as np, jaxctc
        from jax.sharding import AxisType, PartitionSpec as P
        from test_devices import ARGUMENTS

        @jax.jit
        @jax.value_and_grad
        def loss(features):
            head = lambda x: x @ np.eye(12, dtype=np.float32)
            rest = ARGUMENTS[1:]
            return jaxctc.ctc_loss_from_features(head, features, *rest, frames_per_chunk=7).sum()

        want = loss(ARGUMENTS[0])
        with jax.set_mesh(jax.make_mesh((8,), ("a",), axis_types=(AxisType.Explicit,))):
            for got, expected in zip(loss(jax.device_put(ARGUMENTS[0], P(None, "a"))), want):
                np.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-5)
    """)
    run_on_eight_devices(program)


def test_the_example_of_the_page_on_accelerators():
    page = Path(__file__).parent.parent / "docs" / "accelerators.md"
    example = "".join(re.findall(r"```python\n(.*?)```", page.read_text(), re.S))
    checks = """
assert loss.sharding == sharding and len(loss.sharding.device_set) == 8
assert jnp.allclose(mean, loss.mean()) and len(gradient.sharding.device_set) == 8
assert decoded.labels.sharding.spec[0] == "batch"
"""
    run_on_eight_devices(f"{example}\n{checks}")
