"""The core, imported by all other packages; it imports none of them.

* `xfloat`: floating-point numbers with an exponent of their own.
* `semirings`: sums and products of path weights.
* `recursion`: the one scan; posteriors and best paths are its gradients.
* `kernels`: the recursion as one launch on a GPU or TPU, and `use`, which asks for it.
* `emissions`: log-probabilities of a few classes, without the log-softmax of all.
* `meshes`: support for `jax.shard_map` and for meshes with explicit axes.
* `checks`: checks of arguments, with one error message per mistake.
"""
