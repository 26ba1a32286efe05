"""The recursion as one kernel launch where a chip has a kernel, else as a `lax.scan`.

* `use`: chooses between the two for everything traced inside it.

`recursion` asks `dispatch`, which holds the rules; `tpu` and `gpu` are the kernels. They are part
of `core` because the recursion stands on them: they import the semirings, and only the recursion
imports them.
"""

from jaxctc.core.kernels.choice import use as use
