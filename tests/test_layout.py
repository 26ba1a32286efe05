"""Imports of the package point one way."""

import ast
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "jaxctc"

# What each family may import besides itself. The order is that of the map in CONTRIBUTING.md.
CORE = {"core"}
AUTOMATA = CORE | {"language", "metrics"}
DECODING = AUTOMATA | {"automata"}
SEARCHES = DECODING | {"decoding"}
TRAINING = SEARCHES | {"ctc", "transducer"}
ALLOWED = {
    "core": set(),
    "metrics": CORE,
    "language": CORE,
    "automata": AUTOMATA,
    "decoding": DECODING,
    "ctc": SEARCHES,
    "transducer": SEARCHES,
    "training": TRAINING,
    "compat": TRAINING | {"training"},
}


def imported(source: str, file: str = "") -> set[str]:
    """The dotted names within the package that a module imports, wherever it does so.

    Imports whose module cannot be read from the source are errors.
    """
    names = set()
    for node in ast.walk(ast.parse(source, file)):
        if isinstance(node, ast.Name):
            assert node.id != "__import__", f"{file} calls __import__"
        elif isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file} has a relative import"
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    assert "importlib" not in {name.split(".")[0] for name in names}, f"{file} imports importlib"
    return {name for name in names if name.split(".")[0] == "jaxctc"}


def modules() -> dict[str, set[str]]:
    """For each module but the top one, the modules it imports."""
    files = {
        ".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts).removesuffix(
            ".__init__"
        ): path
        for path in PACKAGE.rglob("*.py")
    }

    def module_of(name: str) -> str:
        while name not in files:
            name = name.rpartition(".")[0]
        return name

    return {
        module: {module_of(name) for name in imported(path.read_text(), str(path))}
        for module, path in files.items()
        if module != "jaxctc"
    }


def violations(graph: dict[str, set[str]]) -> list[str]:
    """Every import that runs the other way, between families."""
    wrong = []
    for module, targets in graph.items():
        family = module.split(".")[1]
        for target in sorted(targets):
            other = [*target.split("."), ""][1]
            if other != family and other not in ALLOWED[family]:
                wrong.append(f"{module} imports {target}")
    return wrong


def circle(graph: dict[str, set[str]]) -> list[str]:
    """Modules that import each other in a circle; empty if there are none.

    A package's `__init__` hands on names of its modules, which then may import one another by way
    of the package: such an import counts as one of the module itself.
    """
    done: set[str] = set()

    def visit(module: str, path: list[str]) -> list[str]:
        if module in path:
            return [*path[path.index(module) :], module]
        if module in done:
            return []
        for target in sorted(graph.get(module, ())):
            if found := visit(target, [*path, module]):
                return found
        done.add(module)
        return []

    return next((found for module in sorted(graph) if (found := visit(module, []))), [])


def test_imports_point_one_way():
    assert not violations(modules())


def test_no_module_imports_itself_by_way_of_others():
    assert not circle(modules())


def test_every_family_is_known():
    families = {path.stem for path in PACKAGE.iterdir() if path.suffix == ".py" or path.is_dir()}
    assert families - {"__init__", "__pycache__", "py"} == ALLOWED.keys()


@pytest.mark.parametrize(
    ("module", "target"),
    [
        ("jaxctc.core.checks", "jaxctc.metrics"),
        ("jaxctc.ctc.loss", "jaxctc.transducer.lattice"),
        ("jaxctc.language.tables", "jaxctc.automata.arcs"),
        ("jaxctc.decoding.hashing", "jaxctc"),
    ],
)
def test_an_import_the_other_way_is_found(module, target):
    assert violations({module: {target}}) == [f"{module} imports {target}"]


def test_a_circle_is_found():
    assert circle({"a": {"b"}, "b": {"c"}, "c": {"a"}}) == ["a", "b", "c", "a"]
    assert circle({"a": {"a"}}) == ["a", "a"]


@pytest.mark.parametrize(
    "source",
    [
        "import jaxctc.ctc.loss",
        "import jaxctc.ctc.loss as loss",
        "from jaxctc.ctc import loss",
        "def late():\n    from jaxctc.ctc import loss",
        "if TYPE_CHECKING:\n    import jaxctc.ctc.loss",
    ],
)
def test_an_import_is_found_wherever_it_is(source):
    assert imported(source) == {"jaxctc.ctc.loss"}


@pytest.mark.parametrize(
    "source",
    [
        "from . import loss",
        "from ..ctc import loss",
        "import importlib",
        "from importlib import import_module",
        "loss = __import__('jaxctc.ctc.loss')",
    ],
)
def test_an_import_that_cannot_be_read_is_an_error(source):
    with pytest.raises(AssertionError):
        imported(source)
