"""Drop-in replacements with the names, argument orders and reductions of other frameworks.

* `jaxctc.compat.torch`: `torch.nn.CTCLoss`, `torch.nn.functional.ctc_loss` and
  `torchaudio.functional.rnnt_loss`.
* `jaxctc.compat.optax`: `optax.ctc_loss` and `optax.ctc_loss_with_forward_probs`.
* `jaxctc.compat.flax`: the error rate as a metric of Flax NNX. It needs flax and is not imported
  here.
"""

from jaxctc.compat import optax as optax
from jaxctc.compat import torch as torch
