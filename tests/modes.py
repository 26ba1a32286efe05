"""Every public function with small arguments, for the modes of JAX in `test_modes.py`."""

import functools
import inspect

import jax
import jax.numpy as jnp
import numpy as np
from modes_arguments import (
    ARC_PAIR,
    ARCS,
    BLANKS,
    DECODED,
    DENOMINATOR,
    DURATION_LOGITS,
    FRAMES,
    GRAMMAR,
    HYPOTHESES,
    JOINT_LOGITS,
    JOINT_PAIR,
    LABELS,
    LENGTHS,
    LOGITS,
    NUMERATOR,
    OTHER_LOGITS,
    PADDED,
    PAIR,
    PENALTIES,
    PREDICTOR_LOGITS,
    PROJECTION,
    RANGES,
    REFERENCES,
    B,
    C,
    Case,
    decoder,
    flax_error_rate,
    joint,
    joint_with_durations,
    predictor,
    prefixes,
    random,
    start,
    state,
    time_major,
    transducer_start,
    transducer_state,
    without_internal,
)

import jaxctc
from jaxctc.compat import keras, optax, torch

CASES = {
    "ctc_loss": Case(jaxctc.ctc_loss, PAIR, (), (0,), over_classes=(0,)),
    "ctc_loss_from_features": Case(
        lambda *a: jaxctc.ctc_loss_from_features(
            lambda x: jnp.tanh(x) @ a[4] + a[5], *a[:4], frames_per_chunk=3
        ),
        PAIR,
        (PROJECTION, random(1, 1, C, seed=5)),
        (0, 4, 5),
    ),
    "ctc_posteriors": Case(jaxctc.ctc_posteriors, PAIR, (), (0,), over_classes=(0,)),
    "is_feasible": Case(jaxctc.is_feasible, PAIR[1:]),
    "forced_align": Case(jaxctc.forced_align, PAIR, (), (0,), over_classes=(0,)),
    "ctc_greedy_decode": Case(jaxctc.ctc_greedy_decode, (LOGITS, FRAMES)),
    "ctc_beam_search": Case(
        lambda *a: jaxctc.ctc_beam_search(*a[:2], beam_width=3, scorer=a[2]),
        (LOGITS, FRAMES),
        (GRAMMAR,),
    ),
    "ctc_beam_start": Case(start, (LOGITS,), constant=True),
    "ctc_beam_extend": Case(
        lambda *a: jaxctc.ctc_beam_extend(*a, blank_skip_threshold=0.4),
        (state(), LOGITS, FRAMES),
    ),
    "ctc_beam_finish": Case(jaxctc.ctc_beam_finish, (state(),)),
    "ctc_beam_commit": Case(jaxctc.ctc_beam_commit, (state(),)),
    "ctc_beam_rescore": Case(
        lambda *a: jaxctc.ctc_beam_rescore(a[0], scorer=a[1]), (state(),), (GRAMMAR,)
    ),
    "ctc_prefix_start": Case(jaxctc.ctc_prefix_start, (LOGITS, FRAMES)),
    "ctc_prefix_score": Case(
        jaxctc.ctc_prefix_score, (prefixes(), LOGITS, HYPOTHESES[:, None], FRAMES)
    ),
    "scorer_state": Case(
        lambda labels, scorer: jaxctc.scorer_state(scorer, labels), (REFERENCES,), (GRAMMAR,)
    ),
    "score_sequence": Case(
        lambda labels, scorer: jaxctc.score_sequence(scorer, labels), (REFERENCES,), (GRAMMAR,)
    ),
    "edit_distance": Case(jaxctc.edit_distance, (HYPOTHESES, REFERENCES)),
    "edit_operations": Case(jaxctc.edit_operations, (HYPOTHESES, REFERENCES)),
    "error_rate": Case(jaxctc.error_rate, (HYPOTHESES, REFERENCES), reduces=True),
    "fsa_score": Case(
        lambda x, frames, fsa: jaxctc.fsa_score(fsa, x, frames),
        (LOGITS, FRAMES),
        (DENOMINATOR,),
        (0,),
    ),
    "fsa_best_path": Case(
        lambda fsa, x, frames: jaxctc.fsa_best_path(fsa, x, frames), (NUMERATOR, LOGITS, FRAMES)
    ),
    "with_star": Case(lambda x: jaxctc.with_star(x, excluding=True), (LOGITS,), (), (0,)),
    "ctc_entropy": Case(jaxctc.ctc_entropy, PAIR, (), (0,), over_classes=(0,)),
    "ctc_label_priors": Case(jaxctc.ctc_label_priors, (LOGITS, FRAMES), (), (0,), reduces=True),
    "ctc_prior_loss": Case(
        lambda *a: jaxctc.ctc_prior_loss(*a[:4], log_priors=a[4]),
        PAIR,
        (np.log(np.full(C, 1 / C, np.float32)),),
        (0,),
    ),
    "ctc_mwer_loss": Case(
        lambda *a: jaxctc.ctc_mwer_loss(*a, beam_width=2), PAIR, (), (0,), over_classes=(0,)
    ),
    "mwer_loss": Case(
        jaxctc.mwer_loss, (-(random(B, 3) ** 2), np.arange(12).reshape(B, 3)), (), (0,)
    ),
    "lfmmi_loss": Case(
        lambda numerator, x, frames, denominator: jaxctc.lfmmi_loss(
            x, numerator, denominator, frames, boost=0.5, ctc_weight=0.1
        ),
        (NUMERATOR, LOGITS, FRAMES),
        (DENOMINATOR,),
        (1,),
    ),
    "consistency_loss": Case(jaxctc.consistency_loss, (LOGITS, OTHER_LOGITS, FRAMES), (), (0, 1)),
    "intermediate_ctc_loss": Case(
        lambda x, y, *rest: jaxctc.intermediate_ctc_loss(x, y[None], *rest),
        (LOGITS, OTHER_LOGITS, *PAIR[1:]),
        (),
        (0, 1),
    ),
    "self_condition": Case(
        lambda h, x, frames, p: jaxctc.self_condition(h, x, p, frames),
        (OTHER_LOGITS, LOGITS, FRAMES),
        (PROJECTION,),
        (0, 1, 3),
    ),
    "focal_loss": Case(jaxctc.focal_loss, (random(B) ** 2,), (), (0,)),
    "rnnt_loss": Case(
        functools.partial(jaxctc.rnnt_loss, **PENALTIES), JOINT_PAIR, (), (0,), over_classes=(0,)
    ),
    "rnnt_log_probs": Case(jaxctc.rnnt_log_probs, JOINT_PAIR, (), (0,), over_classes=(0,)),
    "hat_log_probs": Case(jaxctc.hat_log_probs, JOINT_PAIR, (), (0,), over_classes=(0,)),
    "rnnt_loss_from_log_probs": Case(jaxctc.rnnt_loss_from_log_probs, ARC_PAIR, (), (0, 1)),
    "rnnt_posteriors": Case(
        functools.partial(jaxctc.rnnt_posteriors, delay_penalty=0.125), ARC_PAIR, (), (0, 1)
    ),
    "rnnt_align": Case(functools.partial(jaxctc.rnnt_align, max_symbols=1), ARC_PAIR, (), (0, 1)),
    "rnnt_loss_from_joint": Case(
        lambda *a: jaxctc.rnnt_loss_from_joint(
            joint(a[5]), *a[:5], frames_per_chunk=2, max_symbols=1, **PENALTIES
        ),
        (LOGITS, PREDICTOR_LOGITS, *PAIR[1:]),
        (PROJECTION,),
        (0, 1, 5),
    ),
    "rnnt_loss_simple": Case(
        lambda *a: jaxctc.rnnt_loss_simple(*a, am_only_scale=0.2, **PENALTIES),
        (LOGITS, PREDICTOR_LOGITS, *PAIR[1:]),
        (),
        (0, 1),
    ),
    "rnnt_simple_log_probs": Case(
        jaxctc.rnnt_simple_log_probs, (LOGITS, PREDICTOR_LOGITS, *PAIR[1:]), (), (0, 1)
    ),
    "rnnt_prune_ranges": Case(
        lambda *a: jaxctc.rnnt_prune_ranges(*a, s_range=2),
        (np.exp(BLANKS), np.exp(ARCS), FRAMES, LENGTHS),
    ),
    "rnnt_prune": Case(
        jaxctc.rnnt_prune, (LOGITS, PREDICTOR_LOGITS, RANGES, FRAMES, LENGTHS), (), (0, 1)
    ),
    "rnnt_pruned_log_probs": Case(
        jaxctc.rnnt_pruned_log_probs,
        (JOINT_LOGITS[:, :, :2], LABELS, RANGES, FRAMES, LENGTHS),
        (),
        (0,),
    ),
    "rnnt_loss_pruned": Case(
        functools.partial(jaxctc.rnnt_loss_pruned, **PENALTIES),
        (JOINT_LOGITS[:, :, :2], LABELS, RANGES, FRAMES, LENGTHS),
        (),
        (0,),
    ),
    "tdt_loss": Case(
        lambda *a: jaxctc.tdt_loss(*a, durations=(1, 2), **PENALTIES),
        (JOINT_LOGITS, DURATION_LOGITS, *PAIR[1:]),
        (),
        (0, 1),
    ),
    "rnnt_with_star": Case(
        functools.partial(jaxctc.rnnt_with_star, star_weight=-0.5, star_excludes_next=True),
        ARC_PAIR,
        (),
        (0, 1),
    ),
    "w_transducer_loss": Case(
        functools.partial(jaxctc.w_transducer_loss, skip_score=-0.5, **PENALTIES),
        ARC_PAIR,
        (),
        (0, 1),
    ),
    "multi_blank_loss": Case(
        lambda *a: jaxctc.multi_blank_loss(*a, big_blanks={3: 2}, sigma=0.05, **PENALTIES),
        (JOINT_LOGITS, LABELS % 3, FRAMES, LENGTHS),
        (),
        (0,),
    ),
    "rnnt_greedy_decode": Case(
        decoder(jaxctc.rnnt_greedy_decode),
        (LOGITS, FRAMES),
        (PROJECTION,),
    ),
    "rnnt_beam_search": Case(
        decoder(jaxctc.rnnt_beam_search),
        (LOGITS, FRAMES),
        (PROJECTION,),
    ),
    "multi_blank_beam_search": Case(
        decoder(jaxctc.multi_blank_beam_search, big_blanks={3: 2}, beam_width=2),
        (LOGITS, FRAMES),
        (PROJECTION,),
    ),
    "multi_blank_greedy_decode": Case(
        decoder(jaxctc.multi_blank_greedy_decode, big_blanks={3: 2}),
        (LOGITS, FRAMES),
        (PROJECTION,),
    ),
    "tdt_greedy_decode": Case(
        decoder(jaxctc.tdt_greedy_decode, joint_with_durations, durations=(0, 1, 2)),
        (LOGITS, FRAMES),
        (PROJECTION,),
    ),
    "tdt_beam_search": Case(
        decoder(jaxctc.tdt_beam_search, joint_with_durations, durations=(0, 1, 2), beam_width=3),
        (LOGITS, FRAMES),
        (PROJECTION,),
    ),
    "tdt_posteriors": Case(
        lambda *a: jaxctc.tdt_posteriors(*a, durations=(0, 1)),
        (JOINT_LOGITS, DURATION_LOGITS, *PAIR[1:]),
    ),
    "tdt_align": Case(
        lambda *a: jaxctc.tdt_align(*a, durations=(0, 1)),
        (JOINT_LOGITS, DURATION_LOGITS, *PAIR[1:]),
    ),
    "rnnt_decode_start": Case(transducer_start, (LOGITS,), (PROJECTION,), constant=True),
    "rnnt_decode_extend": Case(
        lambda state, encoder, lengths, projection: jaxctc.rnnt_decode_extend(
            state, joint(projection), predictor(projection), encoder, lengths, max_symbols=2
        ),
        (transducer_state(), LOGITS, FRAMES),
        (PROJECTION,),
    ),
    "rnnt_decode_finish": Case(jaxctc.rnnt_decode_finish, (transducer_state(),)),
    "rnnt_decode_commit": Case(jaxctc.rnnt_decode_commit, (transducer_state(),)),
    "rnnt_internal_lm": Case(
        without_internal,
        (LOGITS, FRAMES),
        (PROJECTION, GRAMMAR),
    ),
    "CTCLoss": Case(
        time_major(jaxctc.CTCLoss(reduction="mean")), PAIR, (), (0,), batch_rank=1, reduces=True
    ),
    "torch.ctc_loss": Case(
        time_major(lambda *a: torch.ctc_loss(*a, reduction="none", zero_infinity=True)),
        PAIR,
        (),
        (0,),
        batch_rank=1,
    ),
    "torch.rnnt_loss": Case(
        lambda *a: torch.rnnt_loss(*a, clamp=0.1, blank=0, reduction="none"),
        JOINT_PAIR,
        (),
        (0,),
        batch_rank=1,
    ),
    "optax.ctc_loss": Case(optax.ctc_loss, PADDED, (), (0,), batch_rank=1),
    "optax.ctc_loss_with_forward_probs": Case(
        lambda *a: jax.tree.map(
            lambda x, axis: jnp.moveaxis(x, axis, 0),
            optax.ctc_loss_with_forward_probs(*a),
            (0, 1, 1),
        ),
        PADDED,
        (),
        (0,),
        batch_rank=1,
    ),
    "keras.ctc_loss": Case(
        keras.ctc_loss, (LABELS, LOGITS, LENGTHS, FRAMES), (), (1,), batch_rank=1
    ),
    "keras.ctc": Case(keras.ctc, (LABELS, LOGITS), (), (1,), batch_rank=1),
    "flax.ErrorRate": Case(flax_error_rate, (HYPOTHESES, REFERENCES), batch_rank=1, reduces=True),
}

