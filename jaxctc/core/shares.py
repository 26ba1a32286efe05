"""Products that add their share of a parameter's gradient to the sum so far, in place.

``contribute(total, y, x)`` is ``(total, y + x @ total)``: what a product does to tangents. Its
transpose with respect to `total` and `y` is ``(total + x^T y, y)``: what a product does to
gradients; ``share(total, y, x)`` is the sum in it. Both are primitives of JAX: only a primitive can
have a transpose of its own and still support forward mode, batches and higher derivatives.
"""

import dataclasses
import functools

import jax
import jax.core
import jax.numpy as jnp
from jax import lax
from jax.extend.core import JaxprEqn, Primitive
from jax.interpreters import ad, batching, mlir

# How many numbers of a gradient are computed at a time: 16 MiB of float32.
BLOCK = 2**22


@dataclasses.dataclass(frozen=True)
class Product:
    """How to multiply the last axis of an array by a matrix; hashable."""

    axis: int  # the axis of the matrix that is summed over
    transposed: bool  # is the matrix the parameter's transpose?
    dtype: jnp.dtype  # of the matrix
    options: tuple  # the other parameters of `lax.dot_general`

    @classmethod
    def of(cls, eqn: JaxprEqn, transposed: bool) -> "Product":
        options = dict(eqn.params)
        ((_, (axis,)), _) = options.pop("dimension_numbers")
        matrix = eqn.invars[1].aval
        assert isinstance(matrix, jax.core.ShapedArray)
        return cls(axis, transposed, matrix.dtype, tuple(options.items()))

    def __call__(self, x: jax.Array, matrix: jax.Array) -> jax.Array:
        dimensions = (((x.ndim - 1,), (self.axis,)), ((), ()))
        return lax.dot_general(x, matrix, dimensions, **dict(self.options))

    def with_total(self, x: jax.Array, total: jax.Array) -> jax.Array:
        """The product of `x` and an array like the parameter, or like some of its rows."""
        matrix = total.astype(self.dtype)
        return self(x, matrix.T if self.transposed else matrix)

    def share(self, x: jax.Array, y: jax.Array, total: jax.Array) -> jax.Array:
        """The gradient with respect to `total`, if `y` is that with respect to the product."""
        return jax.linear_transpose(lambda t: self.with_total(x, t), total)(y)[0]

    @property
    def axis_of_classes(self) -> int:
        """The parameter's axis that is not summed over."""
        return self.axis if self.transposed else 1 - self.axis


