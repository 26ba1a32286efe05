"""The examples in README and docs run as they stand."""

import itertools
import re
from pathlib import Path

import jax
import pytest

ROOT = Path(__file__).parent.parent
README = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.S)


def test_the_readme_shows_training(capsys):
    exec(README[0], {})
    loss = float(capsys.readouterr().out.split()[0])
    assert 0 < loss < 0.5
    assert len(README[0].strip().splitlines()) <= 14


def code(page: Path) -> str:
    """The Python blocks of a page, which build on each other."""
    return "".join(re.findall(r"```python\n(.*?)```", page.read_text(), re.S))


# `tests/test_devices.py` runs the one on accelerators, on eight devices.
PAGES = [page for page in sorted((ROOT / "docs").rglob("*.md")) if code(page)]
PAGES = [page for page in PAGES if page.stem != "accelerators"]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_the_page_runs(page):
    with jax.numpy_rank_promotion("allow"):  # as users have it
        exec(code(page), {})


def test_links_lead_somewhere():
    folders = (ROOT / "docs").rglob("*.md"), (ROOT / "examples").rglob("*.md")
    documents = [*ROOT.glob("*.md"), *itertools.chain(*folders)]
    for document in documents:
        for target in re.findall(r"\]\((?!http)([^)#]+)\)", document.read_text()):
            if "reference/" not in target:  # made, and checked, while the site is built
                assert (document.parent / target).exists(), f"{document.name} links to {target}"
