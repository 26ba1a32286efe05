"""torch's `CTCLoss`, and torchaudio's `rnnt_loss` and `forced_align`, for JAX arrays.

* `ctc_loss`, `CTCLoss`: `torch.nn.functional.ctc_loss` and `torch.nn.CTCLoss`.
* `rnnt_loss`, `RNNTLoss`, `forced_align`: those of `torchaudio.functional` and
  `torchaudio.transforms`.
"""

from jaxctc.compat.torch.audio import RNNTLoss as RNNTLoss
from jaxctc.compat.torch.audio import forced_align as forced_align
from jaxctc.compat.torch.audio import rnnt_loss as rnnt_loss
from jaxctc.compat.torch.losses import CTCLoss as CTCLoss
from jaxctc.compat.torch.losses import ctc_loss as ctc_loss
