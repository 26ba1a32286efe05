"""What the searches of CTC and of transducers share.

* `Hypotheses`: what every decoder returns.
* `hashing`: hashes of label sequences, to find equal ones.
* `fusion`: scorers in a search.
* `normalise`: log-probabilities of a frame's classes, and confidences.
"""

from jaxctc.decoding.hypotheses import Hypotheses as Hypotheses
