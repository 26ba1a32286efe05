"""What everything else stands on; it imports nothing of the other packages.

* `xfloat`: floating-point numbers with an exponent of their own.
* `semirings`: what sums and products of path weights are.
* `recursion`: the one scan; posteriors and best paths are its gradients.
* `emissions`: log-probabilities of a few classes, without the log-softmax of all.
* `checks`: checks of arguments, one wording each.
"""
