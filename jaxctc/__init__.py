"""CTC and sequence training for JAX."""

from jaxctc.ctc import CTCPosteriors as CTCPosteriors
from jaxctc.ctc import ctc_loss as ctc_loss
from jaxctc.ctc import ctc_posteriors as ctc_posteriors
from jaxctc.ctc import is_feasible as is_feasible
