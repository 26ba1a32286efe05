"""Logits sharded over classes: their programs reduce over the devices, and gather no logits."""

import pytest
from class_sharding import CASES, messages
from devices import run_on_eight_devices


def test_messages_are_found_and_measured():
    program = """
      %a = f32[2,48]{1,0} all-reduce(%b), channel_id=1
      %c = (f32[4,8]{1,0}, s32[4,8]{1,0}) all-gather-start(%d), channel_id=2
      ROOT %e = bf16[] all-to-all(%f)
    """
    sizes = [("all-reduce", 96), ("all-gather", 32), ("all-gather", 32), ("all-to-all", 1)]
    assert messages(program) == sizes


@pytest.mark.parametrize("kind", ["Auto", "Explicit"])
def test_no_logits_are_sent_and_the_numbers_are_those_of_one_device(kind):
    run_on_eight_devices(f"""
import jax
from class_sharding import CASES, run

kinds = (jax.sharding.AxisType.{kind},) * 2
mesh = jax.make_mesh((2, 4), ("data", "model"), axis_types=kinds)
assert len(CASES) == {len(CASES)}
for case in CASES.values():
    run(case, mesh)
""")
