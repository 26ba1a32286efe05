"""Strict numerics for the package's tests: silent rank promotion is an error."""

import gc
import importlib.util
import os
from pathlib import Path

os.environ.setdefault("JAX_PLATFORMS", "cpu")

import jaxlib.version

if (
    tuple(map(int, jaxlib.version.__version__.split(".")[:2])) < (0, 11)
    and importlib.util.find_spec("libtpu") is None
):
    # Small programs compile in a third of the time without fusion emitters. Later releases, and the
    # compiler for TPUs, do not know the options any more, and would stop. `.ci/run` runs what uses
    # `compile_fully` once more without them.
    quick = "--xla_cpu_use_fusion_emitters=false --xla_cpu_parallel_codegen_split_count=1"
    os.environ.setdefault("XLA_FLAGS", quick)

import jax
import pytest
from hypothesis import settings
from jax.experimental.compilation_cache import compilation_cache

# Optimising takes longer than running on a few examples.
jax.config.update("jax_disable_most_optimizations", True)

EXAMPLES = Path(__file__).parent / "examples"
# A script without tests, which needs the `examples` extra; and one that sets the number of devices.
collect_ignore = ["tiny_training.py", "modes_table.py"]

# Tracing makes and drops many small objects: it is enough to collect garbage now and then.
gc.set_threshold(100_000, 20, 20)

settings.register_profile("jaxctc", deadline=None, derandomize=True, print_blob=False)
settings.load_profile("jaxctc")


@pytest.fixture(autouse=True)
def _no_rank_promotion(request):
    # Flax needs rank promotion, and the examples use Flax.
    mode = "allow" if request.path.is_relative_to(EXAMPLES) else "raise"
    with jax.numpy_rank_promotion(mode):
        yield


@pytest.fixture(scope="module", autouse=True)
def _forget_programs():
    """All programs of the suite would need more memory maps than one process may have."""
    yield
    jax.clear_caches()


@pytest.fixture(scope="module")
def compile_once(tmp_path_factory):
    """All runs of a training script compile the same step: only the first compiles it."""
    yield from _configured(
        jax_compilation_cache_dir=str(tmp_path_factory.mktemp("compiled")),
        jax_persistent_cache_min_compile_time_secs=0.5,
    )


@pytest.hookimpl(tryfirst=True)  # before tests are chosen by their marks
def pytest_collection_modifyitems(items):
    for item in items:
        if "compile_fully" in item.fixturenames:
            item.add_marker("compiled_fully")


@pytest.fixture
def compile_fully():
    """Programs are optimised, as for users: for tests of exactness, and of what compilers make."""
    yield from _configured(jax_disable_most_optimizations=False)


def _configured(**settings):
    before = {name: jax.config.values[name] for name in settings}
    for name, value in settings.items():
        jax.config.update(name, value)
    compilation_cache.reset_cache()
    yield
    for name, value in before.items():
        jax.config.update(name, value)
    compilation_cache.reset_cache()


@pytest.fixture
def x64():
    with jax.enable_x64(True):
        yield
