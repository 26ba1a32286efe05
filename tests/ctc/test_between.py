"""Between pieces: what all agree on is handed out, scorers change, segments share a context."""

import jax
import numpy as np
import pytest

import jaxctc

T, C, W = 60, 5, 4


@pytest.fixture(scope="module")
def logits():
    # Less and less sure: a doubt leaves the beam once there are greater ones.
    generator = np.random.default_rng(0)
    path = generator.integers(0, C, (2, T))
    height = np.linspace(9, 4, T)[None, :, None]
    return (generator.normal(size=(2, T, C)) + height * np.eye(C)[path]).astype(np.float32)


@pytest.mark.parametrize("with_scorer", [False, True])
def test_committed_and_remaining_labels_are_those_of_the_whole(logits, with_scorer):
    scorer = jaxctc.Hotwords({(1, 2): 1.0}, classes=C).scorer() if with_scorer else None
    whole = jaxctc.ctc_beam_search(logits, beam_width=W, scorer=scorer)
    state = jaxctc.ctc_beam_start(batch=(2,), beam_width=W, max_labels=25, scorer=scorer)
    said, frames = [[], []], [[], []]
    for piece in np.split(logits, 6, axis=1):
        state = jaxctc.ctc_beam_extend(state, piece, scorer=scorer)
        labels, at, state = jaxctc.ctc_beam_commit(state, scorer=scorer)
        for b in range(2):
            said[b] += [c for c in np.asarray(labels[b]).tolist() if c >= 0]
            frames[b] += [t for t in np.asarray(at[b]).tolist() if t >= 0]
    assert not state.beam.full.any()
    assert min(map(len, said)) > 25  # more than there was room for at once
    rest = jaxctc.ctc_beam_finish(state, scorer=scorer)
    np.testing.assert_array_equal(rest.scores, whole.scores)
    np.testing.assert_array_equal(rest.scorer_scores, whole.scorer_scores)
    for b in range(2):
        for n in range(W):
            labels = [*said[b], *np.asarray(rest.labels[b, n, : rest.lengths[b, n]]).tolist()]
            assert labels == np.asarray(whole.labels[b, n, : whole.lengths[b, n]]).tolist()
        at = [*frames[b], *np.asarray(rest.frames[b, 0, : rest.lengths[b, 0]]).tolist()]
        assert np.abs(np.array(at) - np.asarray(whole.frames[b, 0, : len(at)])).max() <= 2


def test_hypotheses_that_differ_commit_nothing():
    logits = np.zeros((3, 3), np.float32)
    state = jaxctc.ctc_beam_start(beam_width=9, max_labels=3)
    state = jaxctc.ctc_beam_extend(state, logits)
    labels, frames, after = jaxctc.ctc_beam_commit(state)
    assert (labels == -1).all()
    assert (frames == -1).all()
    jax.tree.map(np.testing.assert_array_equal, after, state)


def test_a_stream_says_that_room_ran_out(logits):
    state = jaxctc.ctc_beam_start(batch=(2,), beam_width=W, max_labels=8)
    full = []
    for piece in np.split(logits, 6, axis=1):
        state = jaxctc.ctc_beam_extend(state, piece)
        full.append(bool(state.beam.full.all()))
    assert full[0] is False
    assert full[-1] is True
    with pytest.raises(TypeError, match="state has type int; it must be a BeamState"):
        jaxctc.ctc_beam_commit(3)
    with pytest.raises(ValueError, match="state was started with another scorer"):
        jaxctc.ctc_beam_commit(state, scorer=OLD)


def test_committed_frames_are_those_of_the_best_hypothesis():
    """Ranked as at the end, where a scorer and its end count."""
    hot = jaxctc.Hotwords({(2, 3): 3.0}, classes=4).scorer()
    options, batch = {"scorer": hot, "scorer_weight": 2.0}, 32
    logits = 3 * np.random.default_rng(0).normal(size=(batch, 6, 4)).astype(np.float32)
    state = jaxctc.ctc_beam_start(batch=(batch,), beam_width=2, max_labels=6, scorer=hot)
    state = jaxctc.ctc_beam_extend(state, logits, **options)
    labels, frames, _ = jaxctc.ctc_beam_commit(state, **options)
    best = jax.tree.map(lambda x: x[:, 0], jaxctc.ctc_beam_finish(state, **options))
    agreed = np.asarray(labels) >= 0
    np.testing.assert_array_equal(labels, np.where(agreed, best.labels, -1))
    np.testing.assert_array_equal(frames, np.where(agreed, best.frames, -1))
    other = jaxctc.ctc_beam_commit(state, scorer=hot, scorer_weight=0.0)[1]
    assert (other != frames).any()  # so the cases tell


def hotwords(*words, boost=1.0):
    return jaxctc.Hotwords(dict.fromkeys(words, boost), classes=C).scorer()


