"""Checks of what a search knows besides the logits, with one error message per mistake.

* `values`: labels, texts, n-grams and their files.
* `scorers`: what the methods of scorers return, and their states.
"""

from jaxctc.language.checks.scorers import holds_functions as holds_functions
from jaxctc.language.checks.scorers import is_traced as is_traced
from jaxctc.language.checks.scorers import known as known
from jaxctc.language.checks.scorers import methods as methods
from jaxctc.language.checks.scorers import readable as readable
from jaxctc.language.checks.scorers import scorer as scorer
from jaxctc.language.checks.scorers import state as state
from jaxctc.language.checks.scorers import state_fits as state_fits
from jaxctc.language.checks.scorers import tables as tables
from jaxctc.language.checks.values import begins as begins
from jaxctc.language.checks.values import ngrams as ngrams
from jaxctc.language.checks.values import no_blank as no_blank
from jaxctc.language.checks.values import ordered as ordered
from jaxctc.language.checks.values import saved_tables as saved_tables
from jaxctc.language.checks.values import several as several
from jaxctc.language.checks.values import texts as texts
