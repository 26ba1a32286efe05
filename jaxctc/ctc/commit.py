"""Handing out what all hypotheses of a stream agree on."""

import jax
import jax.numpy as jnp

from jaxctc.core import meshes
from jaxctc.ctc import checks as ctc_checks
from jaxctc.ctc.beam_state import BeamState


def ctc_beam_commit(state: BeamState) -> tuple[jax.Array, jax.Array, BeamState]:
    """The labels that all hypotheses of a beam begin with, and the beam without them.

    A stream without end needs no longer hypotheses than its pieces: what is committed frees its
    room among the `max_labels`. Scores and frames still count from the start. If hypotheses agree
    on too little for too long, room runs out, and ``state.beam.full`` is True from there on.

    Args:
      state: What `ctc_beam_extend` returned.

    Returns:
      The labels, int32 ``[*batch, L]``, padded with -1; the frame of each, likewise, in the best
      alignment of the best hypothesis; and the state, for `ctc_beam_extend` and `ctc_beam_finish`.

    Raises:
      TypeError: If `state` is not a state.

    Examples:
      >>> import jax.numpy as jnp, jaxctc
      >>> sure = 9.0 * jnp.eye(4)[jnp.array([1, 0, 3])]
      >>> state = jaxctc.ctc_beam_start(beam_width=1, max_labels=4)
      >>> state = jaxctc.ctc_beam_extend(state, sure)
      >>> labels, frames, state = jaxctc.ctc_beam_commit(state)
      >>> print(labels, frames)
      [ 1  3 -1 -1] [ 0  2 -1 -1]
      >>> print(jaxctc.ctc_beam_finish(state).lengths)
      [0]
    """
    ctc_checks.beam_state("state", state)
    return _commit(state)


@meshes.jit(trailing=(1,))
def _commit(state):
    def one(state):
        beam, (width, room) = state.beam, state.labels.shape
        total = jnp.logaddexp(beam.blank, beam.label)
        live = total > -jnp.inf
        best = jnp.argmax(jnp.where(live, total, -jnp.inf))
        place = jnp.arange(room, dtype=jnp.int32)
        agrees = (state.labels == state.labels[best][None, :]) & (
            place[None, :] < beam.length[:, None]
        )
        agrees = jnp.all(agrees | ~live[:, None], axis=0)
        count = jnp.sum(jnp.cumprod(agrees.astype(jnp.int32)), dtype=jnp.int32)
        count = jnp.where(jnp.any(live), count, 0)
        ending = jnp.where(beam.best_blank[best] > beam.best_label[best], 0, width) + best

        def committed(x):
            return jnp.where(place < count, x, -1)

        def rest(x):
            moved = x[:, jnp.minimum(place + count, room - 1)]
            return jnp.where((place + count < room)[None, :], moved, -1)

        beam = beam._replace(length=jnp.where(beam.length < 0, beam.length, beam.length - count))
        after = state._replace(beam=beam, labels=rest(state.labels), frames=rest(state.frames))
        return committed(state.labels[best]), committed(state.frames[ending]), after

    for _ in state.frame_count.shape:
        one = jax.vmap(one)
    return one(state)