# Built with numpy, on the host.
HOST = {
    "explain": lambda: [np.array(jaxctc.explain(LOGITS, LABELS))],
    "linear_fsa": lambda: jaxctc.linear_fsa([1, 2], weights=[-0.5, -0.25]),
    "union_fsa": lambda: jaxctc.union_fsa([jaxctc.linear_fsa([1, 2]), jaxctc.linear_fsa([1])]),
    "ngram_fsa": lambda: jaxctc.ngram_fsa([[1, 2], [2, 2]]),
    "ctc_fsa": lambda: jaxctc.ctc_fsa([1, 2, 2]),
    "compose": lambda: jaxctc.compose(jaxctc.topologies.CTC(), jaxctc.linear_fsa([1, 2])),
    "ctc_denominator": lambda: jaxctc.ctc_denominator([[1, 2], [2, 2]]),
    "combine": lambda: jax.tree.leaves(jaxctc.combine([GRAMMAR, GRAMMAR], weights=[1.0, 0.5])),
    "tabulate": lambda: jax.tree.leaves(jaxctc.tabulate(GRAMMAR)),
    "words": lambda: [
        np.array([(word.first, word.last) for word in row])
        for row in jaxctc.words(DECODED, "?abc", separator=3)
    ],
}


def public_functions() -> set[str]:
    """The names of all public functions, and of classes that are called like one."""
    names = {
        name for name, value in vars(jaxctc).items() if inspect.isfunction(value) and name[0] != "_"
    }
    for family in (torch, optax, keras):
        module = family.__name__.split(".")[-1]
        names |= {
            f"{module}.{name}"
            for name, value in vars(family).items()
            if inspect.isfunction(value)
            and value.__module__.startswith(family.__name__)
            and name[0] != "_"
        }
    # It takes a batch of one sequence, which cannot be sharded: see `forced_align`.
    names -= {"torch.forced_align"}
    return names | {"CTCLoss", "flax.ErrorRate"}
