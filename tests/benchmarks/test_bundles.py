"""Cycles are counted in the text that libtpu writes, each loop as often as it runs."""

import pytest

from benchmarks.bundles import count, cycles

# A kernel: its grid of 6 programs takes two rounds more, and runs a loop of 40 rounds.
KERNEL = """\
LB: loop body
     0   :  { %s10_s0 = smov.u32 0  ;;  %s11_s1 = smov.u32 1 }
   0x1 LB: > { %s12_s2 = sadd.s32 1, %s13_s2 /* iteration index, stage = 1 */ }
   0x2   : > { %13 = vnop  ;;  %14 = sbr.rel (%p15_p0) target = $region8 /* a branch forward */ }
   0x3   :  {}
   0x4 LB: >> { %s20_s3 = sadd.s32 1, %s21_s3  ;;  %s21_s3 = sphi %s11_s1, %s20_s3 }
   0x5   : >> { %p22_p1 = scmp.ge.s32.totalorder %s20_s3, 40 /* loop exit test */ }
window_bounds: (48, 1, 5) */ }
   0x6   : > { %23 = sbr.rel (!%p22_p1) target = $region9 }
   0x7   : >> { %v1 = vadd.f32 %v0, %v0 }
   0x8   :  {}
   0x9   :  {}
   0xa   : > { %v2 = vadd.f32 %v1, %v1 }
   0xb   : > { %p24_p2 = scmp.ge.s32.totalorder %s12_s2, 8 /* loop exit test */ }
   0xc   :  { %25 = sbr.rel (!%p24_p2) target = $region10 }
   0xd   :  {}
   0xe   :  {}
   0xf   :  {}
  0x10   :  {}
  0x11   :  { %26 = vsyncpa [#allocation4], 1 }
"""
# XLA's own loop of 18 rounds, which calls a kernel and an operation equal to another.
PROGRAM = """\
     0   :  { %30 = inlined_call %s31_s0 /* %fusion.1 = fusion(%scores) */ }
   0x1 LB: > { %s32_s1 = sld [smem:[#allocation64_spill]] }
   0x2   : > { %33 = inlined_call %s34_s1 /* %kernel.3 = custom-call(%scores) */ }
   0x3   : > { %p36_p3 = scmp.lt.s32.totalorder %s35_s1, 18 }
   0x4   : > { %s37_s2 = scalar_select /*predicate=*/%p36_p3, /*on_true=*/1, /*on_false=*/0 }
   0x5   : > { %p38_p4 = scmp.eq.s32.totalorder %s37_s2, 0 }
   0x6   :  { %39 = sbr.rel (!%p38_p4) target = $region3 }
   0x7   :  {}
   0x8   :  {}
   0x9   :  {}
   0xa   :  {}
"""
HLO = """\
%body.1 (x: f32[8]) -> f32[8] {
  ROOT %add.1 = f32[8] add(%x, %x)
}

%body.2 (y: f32[8]) -> f32[8] {
  ROOT %add.2 = f32[8] add(%y, %y)
}

ENTRY %main (scores: f32[8]) -> f32[8] {
  %fusion.1 = f32[8] fusion(%scores), kind=kLoop, calls=%body.1, metadata={op_name="a"}
  %fusion.2 = f32[8] fusion(%scores), kind=kLoop, calls=%body.2, metadata={op_name="b"}
  ROOT %kernel.3 = f32[8] custom-call(%scores), custom_call_target="tpu_custom_call"
}
"""


def test_loops_count_as_often_as_they_run():
    assert str(count(KERNEL)) == "2 + 6 × (9 + 40 × (7))"
    assert count(KERNEL).total == 2 + 6 * (9 + 40 * 7)


def test_a_program_counts_what_it_calls(tmp_path):
    (tmp_path / "1-TLP-01-final_bundles.txt").write_text(PROGRAM)
    (tmp_path / "2-kernel.3-01-final_bundles.txt").write_text(KERNEL)
    (tmp_path / "2-kernel.3-00-schedule-analysis_final_bundles.txt").write_text("of another kind")
    with pytest.raises(ValueError, match=r"fusion.1 is called, and libtpu wrote no bundles of it"):
        cycles(tmp_path, HLO)
    (tmp_path / "3-fusion.2-01-final_bundles.txt").write_text("   0x0   :  {}\n   0x1   :  {}\n")
    assert str(cycles(tmp_path, HLO)) == "3 + 18 × (12 + 6 × (9 + 40 × (7)))"


@pytest.mark.parametrize(
    ("test", "rounds"),
    [
        ("%p1_p0 = scmp.gt.s32.totalorder %s1_s0, 16", 3),  # at 24
        ("%p1_p0 = pmov 1", 1),
        ("%p1_p0 = scmp.ge.s32.totalorder %s1_s0, %s9_s9", 1),  # unknown here
    ],
)
def test_other_ends_of_loops(test, rounds):
    start = "LB: > { %s1_s0 = sadd.s32 8, %s2_s0  ;;  %s2_s0 = sphi %s3_s0, %s1_s0 }"
    lines = [start, f": > {{ {test} }}", ":  { %2 = sbr.rel (!%p1_p0) target = $region2 }"]
    lines += [":  {}"] * 4
    text = "\n".join(f"  0x{i}   {line}" for i, line in enumerate(lines))
    assert count(text).total == 7 * rounds


def test_a_loop_without_an_end_is_an_error():
    with pytest.raises(ValueError, match=r"the loops at bundles \[1\] have no end"):
        count("   0x0   :  {}\n   0x1 LB: > {}\n")
