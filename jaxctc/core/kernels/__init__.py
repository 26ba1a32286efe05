"""The recursion as one kernel launch, on platforms that have a kernel.

* `use`: chooses between the two for everything traced inside it.

`recursion` calls `dispatch`, which has the rules; `tpu` and `gpu` are the kernels. They are part
of `core` because only the recursion imports them, and they import only the semirings.
"""

from jaxctc.core.kernels.choice import use as use