OLD, NEW = hotwords((1, 2), (3, 4, 1)), hotwords((2, 1), (4, 4, 3), boost=2.0)


def started(logits, scorer):
    state = jaxctc.ctc_beam_start(batch=(2,), beam_width=W, max_labels=T, scorer=scorer)
    return jaxctc.ctc_beam_extend(state, logits[:, :20], scorer=scorer)


def test_a_beam_that_is_read_again_has_the_new_scores(logits):
    state = jaxctc.ctc_beam_rescore(started(logits, OLD), scorer=NEW)
    state = jaxctc.ctc_beam_extend(state, logits[:, 20:30], scorer=NEW)
    found = jaxctc.ctc_beam_finish(state, scorer=NEW)
    want = jaxctc.score_sequence(NEW, found.labels)
    assert len({*np.asarray(want).ravel().tolist()}) > 2
    np.testing.assert_allclose(found.scorer_scores, want, atol=1e-5)
    # After a commit it begins with the state after what was handed out.
    said, _, state = jaxctc.ctc_beam_commit(started(logits, OLD), scorer=OLD)
    assert (said[:, 2] >= 0).all()
    after = jaxctc.scorer_state(NEW, said)
    state = jaxctc.ctc_beam_rescore(state, scorer=NEW, scorer_state=after)
    state = jaxctc.ctc_beam_extend(state, logits[:, 20:30], scorer=NEW)
    rest = jaxctc.ctc_beam_finish(state, scorer=NEW)
    np.testing.assert_array_equal(rest.scores, found.scores)
    begun = jaxctc.score_sequence(NEW, said, final=False)[:, None]
    np.testing.assert_allclose(rest.scorer_scores, want - begun, atol=1e-5)


def test_a_segment_that_is_read_again_begins_as_it_did():
    """After a hotword was begun and a word was ended; read again before and after a commit."""
    model = jaxctc.NGram(
        {("a",): (-0.25, 0.0), ("b",): (-0.5, 0.0), ("</s>",): (-1.0, 0.0)}, ["a", "b"]
    )
    words = jaxctc.Lexicon([[1], [2]], classes=4, separator=3)
    words = words.scorer(language_model=model.scorer())
    scorer = jaxctc.combine([words, jaxctc.Hotwords({(1, 3, 2): 2.0}, classes=4).scorer()])
    before = jaxctc.scorer_state(scorer, np.array([[1, 3], [2, 3]]))
    silent_and_not = 4 * np.eye(4, dtype=np.float32)[np.array([[0, 0, 0], [2, 3, 1]])]
    state = jaxctc.ctc_beam_start(
        batch=(2,), beam_width=2, max_labels=3, scorer=scorer, scorer_state=before
    )
    state = jaxctc.ctc_beam_extend(state, silent_and_not, scorer=scorer)
    read = jaxctc.ctc_beam_rescore(state, scorer=scorer, scorer_state=before)
    found, again = (jaxctc.ctc_beam_finish(x, scorer=scorer) for x in (state, read))
    assert found.lengths[:, 0].tolist() == [0, 3]
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, atol=1e-5), again, found)
    # What was handed out is no longer the scorer's: all hypotheses lose one number.
    said, _, state = jaxctc.ctc_beam_commit(state, scorer=scorer)
    assert (said[:, 0] >= 0).tolist() == [False, True]
    inside = jaxctc.scorer_state(scorer, said, state=before)
    read = jaxctc.ctc_beam_rescore(state, scorer=scorer, scorer_state=inside)
    rest, again = (jaxctc.ctc_beam_finish(x, scorer=scorer) for x in (state, read))
    np.testing.assert_array_equal(again.labels, rest.labels)
    lost = np.where(rest.scores > -np.inf, rest.scorer_scores - again.scorer_scores, 0)
    np.testing.assert_allclose(lost[0], 0, atol=1e-5)
    np.testing.assert_allclose(lost[1], 0.5 * np.log(10), atol=1e-5)  # a word less its end
    # A beam without a scorer so far gets one that knows the segment before.
    state = jaxctc.ctc_beam_start(batch=(2,), beam_width=2, max_labels=3)
    state = jaxctc.ctc_beam_extend(state, silent_and_not)
    read = jaxctc.ctc_beam_rescore(state, scorer=scorer, scorer_state=before)
    again = jaxctc.ctc_beam_finish(read, scorer=scorer)
    assert again.lengths[:, 0].tolist() == [0, 3]
    np.testing.assert_allclose(again.scorer_scores[:, 0], found.scorer_scores[:, 0], atol=1e-5)


