"""A function with some of its operations done in a chip's own way.

A topology's step and its derivative are written once, in operations of `jax.lax`. A chip has most
of them. For the few it lacks, such as the shift of states, its kernel says what to do instead.
"""

import itertools
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import jax
from jax.extend import core

# By an operation's name: from a list of its operands and parameters, one for each of some such
# operations that do not wait for each other, a list of their results. A result may be
# NotImplemented: the operation is then done as it stands.
Rules = Mapping[str, Callable[[list[tuple[list, dict[str, Any]]]], list]]

_CALLS = {"jit": "jaxpr", "pjit": "jaxpr", "custom_jvp_call": "call_jaxpr"}


def retarget(function: Callable, rules: Rules) -> Callable:
    """`function` of arrays in pytrees, with the operations named in `rules` done by these.

    All that it reads must be among its arguments.
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
    """The equations on which results depend: a derivative's trace has many on which none does."""
    wanted = {atom for atom in body.outvars if not isinstance(atom, core.Literal)}
    needed = []
    for equation in reversed(body.eqns):
        if wanted.intersection(equation.outvars):
            needed.append(equation)
            wanted.update(a for a in equation.invars if not isinstance(a, core.Literal))
    return needed[::-1]


def _groups(equations: list) -> Iterator[list]:
    """Neighbours of one name of which none reads another's result."""
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
    """A rule for a group, from one that takes an operation's operands and parameters."""
    return lambda group: [rule(*operands, **parameters) for operands, parameters in group]
