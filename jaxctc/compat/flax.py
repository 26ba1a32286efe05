"""Metrics for Flax NNX. This module needs flax, so import it by itself: `jaxctc.compat.flax`."""

import jax
import jax.numpy as jnp
from flax import nnx

from jaxctc.core import checks
from jaxctc.metrics import edit_distance


class ErrorRate(nnx.Metric):
    """`jaxctc.error_rate` over all batches since the last reset.

    Examples:
      >>> import jax.numpy as jnp
      >>> from flax import nnx
      >>> from jaxctc.compat.flax import ErrorRate
      >>> metrics = nnx.MultiMetric(character_error_rate=ErrorRate())
      >>> metrics.update(hypotheses=jnp.array([[1, 2, -1]]), references=jnp.array([[1, 2, 3, 4]]))
      >>> print(metrics.compute()["character_error_rate"])
      0.5
    """

    def __init__(self):
        self.edits = nnx.metrics.MetricState(jnp.int32(0))
        self.labels = nnx.metrics.MetricState(jnp.int32(0))

    def reset(self) -> None:
        """Forgets all batches."""
        self.edits[...] = jnp.int32(0)
        self.labels[...] = jnp.int32(0)

    def update(
        self,
        *,
        hypotheses: checks.ArrayLike,
        references: checks.ArrayLike,
        hypothesis_lengths: checks.ArrayLike | None = None,
        reference_lengths: checks.ArrayLike | None = None,
        **_,
    ) -> None:
        """Counts one more batch, with the arguments of `jaxctc.edit_distance`."""
        edits = edit_distance(hypotheses, references, hypothesis_lengths, reference_lengths)
        references = checks.integer_array("references", references)
        lengths = checks.lengths_of_labels("reference_lengths", reference_lengths, references)
        self.edits[...] += jnp.sum(edits, dtype=jnp.int32)
        self.labels[...] += jnp.sum(lengths, dtype=jnp.int32)

    def compute(self) -> jax.Array:
        """All edits divided by all labels of the references; by 1 if these have none."""
        return self.edits[...] / jnp.maximum(self.labels[...], 1)
