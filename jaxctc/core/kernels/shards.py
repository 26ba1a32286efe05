"""A kernel for each device, in a program that the compiler splits over devices.

The compiler cannot look into a kernel. It is told which axis of each array is the batch: along
this axis it may split, and every device runs the function on its own sequences.
"""

from collections.abc import Callable, Sequence

from jax.experimental.custom_partitioning import custom_partitioning
from jax.sharding import NamedSharding, PartitionSpec

# An array's number of axes, and which of them is the batch.
Axes = tuple[int, int]


def per_device(run: Callable, operands: Sequence[Axes], results: Sequence[Axes]) -> Callable:
    """`run`, from arrays to a list of arrays; all of them have the axis of the batch."""

    @custom_partitioning
    def split(*operands):
        return run(*operands)

    def partition(mesh, arguments, found):
        # The first result decides, so that all arrays are split alike.
        names = found[0].sharding.spec[results[0][1]]

        def sharding(axes: Axes) -> NamedSharding:
            ndim, batch = axes
            return NamedSharding(
                mesh, PartitionSpec(*(names if i == batch else None for i in range(ndim)))
            )

        return mesh, run, [*map(sharding, results)], tuple(map(sharding, operands))

    rule, whole = _rule(operands, results)
    split.def_partition(partition, sharding_rule=rule, need_replication_factors=whole)
    return split


def _rule(operands: Sequence[Axes], results: Sequence[Axes]) -> tuple[str, tuple[str, ...]]:
    """In Shardy's notation: a name for every axis; and the names that are not to be split."""
    whole = []

    def name(axes: Axes, at: int) -> str:
        ndim, batch = axes
        names = ["b" if i == batch else f"x{at}y{i}" for i in range(ndim)]
        whole.extend(x for x in names if x != "b")
        return " ".join(names)

    left = ", ".join(name(axes, at) for at, axes in enumerate(operands))
    right = ", ".join(name(axes, at) for at, axes in enumerate(results, len(operands)))
    return f"{left} -> {right}", tuple(whole)
