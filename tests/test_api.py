"""The package's own conventions, for every public name."""

import importlib
import importlib.util
import inspect
import re
from pathlib import Path

import pytest

import jaxctc

PUBLIC = sorted(
    name
    for name, value in vars(jaxctc).items()
    if not name.startswith("_") and not inspect.ismodule(value)
)
FUNCTIONS = [n for n in PUBLIC if inspect.isfunction(getattr(jaxctc, n))]
POSITIONAL = {
    "logits",
    "labels",
    "logit_lengths",
    "label_lengths",
    "hypotheses",
    "references",
    "hypothesis_lengths",
    "reference_lengths",
}


CLASSES = [n for n in PUBLIC if inspect.isclass(getattr(jaxctc, n))]


@pytest.mark.parametrize("name", CLASSES)
def test_every_field_is_documented(name):
    value = getattr(jaxctc, name)
    fields = getattr(value, "_fields", getattr(value, "__dataclass_fields__", ()))
    for field in fields:
        assert re.search(rf"^ +{field}: ", value.__doc__, re.MULTILINE), field


@pytest.mark.parametrize("name", PUBLIC)
def test_lines_of_docstrings_break_where_the_reference_can_take_it(name):
    """Code over two lines shows its backticks there, and a number first begins a list."""
    for line in getattr(jaxctc, name).__doc__.splitlines():
        assert line.count("``") % 2 == 0, line
        assert not re.match(r" *\d+\. ", line), line


@pytest.mark.parametrize("name", PUBLIC)
def test_documented_with_an_example_and_on_the_map(name):
    value = getattr(jaxctc, name)
    assert value.__doc__
    assert value.__module__.startswith("jaxctc.")
    if not issubclass(value if inspect.isclass(value) else object, tuple):
        # The reference shows this section, of this name, as code.
        assert re.search(r"Examples:\n +>>>", value.__doc__), f"{name} has no example"
    if name in FUNCTIONS or name == "CTCLoss":
        family = value.__module__.split(".")[1]
        pages = jaxctc.__doc__ + getattr(jaxctc, family).__doc__
        assert f"`{name}`" in pages, f"{name} is not on the map of its family"


def test_every_module_of_the_package_can_be_imported_by_its_name():
    modules = {name: x for name, x in vars(jaxctc).items() if inspect.ismodule(x)}
    ours = {name: x for name, x in modules.items() if x.__name__.startswith("jaxctc.")}
    assert {"kernels", "semirings", "graphs", "topologies"} < ours.keys()
    for name, module in ours.items():
        if not name.startswith("_"):
            assert importlib.import_module(f"jaxctc.{name}") is module


def test_the_reference_has_every_public_name():
    docs = Path(__file__).parent.parent / "docs"
    spec = importlib.util.spec_from_file_location("hooks", docs / "hooks.py")
    hooks = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(hooks)
    pages = {family: hooks.page(family) for family in hooks.FAMILIES}
    for name in PUBLIC:
        entry = f"::: {hooks.path_of(name)}\n"
        found = [family for family, text in pages.items() if entry in text]
        # `CTCLoss` is a name of `compat.torch`, of which its page has the whole.
        assert found == ([] if name == "CTCLoss" else [hooks.of_family(getattr(jaxctc, name))])
    menu = (docs.parent / "mkdocs.yml").read_text()
    assert all(f"reference/{family}.md" in menu for family in pages)


@pytest.mark.parametrize("name", PUBLIC)
def test_results_are_described_without_a_colon_after_code(name):
    # The reference would show all before the first colon as the name of a type.
    found = re.search(r"Returns:\n((?:.+\n)+)", inspect.getdoc(getattr(jaxctc, name)) or "")
    kind, *more = re.split(r":\s", found[1]) if found else [""]
    assert not more or re.fullmatch(r"\s*[\w`.]+", kind), kind


@pytest.mark.parametrize("name", FUNCTIONS)
def test_optional_arguments_are_keyword_only_but_for_lengths(name):
    for parameter in inspect.signature(getattr(jaxctc, name)).parameters.values():
        if (
            parameter.kind is not inspect.Parameter.KEYWORD_ONLY
            and parameter.name not in POSITIONAL
        ):
            assert parameter.default is inspect.Parameter.empty, parameter.name
