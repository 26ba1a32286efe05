"""Checks of arguments, with one error message per mistake.

* `arrays`: dtypes and shapes.
* `numbers`: single values.
* `sequences`: labels, lengths and batch axes.

Shapes and dtypes are always checked, since they are known while tracing; values only
when the array is concrete. Values are checked with numpy: inside a caller's `jit`, even a
jax operation on a concrete array is traced.
"""

from jaxctc.core.checks.arrays import ArrayLike as ArrayLike
from jaxctc.core.checks.arrays import concrete as concrete
from jaxctc.core.checks.arrays import field as field
from jaxctc.core.checks.arrays import integer_array as integer_array
from jaxctc.core.checks.arrays import labels_array as labels_array
from jaxctc.core.checks.arrays import logits_array as logits_array
from jaxctc.core.checks.arrays import numbers_array as numbers_array
from jaxctc.core.checks.arrays import returned_logits as returned_logits
from jaxctc.core.checks.numbers import at_least as at_least
from jaxctc.core.checks.numbers import batch_shape as batch_shape
from jaxctc.core.checks.numbers import class_from_either_end as class_from_either_end
from jaxctc.core.checks.numbers import class_id as class_id
from jaxctc.core.checks.numbers import finite as finite
from jaxctc.core.checks.numbers import flag as flag
from jaxctc.core.checks.numbers import floating as floating
from jaxctc.core.checks.numbers import function as function
from jaxctc.core.checks.numbers import non_negative as non_negative
from jaxctc.core.checks.numbers import one_of as one_of
from jaxctc.core.checks.numbers import positive as positive
from jaxctc.core.checks.numbers import probability as probability
from jaxctc.core.checks.numbers import real as real
from jaxctc.core.checks.numbers import real_from_zero as real_from_zero
from jaxctc.core.checks.numbers import semiring as semiring
from jaxctc.core.checks.numbers import shares as shares
from jaxctc.core.checks.numbers import static_int as static_int
from jaxctc.core.checks.numbers import static_real as static_real
from jaxctc.core.checks.numbers import wildcard_label as wildcard_label
from jaxctc.core.checks.sequences import SequencePair as SequencePair
from jaxctc.core.checks.sequences import broadcast as broadcast
from jaxctc.core.checks.sequences import common_batch as common_batch
from jaxctc.core.checks.sequences import labels_and_lengths as labels_and_lengths
from jaxctc.core.checks.sequences import lengths_array as lengths_array
from jaxctc.core.checks.sequences import lengths_of_labels as lengths_of_labels
from jaxctc.core.checks.sequences import lengths_of_paddings as lengths_of_paddings
from jaxctc.core.checks.sequences import logits_with_lengths as logits_with_lengths
from jaxctc.core.checks.sequences import sequence_pair as sequence_pair
