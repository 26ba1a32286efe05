"""Functions with some of their operations replaced by those of a platform.

A topology's step and its derivative are written once, in operations of `jax.lax`. Kernels support
most of them. For the others, such as the shift of states, a kernel gives a rule.
"""

import itertools
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import jax
from jax.extend import core

# For the name of an operation, its rule: a function that takes a list of (operands, parameters),
# one for each operation of a group, and returns the list of their results. Operations of a group
# do not depend on each other. If a result is NotImplemented, that operation is not replaced.
Rules = Mapping[str, Callable[[list[tuple[list, dict[str, Any]]]], list]]

_CALLS = {"jit": "jaxpr", "pjit": "jaxpr", "custom_jvp_call": "call_jaxpr"}


def retarget(function: Callable, rules: Rules) -> Callable:
    """`function` of arrays in pytrees, with the operations named in `rules` replaced.

    It must read only its arguments.
    """

    def run(*arguments):
        jaxpr, result = jax.make_jaxpr(function, return_shape=True)(*arguments)
        results = _evaluate(jaxpr, jax.tree.leaves(arguments), rules)
        return jax.tree.unflatten(jax.tree.structure(result), results)

    return run


def _evaluate(jaxpr: core.ClosedJaxpr, operands: list, rules: Rules) -> list:
    body = jaxpr.jaxpr
    known = dict(zip([*body.constvars, *body.invars], [*jaxpr.consts, *operands], strict=True))

    def read(atom):
        return atom.val if isinstance(atom, core.Literal) else known[atom]

    for group in _groups(_needed(body)):
        values = [[read(atom) for atom in equation.invars] for equation in group]
        name = group[0].primitive.name
        found = [NotImplemented] * len(group)
        if name in rules:
            found = rules[name]([(v, e.params) for v, e in zip(values, group, strict=True)])
        for equation, operands, result in zip(group, values, found, strict=True):
            if result is NotImplemented and name in _CALLS:
                result = _evaluate(equation.params[_CALLS[name]], operands, rules)
            elif result is NotImplemented:
                result = equation.primitive.bind(*operands, **equation.params)
            results = result if equation.primitive.multiple_results else [result]
            known.update(zip(equation.outvars, results, strict=True))
    return [read(atom) for atom in body.outvars]


def _needed(body: core.Jaxpr) -> list:
    """The equations on which results depend; the trace of a derivative has many others."""
    wanted = {atom for atom in body.outvars if not isinstance(atom, core.Literal)}
    needed = []
    for equation in reversed(body.eqns):
        if wanted.intersection(equation.outvars):
            needed.append(equation)
            wanted.update(a for a in equation.invars if not isinstance(a, core.Literal))
    return needed[::-1]


def _groups(equations: list) -> Iterator[list]:
    """Groups of consecutive equations of one name, none of which reads another's result."""
    for _, run in itertools.groupby(equations, lambda equation: equation.primitive.name):
        group, made = [], set()
        for equation in run:
            if made.intersection(a for a in equation.invars if not isinstance(a, core.Literal)):
                yield group
                group, made = [], set()
            group.append(equation)
            made.update(equation.outvars)
        yield group


def each(rule: Callable) -> Callable:
    """A rule for groups, from a rule for one operation's operands and parameters."""
    return lambda group: [rule(*operands, **parameters) for operands, parameters in group]
