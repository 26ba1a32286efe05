"""Language models and constraints, which a search reads besides the logits.

* `NGram`: a back-off n-gram model from an ARPA file.
* `Lexicon`, `Grammar`, `Hotwords`: words, patterns and phrases that are allowed or preferred.
* `Automaton`: the dense tables that all of these are turned into, and that a search reads.
* `combine`: one automaton from several.
"""

from jaxctc.language.constraints import Grammar as Grammar
from jaxctc.language.constraints import Hotwords as Hotwords
from jaxctc.language.constraints import Lexicon as Lexicon
from jaxctc.language.ngram import NGram as NGram
from jaxctc.language.tables import Automaton as Automaton
from jaxctc.language.tables import combine as combine
