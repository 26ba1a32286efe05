"""A model that several files take."""

import pytest
from published import DATA, VOCABULARY

import jaxctc


@pytest.fixture(scope="module")
def model():
    return jaxctc.NGram.from_arpa(DATA / "small.arpa", VOCABULARY)
