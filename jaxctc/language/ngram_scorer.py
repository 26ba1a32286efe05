"""A back-off n-gram model on the device."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
from jax import lax

from jaxctc.core import checks

Array = checks.ArrayLike  # of jax, or of numpy


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class NGramScorer:
    """An n-gram model as a `Scorer`; `NGram.scorer` makes it. The arrays are those of its tables.

    The state is a context. A label's n-gram is found by halving the range of n-grams after the
    context, in a number of steps that depends on the number of words only (on accelerators they are
    one kernel); where there is none, the next shorter context is tried, as many times as the order
    says.
    """

    label_word: Array  # int32 [C]: the model's word of each label
    unigram: Array  # float32 [words]
    offset: Array  # int32 [contexts + 1]
    word: Array  # int32 [n-grams]
    log_prob: Array  # float32 [n-grams]
    link: Array  # int32 [n-grams]
    backoff: Array  # float32 [contexts]
    first: Array  # int32: the context at the start
    end: Array  # int32: the word that is the end, -1 if there is none
    unknown: Array  # int32: the word that stands for those not in the model
    order: int = dataclasses.field(metadata={"static": True})

    @property
    def classes(self) -> int:
        """The number of labels C."""
        return self.label_word.shape[-1]

    def start(self) -> jax.Array:
        return jnp.asarray(self.first)

    def extend(self, state: jax.Array, label: jax.Array) -> tuple[jax.Array, jax.Array]:
        score, after = self._lookup(state, jnp.asarray(self.label_word)[label])
        return after, score

    def final(self, state: jax.Array) -> jax.Array:
        end = jnp.asarray(self.end)
        score, _ = self._lookup(state, jnp.maximum(end, 0))
        return jnp.where(end >= 0, score, 0)

    def extend_unknown(self, state: jax.Array) -> tuple[jax.Array, jax.Array]:
        # A lexicon has its own score for such a word, instead of that of <unk>.
        return self._lookup(state, jnp.asarray(self.unknown))[1], jnp.float32(0)

    def unigram_scores(self) -> jax.Array:
        return jnp.asarray(self.unigram)[jnp.asarray(self.label_word)]

    def _lookup(self, context: jax.Array, word: jax.Array) -> tuple[jax.Array, jax.Array]:
        """The score of a word after a context, and the context after it."""
        words = self.unigram.shape[0]
        middle = self.backoff.shape[0] - 1 - words  # n-grams that are contexts themselves
        score = jnp.asarray(self.unigram)[word]
        if self.order == 1:
            return score, jnp.zeros_like(word)
        if not self.word.size:  # a context that nothing follows still has its back-off
            return jnp.asarray(self.backoff)[context] + score, 1 + word
        link, log_prob = jnp.asarray(self.link), jnp.asarray(self.log_prob)
        after, found = 1 + word, jnp.bool_(False)
        owed = jnp.zeros_like(score)  # back-offs so far
        for _ in range(self.order - 1):
            place, here = self._find(context, word)
            hit = here & ~found
            longer = jnp.where(place < middle, 1 + words + place, link[place])
            score = jnp.where(hit, owed + log_prob[place], score)
            after = jnp.where(hit, longer, after)
            found |= hit
            # The empty context owes nothing.
            owed = jnp.where(found, owed, owed + jnp.asarray(self.backoff)[context])
            shorter = link[jnp.maximum(context - 1 - words, 0)]
            context = jnp.where(context > words, shorter, 0)
        return jnp.where(found, score, owed + score), after

    def _find(self, context: jax.Array, word: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Where the n-gram of a context and a word is, and whether it is there."""
        table, offset = jnp.asarray(self.word), jnp.asarray(self.offset)
        first, end = offset[context], offset[context + 1]
        # A context has at most as many n-grams as there are words. Those before the word's are
        # counted bit by bit, from the highest.
        bits = min(self.unigram.shape[0], table.size).bit_length()

        def add(i, place):
            further = place + (1 << (bits - 1 - i))
            less = table[jnp.minimum(further, table.size) - 1] < word
            return jnp.where((further <= end) & less, further, place)

        def in_a_loop(place):
            return lax.fori_loop(0, bits, add, place)

        def in_one_kernel(place):
            return functools.reduce(lambda place, i: add(i, place), range(bits), place)

        place = lax.platform_dependent(first, cpu=in_a_loop, default=in_one_kernel)
        last = jnp.minimum(place, table.size - 1)
        return last, (place < end) & (table[last] == word)
