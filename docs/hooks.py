"""Makes the reference while the site is built: a page for each family, with all its public names.

Nothing is listed by hand, so nothing can be missing.
"""

import importlib
import inspect
import types

import jaxctc

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


def modules_of(family: str) -> list[str]:
    """The modules of a family whose names are not also names of `jaxctc`."""
    if family == "compat":
        return [f"compat.{name}" for name in ("torch", "keras", "optax", "flax")]
    if family == "core":
        return ["kernels", "semirings"]
    found = vars(importlib.import_module(f"jaxctc.{family}")).items()
    return [n for n, x in found if isinstance(x, types.ModuleType) and hasattr(jaxctc, n)]


def names_of(family: str) -> list[str]:
    """A family's public names: functions first, then what they return."""
    values = {n: x for n, x in vars(jaxctc).items() if not n.startswith("_")}
    own = [n for n, x in values.items() if of_family(x) == family and family != "compat"]
    return sorted(own, key=lambda name: (inspect.isclass(values[name]), name.lower()))


def of_family(value: object) -> str:
    return getattr(value, "__module__", "").removeprefix("jaxctc.").split(".")[0]


def page(family: str) -> str:
    """The text of a family's page."""
    about = inspect.getdoc(importlib.import_module(f"jaxctc.{family}")) or ""
    parts = [f"# {FAMILIES[family]}", about]
    parts += [f"::: jaxctc.{name}" for name in names_of(family)]
    for module in modules_of(family):
        parts += [f"## `jaxctc.{module}`", f"::: jaxctc.{module}"]
        parts.append("    options:\n      show_root_heading: false\n      members: true")
    return "\n\n".join(parts).replace("\n\n    options", "\n    options") + "\n"


def on_files(files, config):
    from mkdocs.structure.files import File

    for family in FAMILIES:
        files.append(File.generated(config, f"reference/{family}.md", content=page(family)))
    return files
