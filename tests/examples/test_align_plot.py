"""The picture of alignments: boundaries of spoken digits are near the known ones."""

import os
from pathlib import Path

import pytest

pytest.importorskip("matplotlib", reason="needs the `examples` extra")
pytest.importorskip("tensorboardX", reason="needs the `examples` extra")

import align_plot

SHARED = Path(__file__).parents[3] / "shared" / "fsdd" / "recordings"
DIGITS = Path(os.environ.get("JAXCTC_DIGITS", SHARED))


@pytest.mark.skipif(
    not DIGITS.is_dir(), reason=f"{DIGITS} is absent; JAXCTC_DIGITS may name another place"
)
def test_boundaries_of_digits_are_found(tmp_path, capsys):
    out = tmp_path / "align.png"
    assert align_plot.main(["--digits", str(DIGITS), "--out", str(out)]) == 0
    assert out.read_bytes().startswith(b"\x89PNG")
    assert float(capsys.readouterr().out.split()[2]) < 40  # milliseconds
