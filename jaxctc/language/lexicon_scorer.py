"""A lexicon with a model of its words, composed while searching."""

import dataclasses
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from jaxctc.core import checks
from jaxctc.language.scorer import FORBIDDEN, Scorer, extend_unknown, weighted

Array = checks.ArrayLike  # of jax, or of numpy
STATIC = {"static": True}


class State(NamedTuple):
    """Where a hypothesis stands in a lexicon."""

    node: jax.Array  # int32: of the trie; the number of nodes, within a word not in it
    begun: jax.Array  # bool: has any label been read?
    context: Any  # the state of the model of words before the word at this node
    after: Any  # and after it, if the word ends here
    gain: jax.Array  # float32: what the end of the word here scores; -inf where none may end


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class LexiconScorer:
    """Words of a list and their model as a `Scorer`; `Lexicon.scorer` makes it.

    The model is asked once for each label that is read, for the word that ends with it. While the
    word is read, the best unigram of the words that it may become is given in advance, and
    taken back as it ends.
    """

    bits: Array  # uint32 [nodes, blocks]; see `trie.Trie`
    child: Array  # int32 [nodes, blocks]
    depth: Array  # int32 [nodes]
    spelled: Array  # int32 [nodes]: the first spelling that ends here, or -1
    next_spelled: Array  # int32 [spellings]: another that ends here, or -1
    entry: Array  # int32 [spellings]: the word of each
    best: Array  # float32 [nodes]: the best unigram score of the words below
    letter: Array  # bool [C]: labels that words are made of
    begins: Array | None  # bool [C]: labels that begin a word, if there are such
    separator: Array  # int32: the label between words, -1 if there is none
    model: Scorer | None
    weight: Array  # float32: of the model
    word_score: Array  # float32: for each word
    unknown: Array | None  # float32 [2]: for a word that is not in the list, and for its letters
    lookahead: bool = dataclasses.field(metadata=STATIC)
    many: bool = dataclasses.field(metadata=STATIC)  # may there be several words, or none?
    homographs: int = dataclasses.field(metadata=STATIC)  # most words of one spelling

    @property
    def classes(self) -> int:
        """The number of labels C."""
        return self.letter.shape[-1]

    def start(self) -> State:
        context = () if self.model is None else self.model.start()
        return State(jnp.int32(0), jnp.bool_(False), context, context, jnp.float32(FORBIDDEN))

    def extend(self, state: State, label: jax.Array) -> tuple[State, jax.Array]:
        score, node, ends = self._read(state, label)
        context = jax.tree.map(lambda x, y: jnp.where(ends, x, y), state.after, state.context)
        after, gain = self._word(node, context)
        return State(node, jnp.bool_(True), context, after, gain), score

    def extend_scores(self, state: State, labels: jax.Array) -> jax.Array:
        return self._read(state, labels)[0]

    def final(self, state: State) -> jax.Array:
        at_start = ~state.begun & self.many
        gain = state.gain - self._ahead(state.node)
        end = jnp.float32(0)
        if self.model is not None:
            done = jax.tree.map(lambda x, y: jnp.where(at_start, x, y), state.context, state.after)
            end = self._of_model(self.model.final(done))
        return jnp.where(at_start, end, gain + end)

    def next_segment(self, state: State) -> State:
        # After a separator a sequence must go on with a word, but a segment may be silent.
        return state._replace(begun=state.begun & (state.node != 0))

    def _read(self, state: State, label: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
        """The scores of labels, where they lead, and whether they end the word before them."""
        ahead = self._ahead(state.node)
        score, node = self._letter(state.node, label)
        score -= ahead
        end = state.gain - ahead
        ends = label == jnp.asarray(self.separator)
        node = jnp.where(ends, 0, node)
        score = jnp.where(ends, end, score)
        if self.begins is not None:
            begins = jnp.asarray(self.begins)[label]
            first, root = self._letter(jnp.int32(0), label)
            score = jnp.where(begins, jnp.where(state.begun, end, 0) + first, score)
            node = jnp.where(begins, root, node)
            ends |= begins & state.begun
        return score, node, ends

    def _letter(self, node: jax.Array, label: jax.Array) -> tuple[jax.Array, jax.Array]:
        """The score of a letter of a word, without what was given in advance at the node before."""
        nodes, blocks = self.bits.shape
        inner = jnp.minimum(node, nodes - 1)
        bits, first = jnp.asarray(self.bits)[inner], jnp.asarray(self.child)[inner]
        block = label >> 5
        bits, first = (bits[0], first[0]) if blocks == 1 else (bits[block], first[block])
        bit = jnp.uint32(1) << (label & 31).astype(jnp.uint32)
        rank = lax.population_count(bits & (bit - jnp.uint32(1))).astype(jnp.int32)
        there = ((bits & bit) != 0) & (node < nodes)
        child = jnp.where(there, first + rank, 0)
        score = jnp.where(there, self._ahead(child), FORBIDDEN)
        if self.unknown is None:
            return score, child
        word, each = jnp.asarray(self.unknown)
        letters = jnp.asarray(self.depth)[inner] + 1
        strange = jnp.where(node < nodes, word + each * letters.astype(jnp.float32), each)
        strange = jnp.where(jnp.asarray(self.letter)[label], strange, FORBIDDEN)
        return jnp.where(there, score, strange), jnp.where(there, child, nodes)

    def _of_model(self, score: Any) -> jax.Array:
        """What a score of the model, maybe a Python number, adds."""
        return weighted(jnp.asarray(score, jnp.float32), jnp.asarray(self.weight))

    def _ahead(self, node: jax.Array) -> jax.Array:
        """What has been given in advance at a node."""
        if not self.lookahead:
            return jnp.float32(0)
        nodes = self.best.shape[0]
        best = jnp.asarray(self.best)[jnp.minimum(node, nodes - 1)]
        ahead = jnp.asarray(self.weight) * best + jnp.asarray(self.word_score)
        return jnp.where((node > 0) & (node < nodes), ahead, 0)

    def _word(self, node: jax.Array, context: Any) -> tuple[Any, jax.Array]:
        """The model's state after the word that ends at a node, and the word's score."""
        nodes = self.depth.shape[0]
        inner = jnp.minimum(node, nodes - 1)
        place = jnp.where(node < nodes, jnp.asarray(self.spelled)[inner], -1)
        known, after, gain = place >= 0, context, jnp.float32(FORBIDDEN)
        word_score, entry = jnp.asarray(self.word_score), jnp.asarray(self.entry)
        if self.model is None:
            gain = jnp.where(known, word_score, FORBIDDEN)
        else:
            # Where no word ends, all hypotheses look up the same, which costs no access to memory.
            asked = jax.tree.map(lambda x, y: jnp.where(known, x, y), context, self.model.start())
            for _ in range(self.homographs):  # of words spelled alike, the best after this context
                there = jnp.maximum(place, 0)
                other, score = self.model.extend(asked, entry[there])
                score = self._of_model(score) + word_score
                better = (place >= 0) & (score > gain)
                after = jax.tree.map(lambda x, y, b=better: jnp.where(b, x, y), other, after)
                gain = jnp.where(better, score, gain)
                place = jnp.where(place >= 0, jnp.asarray(self.next_spelled)[there], -1)
        if self.unknown is None:
            return after, gain
        word, each = jnp.asarray(self.unknown)
        strange = jnp.where(
            node < nodes, word + each * jnp.asarray(self.depth)[inner].astype(jnp.float32), 0
        )
        strange = jnp.where(node > 0, strange + word_score, FORBIDDEN)
        if self.model is not None:
            other, score = extend_unknown(self.model, context)
            strange += self._of_model(score)
            after = jax.tree.map(lambda x, y: jnp.where(known, x, y), after, other)
        return after, jnp.where(known, gain, strange)
