"""Makes the reference while the site is built: a page for each family, with all its public names.

Nothing is listed by hand, so nothing can be missing.
"""

import importlib
import inspect
import operator
import types

import jaxctc
import jaxctc.compat.flax

FAMILIES = {
    "ctc": "CTC",
    "transducer": "Transducers",
    "decoding": "Decoding",
    "language": "Language models and constraints",
    "automata": "Automata",
    "training": "Training beyond the likelihood",
    "metrics": "Error rates",
    "core": "Kernels and semirings",
    "compat": "Drop-ins",
}

# Public modules, with names that `jaxctc` itself lacks.
MODULES = {
    "automata": ("graphs", "topologies"),
    "core": ("kernels", "semirings"),
    "compat": ("compat.torch", "compat.keras", "compat.optax", "compat.flax"),
}


def names_of(family: str) -> list[str]:
    """A family's public names: functions first, then what they return."""
    values = {n: x for n, x in vars(jaxctc).items() if not n.startswith("_")}
    own = [n for n, x in values.items() if of_family(x) == family and family != "compat"]
    return sorted(own, key=lambda name: (inspect.isclass(values[name]), name.lower()))


def of_family(value: object) -> str:
    return getattr(value, "__module__", "").removeprefix("jaxctc.").split(".")[0]


def own_names(module: types.ModuleType) -> list[str]:
    """The public functions and classes of a module, or of the package behind it."""
    return [
        name
        for name, value in vars(module).items()
        if not name.startswith("_") and getattr(value, "__module__", "").startswith(module.__name__)
    ]


def path_of(name: str) -> str:
    """Where the reference finds it: a function whose module has its name, only by the module."""
    path = getattr(jaxctc, name).__module__
    return f"{path}.{name}" if path.endswith(f".{name}") else f"jaxctc.{name}"


def page(family: str) -> str:
    """The text of a family's page."""
    about = inspect.getdoc(importlib.import_module(f"jaxctc.{family}")) or ""
    about = about.replace("::\n", ":\n")  # the mark of a block of code in plain docstrings
    parts = [f"# {FAMILIES[family]}", about]
    parts += [f"::: {path_of(name)}" for name in names_of(family)]
    for name in MODULES.get(family, ()):
        module = operator.attrgetter(name)(jaxctc)
        parts += [f"## `jaxctc.{name}`", inspect.getdoc(module) or ""]
        parts += [f"::: jaxctc.{name}.{own}" for own in own_names(module)]
    return "\n\n".join(parts) + "\n"


def on_files(files, config):
    from mkdocs.structure.files import File

    for family in FAMILIES:
        files.append(File.generated(config, f"reference/{family}.md", content=page(family)))
    return files
