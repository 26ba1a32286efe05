"""Losses and best paths of any weighted automaton, instead of one label sequence.

* `Fsa`: an automaton as arrays of arcs.
* `fsa_score`, `fsa_best_path`: the total weight of all paths through the frames, and the best path.
* `linear_fsa`, `union_fsa`, `ngram_fsa`, `graphs`: graphs of labels.
* `ctc_fsa`, `compose`, `topologies`: automata of all alignments, from labels or graphs of labels.
* `with_star`: scores of a star, a class that matches any label missing from a transcript.
"""

from jaxctc.automata import graphs as graphs
from jaxctc.automata import topologies as topologies
from jaxctc.automata.arcs import Fsa as Fsa
from jaxctc.automata.graphs import linear_fsa as linear_fsa
from jaxctc.automata.graphs import ngram_fsa as ngram_fsa
from jaxctc.automata.graphs import union_fsa as union_fsa
from jaxctc.automata.score import FsaPath as FsaPath
from jaxctc.automata.score import fsa_best_path as fsa_best_path
from jaxctc.automata.score import fsa_score as fsa_score
from jaxctc.automata.stars import with_star as with_star
from jaxctc.automata.topologies import compose as compose
from jaxctc.automata.topologies import ctc_fsa as ctc_fsa
