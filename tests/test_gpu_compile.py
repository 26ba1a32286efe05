"""XLA and Mosaic compile the kernels for an NVIDIA H100, and programs launch few of them.

This proves neither numbers nor speed on a GPU. It needs `pip install -e '.[test,gpu-compile]'` and
Python 3.12 or later; no GPU is used.
"""

import functools
import importlib.util
import re

import jax
import numpy as np
import pytest
from jax.sharding import Mesh, NamedSharding, PartitionSpec, SingleDeviceSharding

import jaxctc
from benchmarks.chips import H100, compiled, h100, h100s, kernels, launches, reported
from benchmarks.common import SHAPES
from benchmarks.launches import (
    SEARCH_FRAMES,
    TRANSDUCERS,
    both,
    ctc_structs,
    search,
    search_scorers,
    transducer_structs,
)
from jaxctc.core.kernels import dispatch

pytestmark = [
    pytest.mark.gpu_compile,
    pytest.mark.usefixtures("compile_fully"),
    pytest.mark.skipif(
        not dispatch.GPU or importlib.util.find_spec("jax_cuda13_plugin") is None,
        reason="jax 0.11 for CUDA is not installed: pip install -e '.[test,gpu-compile]'",
    ),
]

MOST_LAUNCHES = 60


@pytest.fixture(scope="module")
def device():
    return h100()


@pytest.mark.parametrize("name", SHAPES)
def test_ctc(device, name):
    with reported() as resources:
        program = compiled(both(jaxctc.ctc_loss, "kernel"), device, ctc_structs(name))
    found = launches(program)
    assert resources.keys() == {"recursion_forward", "recursion_backward"}
    assert all(x.spilled == 0 < x.registers < 128 for x in resources.values()), resources
    assert kernels(program) == 2
    assert not found.loops
    assert found.total <= MOST_LAUNCHES
    with jaxctc.kernels.use("kernel"):
        alone = compiled(jaxctc.ctc_loss, device, ctc_structs(name))
    assert kernels(alone) == 1
    assert not launches(alone).loops


def skipping(logits, labels, *lengths):
    """Where words may be missing at both ends."""
    return jaxctc.w_transducer_loss(*jaxctc.rnnt_log_probs(logits, labels, *lengths), *lengths)


LOSSES = {
    name: functools.partial(jaxctc.rnnt_loss, monotonic=monotonic)
    for name, monotonic in TRANSDUCERS.items()
}
LOSSES["few labels a frame"] = functools.partial(jaxctc.rnnt_loss, max_symbols=2)
LOSSES["skipping"] = skipping


@pytest.mark.parametrize("loss", LOSSES.values(), ids=LOSSES)
def test_transducers(device, loss):
    program = compiled(both(loss, "kernel"), device, transducer_structs())
    assert kernels(program) == 2
    assert launches(program).total <= MOST_LAUNCHES


def test_a_frame_of_the_beam_search_is_few_launches(device):
    scorer = search_scorers()["lexicon and bigrams"]
    decode, structs = search(64, scorer)
    found = launches(compiled(decode, device, structs))
    assert all(not inside.loops for _, inside in found.loops)  # none as long as the model is large
    assert found.total <= 48 * SEARCH_FRAMES


def test_each_gpu_has_kernels_for_its_sequences():
    mesh = Mesh(np.array(h100s(4)).reshape(2, 2), ("batch", "model"))
    specs = [PartitionSpec("batch", None, "model"), *[PartitionSpec("batch")] * 3]
    structs = [
        jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=NamedSharding(mesh, spec))
        for x, spec in zip(ctc_structs("BPE speech"), specs, strict=True)
    ]
    program = jax.jit(both(jaxctc.ctc_loss, "kernel")).lower(*structs).compile()
    text = program.as_text()
    assert kernels(program) == 2
    assert "f32[400,8,128]" in next(x for x in text.splitlines() if "mosaic_gpu" in x)
    # The normaliser and the labels' logits are added up over classes; the rest stays where it is.
    assert not re.search(r" (all-gather|all-to-all|collective-permute)", text)
    assert launches(program).total <= MOST_LAUNCHES


@pytest.mark.parametrize("gpus", [2, 4])
def test_each_gpu_of_shard_map_has_kernels(gpus):
    """With its checks of what varies over devices."""
    mesh = Mesh(np.array(h100s(gpus)), ("batch",))
    over = PartitionSpec("batch")
    structs = [
        jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=NamedSharding(mesh, over))
        for x in ctc_structs("BPE speech")
    ]
    loss = both(jaxctc.ctc_loss, "kernel")
    mapped = jax.shard_map(loss, mesh=mesh, in_specs=over, out_specs=over, check_vma=True)
    program = jax.jit(mapped).lower(*structs).compile()
    text = program.as_text() or ""
    assert kernels(program) == 2
    shape = f"f32[400,{16 // gpus},128]"  # a GPU's sequences
    assert shape in next(x for x in text.splitlines() if "mosaic_gpu" in x)
    assert not re.search(r" (all-|reduce-scatter|collective-permute)", text)
    assert launches(program).total <= MOST_LAUNCHES


def test_gpus_before_hopper_get_the_scan():
    for major in ("9", "8"):
        device = h100(H100.replace("major: 9 }", f"major: {major} }}"))
        sharding = SingleDeviceSharding(device)
        structs = [
            jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding) for x in ctc_structs("plates")
        ]
        text = jax.jit(both(jaxctc.ctc_loss, "kernel")).lower(*structs).as_text()
        assert ("mosaic_gpu" in text) == (major == "9")


def test_alignments(device):
    with jaxctc.kernels.use("kernel"):
        for align, structs in [
            (jaxctc.forced_align, ctc_structs("BPE speech")),
            (transducer_paths, transducer_structs()),
        ]:
            program = compiled(align, device, structs)
            assert kernels(program) == 2
            assert not launches(program).loops


def transducer_paths(logits, labels, *lengths):
    """The best paths of a transducer."""
    return jaxctc.rnnt_align(*jaxctc.rnnt_log_probs(logits, labels, *lengths), *lengths)


def test_launches_are_counted(device):
    """A loop's launches as often as it goes round."""

    def loop(x):
        return jax.lax.scan(lambda x, _: (jax.numpy.sort(x * 2.0), None), x, length=7)[0]

    found = launches(compiled(loop, device, [jax.ShapeDtypeStruct((300,), "float32")]))
    ((trips, inside),) = found.loops
    assert trips == 7
    assert inside.once >= 1
    assert found.total == found.once + 7 * inside.once
    assert re.fullmatch(r"\d+ \+ 7 × \(\d+\)", str(found))


def test_lattices_that_are_too_wide_are_scans(device):
    frames, batch, labels = 50, 2, 2000
    structs = [jax.ShapeDtypeStruct((batch, frames, 30), "float32")]
    structs += [jax.ShapeDtypeStruct((batch, labels), "int32")]
    structs += [jax.ShapeDtypeStruct((batch,), "int32")] * 2
    program = compiled(both(jaxctc.ctc_loss, "kernel"), device, structs)
    assert kernels(program) == 0
    assert launches(program).loops
