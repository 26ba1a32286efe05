"""Strict numerics for the package's tests: silent rank promotion is an error."""

import os

os.environ.setdefault("JAX_PLATFORMS", "cpu")

import jax
import pytest
from hypothesis import settings

settings.register_profile("jaxctc", deadline=None, derandomize=True, print_blob=False)
settings.load_profile("jaxctc")


@pytest.fixture(autouse=True)
def _no_rank_promotion(request):
    # Flax relies on rank promotion, and the examples on Flax.
    mode = "allow" if request.path.name.startswith("test_plate") else "raise"
    with jax.numpy_rank_promotion(mode):
        yield