def test_hypotheses_that_a_new_scorer_forbids_leave_the_beam(logits):
    state = started(logits, OLD)
    found = jaxctc.ctc_beam_finish(state, scorer=OLD)
    only = np.asarray(found.labels[0, 1, : found.lengths[0, 1]])
    grammar = jaxctc.Grammar([[{int(label)} for label in only]], C, blank_id=0).scorer()
    state = jaxctc.ctc_beam_rescore(state, scorer=grammar)
    left = jaxctc.ctc_beam_finish(state, scorer=grammar)
    np.testing.assert_array_equal(left.lengths[0], [len(only), 0, 0, 0])
    np.testing.assert_array_equal(left.scores[0], [found.scores[0, 1], *[-np.inf] * (W - 1)])


def test_numbers_of_a_scorer_may_change_between_pieces(logits):
    """Then each label has the score of the scorer that read it."""
    stronger = hotwords((1, 2), (3, 4, 1), boost=3.0)
    state = jaxctc.ctc_beam_extend(started(logits, OLD), logits[:, 20:30], scorer=stronger)
    best = jax.tree.map(lambda x: x[:, 0], jaxctc.ctc_beam_finish(state, scorer=stronger))
    for b in range(2):
        labels = best.labels[b, : best.lengths[b]]
        first = int((best.frames[b, : best.lengths[b]] < 20).sum())
        want = jaxctc.score_sequence(OLD, labels[:first], final=False)
        want += jaxctc.score_sequence(stronger, labels)
        want -= jaxctc.score_sequence(stronger, labels[:first], final=False)
        np.testing.assert_allclose(best.scorer_scores[b], want, atol=1e-5)


def test_segments_share_a_context(logits):
    lengths = np.array([20, 18])
    first = jaxctc.ctc_beam_search(logits[:, :20], lengths, beam_width=W, max_labels=T, scorer=NEW)
    context = jaxctc.scorer_state(NEW, first.labels[:, 0])
    assert context[0] != context[1]
    second = jaxctc.ctc_beam_search(
        logits[:, 20:30], beam_width=W, scorer=NEW, scorer_state=context
    )
    for b in range(2):
        said = np.asarray(first.labels[b, 0, : first.lengths[b, 0]]).tolist()
        for n in range(W):
            more = np.asarray(second.labels[b, n, : second.lengths[b, n]]).tolist()
            want = jaxctc.score_sequence(NEW, [*said, *more]) - first.scorer_scores[b, 0]
            np.testing.assert_allclose(second.scorer_scores[b, n], want, atol=1e-5)
    # A stream may begin so too.
    state = jaxctc.ctc_beam_start(
        batch=(2,), beam_width=W, max_labels=10, scorer=NEW, scorer_state=context
    )
    state = jaxctc.ctc_beam_extend(state, logits[:, 20:30], scorer=NEW)
    jax.tree.map(np.testing.assert_array_equal, jaxctc.ctc_beam_finish(state, scorer=NEW), second)
    # Contexts go on from contexts.
    halves = first.labels[:, 0, :2], first.labels[:, 0, 2:]
    again = jaxctc.scorer_state(NEW, halves[1], state=jaxctc.scorer_state(NEW, halves[0]))
    np.testing.assert_array_equal(again, context)


SURE = 12.0 * np.eye(C, dtype=np.float32)


def segments(scorer, paths, after=()):
    """The best hypothesis of each segment of sure frames, each in the context of those before."""
    said: list[int] = []
    found, state = [], None
    for path in paths:
        best = jaxctc.ctc_beam_search(
            SURE[path], beam_width=16, scorer=scorer, scorer_weight=0.5, scorer_state=state
        )
        found.append(jax.tree.map(lambda x: x[0], best))
        labels = np.asarray(found[-1].labels[: found[-1].lengths]).tolist()
        said += labels + (list(after) if labels else [])
        state = jaxctc.scorer_state(scorer, np.array(said, int))
    return found


def test_scores_of_segments_add_up_to_that_of_the_whole():
    """Cut within hotwords, which are gone on with or not, and with a score of the end."""
    listed = {
        (w,): (-0.5 - 0.1 * i, -0.2) for i, w in enumerate(["1", "2", "3", "4", "</s>", "<s>"])
    }
    listed |= {("1", "2"): (-0.1, 0.0), ("3", "</s>"): (-0.05, 0.0), ("<s>", "4"): (-0.3, 0.0)}
    model = jaxctc.NGram(listed, ["", "1", "2", "3", "4"]).scorer()
    scorer = jaxctc.combine([hotwords((1, 2, 3), (3, 4, 1), boost=6.0), model])
    for paths in [
        ([0, 1, 0, 2], [3, 0, 3, 0], [4, 0]),  # "12|33|4": the first is gone on with
        ([4, 0, 1], [0, 0], [2, 0], [0, 4]),  # "41||2|4": it is not, after a silent segment
    ]:
        parts = segments(scorer, [np.array(path) for path in paths])
        whole = jaxctc.ctc_beam_search(
            SURE[np.concatenate(paths)], beam_width=16, scorer=scorer, scorer_weight=0.5
        )
        labels = [int(c) for part in parts for c in part.labels[: part.lengths]]
        assert labels == [c for path in paths for c in path if c]
        assert labels == np.asarray(whole.labels[0, : whole.lengths[0]]).tolist()
        total = sum(float(part.scorer_scores) for part in parts)
        np.testing.assert_allclose(total, whole.scorer_scores[0], atol=1e-5)
        assert all(part.complete for part in parts)


