"""Drop-in replacements with the names, argument orders and reductions of other frameworks.

* `jaxctc.compat.torch`: `CTCLoss` and `ctc_loss` of torch; `RNNTLoss`, `rnnt_loss` and
  `forced_align` of torchaudio.
* `jaxctc.compat.keras`: `keras.losses.CTC`, `keras.losses.ctc` and `keras.ops.ctc_loss`.
* `jaxctc.compat.optax`: `optax.ctc_loss` and `optax.ctc_loss_with_forward_probs`.
* `jaxctc.compat.flax`: the error rate as a metric of Flax NNX. It needs flax and is not imported
  here.
"""

from jaxctc.compat import keras as keras
from jaxctc.compat import optax as optax
from jaxctc.compat import torch as torch