@functools.partial(jax.custom_jvp, nondiff_argnums=(0,))
def multiply(
    product: Product, total: jax.Array, x: jax.Array, matrix: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """The accumulator of a parameter, unchanged, and the product of an array and the parameter.

    The tangent of the product comes from the array and the accumulator, not from the matrix.
    """
    return total, product(x, matrix)


@multiply.defjvp
def _multiply_jvp(product, primals, tangents):
    _, x, matrix = primals
    total_dot, x_dot, _ = tangents
    tangents = contribute_p.bind(total_dot, product(x_dot, matrix), x, product=product)
    return multiply(product, *primals), tuple(tangents)


contribute_p = Primitive("contribute")
contribute_p.multiple_results = True
share_p = Primitive("share")


@contribute_p.def_impl
def _contribute(total, y, x, *, product):
    return [total, y + product.with_total(x, total)]


@share_p.def_impl
def _share(total, y, x, *, product):
    return total + product.share(x, y, total)


def _share_by_blocks(total, y, x, *, product):
    """`_share` in the memory of one block of classes: a CPU stores a product before it adds it."""
    axis, classes = product.axis_of_classes, y.shape[-1]
    size = -(-classes // -(-total.size // BLOCK))

    def add(start, size, total):
        of = functools.partial(lax.dynamic_slice_in_dim, start_index=start, slice_size=size)
        block = _share(of(total, axis=axis), of(y, axis=-1), x, product=product)
        return lax.dynamic_update_slice_in_dim(total, block, start, axis)

    whole, rest = divmod(classes, size)
    total = lax.fori_loop(0, whole, lambda i, total: add(i * size, size, total), total)
    return add(whole * size, rest, total) if rest else total


@contribute_p.def_abstract_eval
def _contribute_type(total, y, x, *, product):
    return [total, y]


@share_p.def_abstract_eval
def _share_type(total, y, x, *, product):
    return total


def _contribute_jvp(primals, tangents, *, product):
    total, _, x = primals
    results = contribute_p.bind(*primals, product=product)
    total_dot, y_dot = (ad.instantiate_zeros(t) for t in tangents[:2])
    if type(tangents[2]) is not ad.Zero:
        y_dot = y_dot + product.with_total(tangents[2], total)
    return results, contribute_p.bind(total_dot, y_dot, x, product=product)


def _share_jvp(primals, tangents, *, product):
    total, y, x = primals
    result = share_p.bind(*primals, product=product)
    total_dot, y_dot = (ad.instantiate_zeros(t) for t in tangents[:2])
    if type(tangents[2]) is not ad.Zero:
        total_dot = total_dot + product.share(tangents[2], y, total)
    return result, share_p.bind(total_dot, y_dot, x, product=product)


def _contribute_transpose(cotangents, total, y, x, *, product):
    total_bar, y_bar = (ad.instantiate_zeros(c) for c in cotangents)
    y_needed = ad.is_undefined_primal(y)
    if ad.is_undefined_primal(total):
        total_bar = share_p.bind(total_bar, y_bar, x, product=product)
        return [total_bar, y_bar if y_needed else None, None]
    return [None, y_bar if y_needed else None, None]


def _share_transpose(total_bar, total, y, x, *, product):
    total_bar = ad.instantiate_zeros(total_bar)
    y_bar = product.with_total(x, total_bar) if ad.is_undefined_primal(y) else None
    return [total_bar if ad.is_undefined_primal(total) else None, y_bar, None]


def _contribute_batched(arguments, axes, *, product):
    total, y, x = arguments
    if axes[0] is None and None not in axes[1:]:
        # The batch shares the parameter: it is one more axis of the arrays, and the shares one sum.
        y, x = (jnp.moveaxis(a, axis, 0) for a, axis in zip((y, x), axes[1:], strict=True))
        return contribute_p.bind(total, y, x, product=product), (None, 0)
    of_one = lambda *one: _contribute(*one, product=product)[1]  # noqa: E731
    return [total, jax.vmap(of_one, axes)(*arguments)], (axes[0], 0)


def _share_batched(arguments, axes, *, product):
    return jax.vmap(functools.partial(_share, product=product), axes)(*arguments), 0


ad.primitive_jvps[contribute_p], ad.primitive_jvps[share_p] = _contribute_jvp, _share_jvp
ad.primitive_transposes[contribute_p] = _contribute_transpose
ad.primitive_transposes[share_p] = _share_transpose
batching.primitive_batchers[contribute_p] = _contribute_batched
batching.primitive_batchers[share_p] = _share_batched
mlir.register_lowering(contribute_p, mlir.lower_fun(_contribute, multiple_results=True))
_lower_share = mlir.lower_fun(_share, multiple_results=False)
_lower_share_by_blocks = mlir.lower_fun(_share_by_blocks, multiple_results=False)


def _lower_share_on_cpu(context, total, *rest, product):
    """By blocks: a CPU's product is an array of its own before it is added, others add in place."""
    # Blocks of an array that is sharded over devices would be sent between them.
    devices = getattr(context.module_context.axis_context, "num_devices", None)
    small = context.avals_in[0].size <= BLOCK
    lower = _lower_share if small or devices != 1 else _lower_share_by_blocks
    return lower(context, total, *rest, product=product)


mlir.register_lowering(share_p, _lower_share)
mlir.register_lowering(share_p, _lower_share_on_cpu, platform="cpu")