def test_a_silent_segment_after_words():
    """Nothing is said, so nothing is added, and it may end so."""
    listed = {("a",): (-0.3, 0.0), ("ab",): (-0.6, 0.0), ("</s>",): (-0.4, 0.0)}
    model = jaxctc.NGram(listed, ["a", "ab"]).scorer()
    lexicon = jaxctc.Lexicon([[1], [1, 2]], classes=C, separator=3)
    for unknown in (None, (-2.0, -1.0)):
        words = lexicon.scorer(language_model=model, word_score=0.5, unknown=unknown)
        scorer = jaxctc.combine([words, hotwords((1, 2, 3, 1), boost=2.0)])
        paths = [np.array(path) for path in ([0, 1, 2, 0], [0, 0, 0, 0], [0, 1, 0, 0])]
        first, silent, last = segments(scorer, paths, after=[3])
        assert first.labels.tolist() == [1, 2, -1, -1]
        assert silent.lengths == 0
        assert silent.complete
        assert silent.scorer_scores == 0
        assert last.labels.tolist() == [1, -1, -1, -1]
        whole = jaxctc.score_sequence(scorer, [1, 2, 3, 1])
        np.testing.assert_allclose(first.scorer_scores + last.scorer_scores, whole, atol=1e-5)
    # Cut within a word, which does not end there.
    begun = jaxctc.scorer_state(lexicon.scorer(), np.array([1, 2, 3], int))
    inside = jaxctc.Lexicon([[1, 2, 4]], classes=C, separator=3).scorer()
    within = jaxctc.scorer_state(inside, np.array([1, 2], int))
    for scorer, state, complete in ((lexicon.scorer(), begun, True), (inside, within, False)):
        found = jaxctc.ctc_beam_search(
            SURE[paths[1]], beam_width=1, scorer=scorer, scorer_state=state
        )
        assert found.lengths == 0
        assert found.complete == complete
        assert found.scorer_scores == 0
    # In one sequence a separator still wants a word after it.
    assert jaxctc.score_sequence(lexicon.scorer(), [1, 2, 3]) == -np.inf


def test_a_lexicon_goes_on_after_the_separator():
    lexicon = jaxctc.Lexicon([[1, 2], [1]], classes=4, separator=3).scorer()
    open_word = jaxctc.scorer_state(lexicon, [1, 2, 3, 1])
    closed = jaxctc.scorer_state(lexicon, [3], state=open_word)
    sure = 9.0 * np.eye(4, dtype=np.float32)[[2, 0]]
    found = [
        jaxctc.ctc_beam_search(sure, beam_width=1, scorer=lexicon, scorer_state=state)
        for state in (open_word, closed)
    ]
    assert [int(x.lengths[0]) for x in found] == [1, 0]  # "12" goes on, and no word is "2"


def test_errors_of_states_name_the_argument(logits):
    with pytest.raises(ValueError, match="scorer_state is given without a scorer"):
        jaxctc.ctc_beam_search(logits, scorer_state=np.int32(0))
    with pytest.raises(
        ValueError, match=r"scorer_state does not fit; it must have a state .*\(2,\)"
    ):
        jaxctc.ctc_beam_search(logits, scorer=NEW, scorer_state=np.int32(0))
    with pytest.raises(ValueError, match="state does not fit"):
        jaxctc.scorer_state(NEW, [1], state=np.float32(0))
    with pytest.raises(TypeError, match="state has type int; it must be a BeamState"):
        jaxctc.ctc_beam_rescore(3, scorer=NEW)
    # Of another number of classes: labels that it does not know.
    few, state = jaxctc.Hotwords({(1,): 1.0}, classes=3).scorer(), started(logits, OLD)
    with pytest.raises(ValueError, match="scorer reads 3 classes; it must read label 4"):
        jaxctc.ctc_beam_rescore(state, scorer=few)
    left = jax.jit(lambda state: jaxctc.ctc_beam_rescore(state, scorer=few))(state)
    assert (left.labels.max(axis=2) >= 3).all()
    assert (left.beam.blank == -np.inf).all()
    with pytest.raises(ValueError, match="scorer reads 3 classes; it must read 5"):
        jaxctc.ctc_beam_extend(state, logits, scorer=few)
