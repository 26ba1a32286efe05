"""Objectives beyond the likelihood, and terms that are added to a CTC loss.

* `mwer_loss`, `ctc_mwer_loss`: the expected number of errors over an N-best list.
* `lfmmi_loss`, `ctc_denominator`: lattice-free MMI, boosted MMI, CTC-CRF.
* `ctc_entropy`, `ctc_label_priors`, `ctc_prior_loss`: against peaky alignments.
* `consistency_loss`, `intermediate_ctc_loss`, `self_condition`, `focal_loss`: regularisers.
"""

from jaxctc.training.entropy import ctc_entropy as ctc_entropy
from jaxctc.training.mmi import ctc_denominator as ctc_denominator
from jaxctc.training.mmi import lfmmi_loss as lfmmi_loss
from jaxctc.training.mwer import ctc_mwer_loss as ctc_mwer_loss
from jaxctc.training.mwer import mwer_loss as mwer_loss
from jaxctc.training.priors import ctc_label_priors as ctc_label_priors
from jaxctc.training.priors import ctc_prior_loss as ctc_prior_loss
from jaxctc.training.regularisers import consistency_loss as consistency_loss
from jaxctc.training.regularisers import focal_loss as focal_loss
from jaxctc.training.regularisers import intermediate_ctc_loss as intermediate_ctc_loss
from jaxctc.training.regularisers import self_condition as self_condition
