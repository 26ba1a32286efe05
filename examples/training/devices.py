"""The devices of a run, and how arrays are sharded over them.

The mesh has two axes. Batches are sharded over `data`, and the layer that returns logits over
`model`. All other arrays are replicated. One program runs on all devices; the compiler inserts the
communication.
"""

from collections.abc import Callable, Sequence
from typing import Any

import grain
import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

AXES = ("data", "model")


def parse_mesh(text: str) -> dict[str, int | None]:
    """Returns the size of each axis; None for the axis that takes all remaining devices.

    Args:
      text: axes with or without sizes, such as "data", "model=2" or "data=4,model=2". By default
        the data axis takes the remaining devices, and the model axis has size 1.

    Raises:
      ValueError: If the text has another form.
    """
    sizes: dict[str, int | None] = {}
    for part in text.split(","):
        name, equals, size = part.partition("=")
        if name not in AXES or name in sizes or (equals and not (size.isdecimal() and int(size))):
            raise ValueError(
                f"--mesh is {text}; it must be like data, data=4, model=2 or data=4,model=2"
            )
        sizes[name] = int(size) if equals else None
    sizes = {"data": None, "model": 1} | sizes
    if not any(sizes.values()):
        raise ValueError(f"--mesh is {text}; it must give one of the two axes a size")
    return sizes


def mesh_shape(text: str, devices: int) -> tuple[int, int]:
    """Returns the sizes of the data axis and of the model axis for so many devices.

    Raises:
      ValueError: If `parse_mesh` does, or if the number of devices does not fit.
    """
    sizes = parse_mesh(text)
    known = int(np.prod([size for size in sizes.values() if size]))
    if known > devices or (None in sizes.values() and devices % known):
        raise ValueError(f"--mesh is {text}; it must fit the number of devices, {devices}")
    data, model = (sizes[name] or devices // known for name in AXES)
    return data, model


class Devices:
    """The mesh of a run, and the shardings on it.

    Args:
      mesh: as in `parse_mesh`.
      batch_size: examples per step.
      microbatches: the number of parts of each batch that are computed one after the other.
      head: the name of the layer that returns logits.

    Attributes:
      mesh: the mesh, with the axes `AXES`.
      batch_size, microbatches: as given.
      rows: the rows of each batch that this process reads.

    Raises:
      SystemExit: If the mesh does not fit the number of devices, or does not divide a batch.
    """

    def __init__(self, mesh: str, batch_size: int, *, microbatches: int = 1, head: str = "head"):
        devices = jax.devices()
        try:
            shape = mesh_shape(mesh, len(devices))
        except ValueError as error:
            raise SystemExit(str(error)) from None
        size = shape[0] * shape[1]
        if size < len(devices) and jax.process_count() > 1:
            raise SystemExit(
                f"--mesh is {mesh}; it must use all {len(devices)} devices of the processes"
            )
        if batch_size % (shape[0] * microbatches):
            parts = f"{shape[0]} devices on the data axis"
            parts += f" times {microbatches} microbatches" if microbatches > 1 else ""
            raise SystemExit(f"--batch-size is {batch_size}; it must be a multiple of {parts}")
        self.batch_size, self.microbatches, self._head = batch_size, microbatches, head
        # In the order of processes, so that the rows of each process are adjacent.
        self.mesh = Mesh(np.array(devices[:size]).reshape(shape), AXES, (AxisType.Auto,) * 2)
        self.everywhere = NamedSharding(self.mesh, PartitionSpec())
        self._split = NamedSharding(self.mesh, PartitionSpec("data"))
        held = self._split.addressable_devices_indices_map((batch_size,)).values()
        bounds = [index[0].indices(batch_size)[:2] for index in held if index]
        self.rows = range(min(a for a, _ in bounds), max(b for _, b in bounds))

    def batch(self, rows: Any) -> Any:
        """Returns the global batch, given this process's rows of it, a tree of arrays."""
        return jax.tree.map(
            lambda x: jax.make_array_from_process_local_data(
                self._split, x, (self.batch_size, *x.shape[1:])
            ),
            rows,
        )

    def place(self, values: Any) -> Any:
        """Returns a tree of weights or optimiser states, equal in all processes, on the mesh."""

        def put(path, x):
            names = {str(getattr(entry, "key", getattr(entry, "name", ""))) for entry in path}
            spec = self._head_spec(x.shape) if self._head in names else PartitionSpec()
            host = np.asarray(x)
            return jax.make_array_from_callback(
                host.shape, NamedSharding(self.mesh, spec), lambda index: host[index]
            )

        return jax.tree_util.tree_map_with_path(put, values)

    def _head_spec(self, shape: Sequence[int]) -> PartitionSpec:
        """Returns the sharding of classes if the model axis divides them, else that of inputs."""
        size = self.mesh.shape["model"]
        for axis in (-1, -2)[: len(shape)]:
            if shape[axis] % size == 0:
                return PartitionSpec(*[None] * (len(shape) + axis), "model")
        if len(shape) > 1:
            raise SystemExit(
                f"the model axis of --mesh is {size}; it must divide the {shape[-1]} classes "
                f"or the {shape[-2]} inputs of the layer {self._head}"
            )
        return PartitionSpec()


def on_one_device(values: Any) -> Any:
    """Returns arrays without sharding, on this process's first device.

    All processes must call this together.
    """

    def fetch(x: jax.Array) -> jax.Array:
        whole = x.is_fully_addressable or x.is_fully_replicated
        return jax.numpy.asarray(
            np.asarray(x) if whole else multihost_utils.process_allgather(x, tiled=True)
        )

    return jax.tree.map(fetch, values)


class Rows:
    """A source for Grain with only some rows of each batch: those that one process reads.

    Args:
      examples: all examples, in the order of the batches.
      batch_size: examples per global batch.
      rows: the rows of each batch to keep.
    """

    def __init__(self, examples: grain.MapDataset, batch_size: int, rows: range):
        self._examples, self._batch_size, self._rows = examples, batch_size, rows

    def __len__(self) -> int:
        return len(self._examples) // self._batch_size * len(self._rows)

    def __getitem__(self, index: int) -> Any:
        batch, row = divmod(index, len(self._rows))
        return self._examples[batch * self._batch_size + self._rows[row]]


def drawn_batches(
    draw: Callable[[int, np.random.Generator], Any],
    batch_size: int,
    seed: int,
    rows: range | None,
) -> grain.DatasetIterator:
    """Returns an endless iterator of batches of examples, each drawn anew by two threads.

    Example i depends only on `seed` and i, and the iterator's state is one number, so that a run
    can be continued with exactly the next batch.

    Args:
      draw: `draw(i, rng)` returns example i.
      batch_size: examples per global batch.
      seed: the seed.
      rows: the rows of each batch to return; None for all.
    """
    # 2**40 examples are endless in practice.
    dataset = grain.MapDataset.range(2**40).seed(seed).random_map(draw)
    rows = rows or range(batch_size)
    dataset = grain.MapDataset.source(Rows(dataset, batch_size, rows)).batch(len(rows))
    options = grain.ReadOptions(num_threads=2, prefetch_buffer_size=4)
    return iter(dataset.to_iter_dataset(options))
