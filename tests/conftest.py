"""Strict numerics for the package's tests: silent rank promotion is an error."""

import os

os.environ.setdefault("JAX_PLATFORMS", "cpu")

import jax
import pytest
from hypothesis import settings
from jax.experimental.compilation_cache import compilation_cache

settings.register_profile("jaxctc", deadline=None, derandomize=True, print_blob=False)
settings.load_profile("jaxctc")


@pytest.fixture(autouse=True)
def _no_rank_promotion(request):
    # Flax relies on rank promotion, and the examples on Flax.
    mode = "allow" if request.path.name.startswith(("test_plate", "test_digits")) else "raise"
    with jax.numpy_rank_promotion(mode):
        yield


@pytest.fixture(scope="module")
def compile_once(tmp_path_factory):
    """Every run of a training script compiles the same step: let all but the first find it."""
    cached = {
        "jax_compilation_cache_dir": str(tmp_path_factory.mktemp("compiled")),
        "jax_persistent_cache_min_compile_time_secs": 0.5,
    }
    before = {name: getattr(jax.config, name) for name in cached}
    for name, value in cached.items():
        jax.config.update(name, value)
    compilation_cache.reset_cache()
    yield
    for name, value in before.items():
        jax.config.update(name, value)
    compilation_cache.reset_cache()
