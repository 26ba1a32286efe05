"""The examples in README and docs run as they stand."""

import re
from pathlib import Path

import pytest

pytestmark = pytest.mark.usefixtures("compile_quickly")

ROOT = Path(__file__).parent.parent
README = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.S)


def test_the_readme_shows_training(capsys):
    exec(README[0], {})
    loss = float(capsys.readouterr().out.split()[0])
    assert 0 < loss < 0.5
    assert len(README[0].strip().splitlines()) <= 14


@pytest.mark.parametrize("block", README[1:])
def test_the_readme_runs(block):
    exec(block, {})


@pytest.mark.parametrize("name", ["automata", "vocabulary"])
def test_the_page_runs(name):
    page = (ROOT / "docs" / f"{name}.md").read_text()
    exec("".join(re.findall(r"```python\n(.*?)```", page, re.S)), {})


def test_links_lead_somewhere():
    documents = [ROOT / "README.md", ROOT / "examples" / "README.md", *(ROOT / "docs").glob("*.md")]
    for document in documents:
        for target in re.findall(r"\]\((?!http)([^)#]+)\)", document.read_text()):
            assert (document.parent / target).exists(), f"{document.name} links to {target}"
