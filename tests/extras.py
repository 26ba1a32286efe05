"""What some tests need besides the package: optional packages, and real data.

Real data is looked for beside the checkout, or where an environment variable says.
"""

import os
from pathlib import Path

import jax
import pytest

_BESIDE = Path(__file__).parents[2] / "shared"
PLATES = Path(os.environ.get("JAXCTC_PLATES", _BESIDE / "plates"))
DIGITS = Path(os.environ.get("JAXCTC_DIGITS", _BESIDE / "fsdd" / "recordings"))
WORD_MODEL = Path(os.environ.get("JAXCTC_LM", _BESIDE / "lm")) / "en-us-2gram.arpa.gz"


def _needs(path: Path, variable: str) -> pytest.MarkDecorator:
    reason = f"{path} is absent; {variable} may name another place"
    return pytest.mark.skipif(not path.exists(), reason=reason)


memory_of_new_jax = pytest.mark.skipif(
    jax.__version_info__ < (0, 10, 2), reason="before jax 0.10.2, XLA copies the gradient once more"
)
needs_plates = _needs(PLATES, "JAXCTC_PLATES")
needs_digits = _needs(DIGITS, "JAXCTC_DIGITS")
needs_word_model = _needs(WORD_MODEL, "JAXCTC_LM")


def import_or_skip_examples(*more: str) -> None:
    """Skips the module that calls this unless the `examples` extra is installed."""
    for module in (
        "grain",
        "flax",
        "orbax.checkpoint",
        "optax",
        "tensorboardX",
        "safetensors",
        *more,
    ):
        pytest.importorskip(module, reason="needs the `examples` extra")


def import_or_skip_text() -> None:
    """Skips the module that calls this unless all of the `text` extra is installed."""
    import_or_skip_examples("cv2", "faker", "matplotlib")
    from text import fonts

    try:
        for unseen in (False, True):
            fonts.families("latin", unseen=unseen)
    except SystemExit as error:
        pytest.skip(str(error), allow_module_level=True)
