"""Programs compiled for chips that this machine does not have, and what their text says.

For an NVIDIA H100 this takes `pip install -e '.[gpu-compile]'` and Python 3.12 or later, for a TPU
v5e `pip install -e '.[tpu-compile]'`. Nothing is run.
"""

import contextlib
import os
import re
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import jax
from jax.experimental import topologies
from jax.sharding import SingleDeviceSharding

# What XLA asks a GPU about itself, as an H100 with 80 GB answers.
H100 = """
gpu_device_info {
  threads_per_block_limit: 1024
  threads_per_warp: 32
  shared_memory_per_block: 49152
  shared_memory_per_core: 233472
  threads_per_core_limit: 2048
  core_count: 132
  fpus_per_core: 128
  block_dim_limit_x: 2147483647
  block_dim_limit_y: 65535
  block_dim_limit_z: 65535
  memory_bandwidth: 3352320000000
  l2_cache_size: 52428800
  clock_rate_ghz: 1.98
  device_memory_size: 84942979072
  shared_memory_per_block_optin: 232448
  cuda_compute_capability { major: 9 }
  registers_per_core_limit: 65536
  registers_per_block_limit: 65536
}
platform_name: "CUDA"
runtime_version { major: 13 }
dnn_version_info { major: 9 minor: 12 }
device_description_str: "NVIDIA H100 80GB HBM3"
"""


def h100(config: str = H100):
    """The device, or one with another `config`, as the compiler knows it."""
    return h100s(1, config)[0]


def h100s(count: int, config: str = H100):
    """Several of them in one machine."""
    # Else jax's plugin would look for a GPU, and not be loaded where there is none.
    jax.config.update("jax_platforms", "cpu")
    return topologies.get_topology_desc(
        "h100", "cuda", target_config=config, topology=f"1x1x{count}"
    ).devices


def v5e():
    """The four chips of a host, as the compiler knows them."""
    os.environ.update(
        TPU_SKIP_MDS_QUERY="1",
        ALLOW_MULTIPLE_LIBTPU_LOAD="true",
        TPU_ACCELERATOR_TYPE="v5litepod-4",
        TPU_WORKER_HOSTNAMES="localhost",
        TPU_WORKER_ID="0",
    )
    return topologies.get_topology_desc(platform="tpu", topology_name="v5e:2x2").devices


def compiled(function: Callable, device, structs) -> jax.stages.Compiled:
    """`function` of arrays of these shapes, compiled for one device."""
    sharding = SingleDeviceSharding(device)
    structs = jax.tree.map(
        lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding), structs
    )
    return jax.jit(function).lower(*structs).compile()


class Count(NamedTuple):
    """What a program does so many times: outside of loops, and by loop `(trips, Count)`."""

    once: int
    loops: tuple = ()

    @property
    def total(self) -> int:
        return self.once + sum(trips * inside.total for trips, inside in self.loops)

    def plus(self, other: "Count") -> "Count":
        return Count(self.once + other.once, (*self.loops, *other.loops))

    def __str__(self) -> str:
        return f"{self.once}" + "".join(f" + {n} × ({inside})" for n, inside in self.loops)


# Operations of a compiled program for a GPU that are a launch each; others are views and such.
_LAUNCH = re.compile(
    r"^\s*(?:ROOT )?%?[\w.-]+ = .*? (fusion|custom-call|copy|copy-start|sort|reduce|scatter|gather"
    r"|dot|convolution|transpose|conditional|reduce-window|rng|iota|broadcast|add|compare|select"
    r"|multiply|dynamic-update-slice|dynamic-slice|call|while)\("
)


def launches(program: jax.stages.Compiled) -> Count:
    """Kernels that a program compiled for a GPU launches, counted in its text."""
    text = program.as_text() or ""
    bodies = dict(re.findall(r"^(?:ENTRY )?%?([\w.-]+) [^\n]*\{\n(.*?)^\}", text, re.M | re.S))

    def part(pattern: str, text: str) -> str:
        found = re.search(pattern, text, re.M)
        assert found, f"{pattern} is not in {text}"
        return found[1]

    def of(name: str) -> Count:
        count = Count(0)
        for line in bodies[name].splitlines():
            found = _LAUNCH.match(line)
            operation = found and found[1]
            if operation == "while":
                trips = part(r'"known_trip_count":\{"n":"(\d+)"\}', line)
                body = of(part(r"body=%?([\w.-]+)", line))
                count = count.plus(Count(0, ((int(trips), body),)))
            elif operation == "call":
                count = count.plus(of(part(r"to_apply=%?([\w.-]+)", line)))
            elif operation:
                count = count.plus(Count(1))
        return count

    return of(part(r"^ENTRY %?([\w.-]+)", text))


def kernels(program: jax.stages.Compiled) -> int:
    """How many of these are kernels of Pallas (Mosaic GPU), such as those of the recursion."""
    return (program.as_text() or "").count('custom_call_target="mosaic_gpu')


class Resources(NamedTuple):
    """What a kernel needs, as ptxas and Mosaic report it."""

    registers: int  # of each thread
    spilled: int  # bytes of registers that each thread keeps in memory
    shared_memory: int  # bytes of each block


@contextlib.contextmanager
def reported() -> Iterator[dict[str, Resources]]:
    """Fills the dictionary with the kernels that were compiled for a GPU within the block."""
    found: dict[str, Resources] = {}
    with tempfile.TemporaryDirectory() as folder:
        settings = {"MOSAIC_GPU_DUMP_TO": folder, "MOSAIC_GPU_DUMP_PTXAS": "1"}
        os.environ.update(settings)
        try:
            yield found
        finally:
            for name in settings:
                del os.environ[name]
        for path in Path(folder).glob("*.ptxas"):
            name, _, _ = path.stem.rpartition("_")  # without its number
            found[name] = _resources(
                path.read_text(), path.with_suffix(".resources.txt").read_text()
            )


def _resources(ptxas: str, mosaic: str) -> Resources:
    def sum_of(pattern: str, text: str) -> int:
        numbers = re.findall(pattern, text)
        assert numbers, f"{pattern} is not in {text}"
        return sum(map(int, numbers))

    return Resources(
        sum_of(r"Used (\d+) registers", ptxas),
        sum_of(r"(\d+) bytes spill", ptxas),
        sum_of(r"smem_scratch_bytes=(\d+)", mosaic),
    )


def temporary_bytes(program: jax.stages.Compiled) -> int:
    """The memory a program takes beside its arguments and results."""
    return _memory(program).temp_size_in_bytes


def added_bytes(program: jax.stages.Compiled) -> int:
    """The memory a program takes beside its arguments: temporary, and its results."""
    memory = _memory(program)
    return memory.temp_size_in_bytes + memory.output_size_in_bytes - memory.alias_size_in_bytes


def _memory(program: jax.stages.Compiled) -> Any:
    analysis = program.memory_analysis()
    assert analysis is not None
    return analysis
