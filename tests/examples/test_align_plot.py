"""The picture of alignments: boundaries of spoken digits are near the known ones."""

from extras import DIGITS, import_or_skip_examples, needs_digits

import_or_skip_examples("matplotlib")

import align_plot  # noqa: E402


@needs_digits
def test_boundaries_of_digits_are_found(tmp_path, capsys):
    out = tmp_path / "align.png"
    assert align_plot.main(["--digits", str(DIGITS), "--out", str(out)]) == 0
    assert out.read_bytes().startswith(b"\x89PNG")
    *lines, boundaries, _ = capsys.readouterr().out.splitlines()
    assert float(boundaries.split()[2]) < 40  # milliseconds
    assert "".join(line[0] for line in lines) == "31415926"
