"""Makes the reference while the site is built: a page for each family, with all its public names.

Nothing is listed by hand, so nothing can be missing. Names in other pages link to it.
"""

import functools
import importlib
import inspect
import operator
import re
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
    about = re.sub(r"^\* `\w+`.*:(?:.*\n)(?:  .*\n)*", _if_public, about + "\n", flags=re.MULTILINE)
    parts = [f"# {FAMILIES[family]}", about]
    parts += [f"::: {path_of(name)}" for name in names_of(family)]
    for name in MODULES.get(family, ()):
        module = operator.attrgetter(name)(jaxctc)
        parts += [f"## `jaxctc.{name}`", inspect.getdoc(module) or ""]
        parts += [f"::: jaxctc.{name}.{own}" for own in own_names(module)]
    return "\n\n".join(parts) + "\n"


def _if_public(line: re.Match[str]) -> str:
    """A line of a package's map, if the reference has one of its names."""
    names = re.findall(r"`(\w+)`", line[0].split(":")[0])
    return line[0] if entries().keys() & set(names) else ""


@functools.cache
def entries() -> dict[str, str]:
    """What the reference has, by the ways in which pages write it."""
    found = {name: path_of(name) for family in FAMILIES for name in names_of(family)}
    found["CTCLoss"] = "jaxctc.compat.torch.CTCLoss"
    for name in (name for names in MODULES.values() for name in names):
        for own in own_names(operator.attrgetter(name)(jaxctc)):
            found[f"{name}.{own}"] = f"jaxctc.{name}.{own}"
    return found


# Code that is a name, perhaps called; not where it is a link, or part of longer code.
CODE = re.compile(r"(?<![`\[])`(jaxctc\.)?([\w.]+)(\([^`]*\))?`(?![`\]])")


def on_page_markdown(markdown, page, **_):
    """Links names to the reference, outside code and headings."""
    everywhere = page.file.src_uri == "functions.md"

    def link(match: re.Match[str]) -> str:
        prefix, name, _ = match.groups()
        # A plain word, such as `words`, may be something else.
        plain = name.islower() and name.isalpha() and not prefix and not everywhere
        path = None if plain else entries().get(name)
        return f"[{match[0]}][{path}]" if path else match[0]

    lines, code = [], False
    for line in markdown.split("\n"):
        code ^= line.lstrip().startswith("```")
        lines.append(line if code or line.startswith(("#", ":::")) else CODE.sub(link, line))
    return "\n".join(lines)


def on_files(files, config):
    from mkdocs.structure.files import File

    for family in FAMILIES:
        files.append(File.generated(config, f"reference/{family}.md", content=page(family)))
    return files
