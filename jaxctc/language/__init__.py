"""What a search can be told beyond the logits: language models and constraints.

* `NGram`: a back-off n-gram model from an ARPA file.
* `Lexicon`, `Grammar`, `Hotwords`: words, patterns and phrases that are allowed or preferred.
* `Automaton`: the dense table that all of these become, and that a search reads.
* `combine`: one automaton for several.
"""

from jaxctc.language.constraints import Grammar as Grammar
from jaxctc.language.constraints import Hotwords as Hotwords
from jaxctc.language.constraints import Lexicon as Lexicon
from jaxctc.language.ngram import NGram as NGram
from jaxctc.language.tables import Automaton as Automaton
from jaxctc.language.tables import combine as combine
