"""Batches that several test files use."""

import numpy as np
import pytest
from transducer_searches import BATCH, D, T


@pytest.fixture(scope="module")
def encoder():
    return (1.5 * np.random.default_rng(1).normal(size=(BATCH, T, D))).astype(np.float32)
