"""Drop-ins with the names, argument orders and reductions of other frameworks.

* `jaxctc.compat.torch`: `torch.nn.CTCLoss` and `torch.nn.functional.ctc_loss`.
* `jaxctc.compat.optax`: `optax.ctc_loss` and `optax.ctc_loss_with_forward_probs`.
"""

from jaxctc.compat import optax as optax
from jaxctc.compat import torch as torch
