"""Strict numerics for the package's tests: silent rank promotion is an error."""

import gc
import os
from pathlib import Path

os.environ.setdefault("JAX_PLATFORMS", "cpu")

import jax
import pytest
from hypothesis import settings
from jax.experimental.compilation_cache import compilation_cache

EXAMPLES = Path(__file__).parent / "examples"

# Tracing makes and drops many small objects: to look through all of them now and then is enough.
gc.set_threshold(100_000, 20, 20)

settings.register_profile("jaxctc", deadline=None, derandomize=True, print_blob=False)
settings.load_profile("jaxctc")


@pytest.fixture(autouse=True)
def _no_rank_promotion(request):
    # Flax relies on rank promotion, and the examples on Flax.
    mode = "allow" if request.path.is_relative_to(EXAMPLES) else "raise"
    with jax.numpy_rank_promotion(mode):
        yield


@pytest.fixture(scope="module", autouse=True)
def _forget_programs():
    """All programs of the suite in one process would be more than a process may map of memory."""
    yield
    jax.clear_caches()


@pytest.fixture(scope="module")
def compile_once(tmp_path_factory):
    """Every run of a training script compiles the same step: let all but the first find it.

    A few steps on a few examples take less time than to optimise them would.
    """
    yield from _configured(
        jax_compilation_cache_dir=str(tmp_path_factory.mktemp("compiled")),
        jax_persistent_cache_min_compile_time_secs=0.5,
        jax_disable_most_optimizations=True,
    )


@pytest.fixture(scope="module")
def compile_quickly():
    """Machine code is made without optimising it: that would take longer than programs then run."""
    yield from _configured(jax_disable_most_optimizations=True)


@pytest.fixture
def compile_fully():
    """Programs of a test of exactness are optimised, as users have them, whatever its module."""
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
