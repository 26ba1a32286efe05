"""Language models and constraints, which a search reads besides the logits.

* `Scorer`: the one protocol that all of these have, and any function of yours may have.
* `NGram`: a back-off n-gram model from an ARPA file, of any size.
* `Lexicon`, `Grammar`, `Hotwords`: words, patterns and phrases that are allowed or preferred.
* `combine`: the weighted sum of several scorers.
* `Automaton`: a scorer as dense tables; `tabulate` turns a small scorer into one.
* `score_sequence`: the score of whole label sequences; `scorer_state`: the state after them.
"""

from jaxctc.language.constraints import Grammar as Grammar
from jaxctc.language.constraints import Hotwords as Hotwords
from jaxctc.language.lexicon import Lexicon as Lexicon
from jaxctc.language.ngram import NGram as NGram
from jaxctc.language.scorer import Scorer as Scorer
from jaxctc.language.scorer import combine as combine
from jaxctc.language.sequences import score_sequence as score_sequence
from jaxctc.language.sequences import scorer_state as scorer_state
from jaxctc.language.tables import Automaton as Automaton
from jaxctc.language.tables import tabulate as tabulate
