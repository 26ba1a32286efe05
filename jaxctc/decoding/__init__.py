"""What the searches of CTC and of transducers share.

* `Hypotheses`: what every decoder returns.
* `hashing`: hashes of label sequences, to find equal ones.
"""

from jaxctc.decoding.hypotheses import Hypotheses as Hypotheses
