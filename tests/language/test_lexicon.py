"""Lexicons with models of their words, against what they are defined as, in plain Python."""

import dataclasses
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from oracles import log_softmax, scores_of, sequences
from published import DATA

import jaxctc

SEPARATOR = 3
SPELLED = {"a": (1,), "c": (1, 2), "zzz": (2, 2, 1), "b": (2, 2)}
WEIGHT, BONUS = 0.75, 0.5


@pytest.fixture(scope="module")
def words():
    return jaxctc.NGram.from_arpa(DATA / "small.arpa", list(SPELLED))


def split(labels):
    """The words between separators; None where there is an empty one."""
    text = "".join(map(str, labels)).split(str(SEPARATOR))
    if text == [""]:
        return []
    return None if "" in text else [tuple(map(int, word)) for word in text]


def score(labels, model, unknown=None):
    """The score of a label sequence as `Lexicon.scorer` documents it."""
    said = split(labels)
    if said is None:
        return -math.inf
    spelled = {labels: word for word, labels in SPELLED.items()}
    names, extra = [], 0.0
    for word in said:
        if word not in spelled and unknown is None:
            return -math.inf
        if word not in spelled:
            extra += unknown[0] + unknown[1] * len(word)
        names.append(spelled.get(word, "<unk>"))
    total, before = extra + BONUS * len(names), model.log10_probability([], end=False)
    for i, name in enumerate(names):
        after = model.log10_probability(names[: i + 1], end=False)
        if name != "<unk>" or said[i] in spelled:
            total += WEIGHT * (after - before) * math.log(10)
        before = after
    end = model.log10_probability(names) - before
    return total + WEIGHT * end * math.log(10)


@pytest.mark.parametrize("lookahead", [True, False])
@pytest.mark.parametrize("unknown", [None, (-3.0, -0.25)])
def test_scores_are_those_of_words_and_model(words, lookahead, unknown):
    lexicon = jaxctc.Lexicon(list(SPELLED.values()), 4, SEPARATOR)
    scorer = lexicon.scorer(
        language_model=words.scorer(),
        weight=WEIGHT,
        word_score=BONUS,
        lookahead=lookahead,
        unknown=unknown,
    )
    every = [*sequences(range(1, 4), 6)]
    want = [score(labels, words, unknown) for labels in every]
    np.testing.assert_allclose(scores_of(scorer, every), want, rtol=1e-5, atol=5e-4)


def test_the_look_ahead_is_the_best_word_that_may_follow(words):
    lexicon = jaxctc.Lexicon(list(SPELLED.values()), 4, SEPARATOR)
    scorer = lexicon.scorer(language_model=words.scorer(), weight=WEIGHT, word_score=BONUS)
    _, given = scorer.extend(scorer.start(), np.int32(2))
    best = max(words.log10_probability([w], start=False, end=False) for w in ("zzz", "b"))
    assert given == pytest.approx(WEIGHT * best * math.log(10) + BONUS, rel=1e-5)


def test_several_spellings_and_words_spelled_alike(words):
    # "a" may be 1 or 2 2, which is also the spelling of "c"
    lexicon = jaxctc.Lexicon([[[1], [2, 2]], [2, 2], [2, 1]], 4, SEPARATOR)
    model = jaxctc.NGram.from_arpa(DATA / "small.arpa", ["a", "c", "d"])
    scorer = lexicon.scorer(language_model=model.scorer(end=False))
    for labels, choices in [
        ([1], ["a"]),
        ([2, 2], ["a", "c"]),
        ([2, 1, 3, 2, 2], ["d a", "d c"]),
    ]:
        want = max(model.log10_probability(c.split(), end=False) for c in choices) * math.log(10)
        assert jaxctc.score_sequence(scorer, labels) == pytest.approx(want, rel=1e-5)


def test_labels_that_begin_words(words):
    # 4 and 5 begin words, 1 and 2 go on
    lexicon = jaxctc.Lexicon([[4], [4, 1], [5, 2]], classes=6, word_begins={4, 5})
    model = jaxctc.NGram.from_arpa(DATA / "small.arpa", ["a", "c", "d"])
    scorer = lexicon.scorer(language_model=model.scorer(), word_score=BONUS)
    for labels, said in [
        ([4, 5, 2], "a d"),
        ([4, 1, 4, 4], "c a a"),
        ([], ""),
        ([5, 2], "d"),
        ([5], None),
        ([1], None),
        ([5, 4], None),
    ]:
        want = -math.inf
        if said is not None:
            want = model.log10_probability(said.split()) * math.log(10) + BONUS * len(said.split())
        assert jaxctc.score_sequence(scorer, labels) == pytest.approx(want, rel=1e-5)


def test_many_classes_and_words_against_a_set():
    rng = np.random.default_rng(0)
    spelled = {tuple(rng.integers(1, 70, rng.integers(1, 4)).tolist()) for _ in range(2000)}
    scorer = jaxctc.Lexicon(sorted(spelled), classes=70).scorer()
    tried = [*spelled, *(tuple(rng.integers(1, 70, 2).tolist()) for _ in range(500))]
    got = scores_of(scorer, tried)
    assert got == [0 if word in spelled else -math.inf for word in tried]


def test_whole_word_hotwords():
    hot = {(1, 2): 3.0, (2,): 1.0, (1, 3, 1): -2.0}
    scorer = jaxctc.Hotwords(hot, classes=4, separator=SEPARATOR).scorer()
    every = [*sequences(range(1, 4), 6)]
    for labels, got in zip(every, scores_of(scorer, every), strict=True):
        padded = (3, *labels, 3)
        want = sum(
            boost
            for word, boost in hot.items()
            for i in range(len(padded))
            if padded[i : i + len(word) + 2] == (3, *word, 3)
        )
        assert got == pytest.approx(want, abs=1e-5)


@pytest.mark.parametrize("unknown", [None, (-3.0, -0.25)])
def test_a_wide_search_finds_the_best_of_all_sequences(words, unknown):
    logits = np.random.default_rng(0).normal(size=(4, 5, 4)).astype(np.float32)
    lexicon = jaxctc.Lexicon(list(SPELLED.values()), 4, SEPARATOR)
    scorer = lexicon.scorer(
        language_model=words.scorer(), weight=WEIGHT, word_score=BONUS, unknown=unknown
    )
    found = jaxctc.ctc_beam_search(logits, beam_width=300, scorer=scorer, scorer_weight=0.5)
    every = [*sequences(range(1, 4), 5)]
    for b in range(4):
        wide = np.broadcast_to(logits[b], (len(every), 5, 4))
        padded = np.array([[*labels, *[-1] * (5 - len(labels))] for labels in every])
        lengths = np.array([len(labels) for labels in every])
        exact = -np.asarray(jaxctc.ctc_loss(wide, np.maximum(padded, 1), None, lengths))
        total = exact + 0.5 * np.array([score(labels, words, unknown) for labels in every])
        order = np.argsort(-total)[:5]
        assert found.complete[b, :5].all()
        got = [tuple(x[x >= 0].tolist()) for x in np.asarray(found.labels[b, :5])]
        assert got == [every[i] for i in order]
        np.testing.assert_allclose(found.scores[b, :5], exact[order], atol=1e-4)


def test_unfinished_words_come_last_and_say_so(words):
    log_probs = np.full((4, 4), -9.0, np.float32)
    log_probs[[0, 1, 2, 3], [2, 0, 2, 0]] = -0.01  # "b", and then nothing of "zzz"
    lexicon = jaxctc.Lexicon([[1, 1], [2, 2, 1]], 4, SEPARATOR)
    found = jaxctc.ctc_beam_search(log_probs, beam_width=8, scorer=lexicon.scorer())
    complete = np.asarray(found.complete)
    assert complete.any()
    assert (np.diff(complete.astype(int)) <= 0).all()
    first = int(complete.sum())
    assert found.labels[first, :2].tolist() == [2, 2]
    assert found.scores[first] > found.scores[0]
    only = jaxctc.Lexicon([[2, 2, 1, 1, 1]], 4).scorer()
    found = jaxctc.ctc_beam_search(log_probs, beam_width=8, scorer=only)
    assert not found.complete.any()
    assert found.labels[0, :2].tolist() == [2, 2]


def test_pieces_equal_the_whole_bit_for_bit(words):
    logits = np.random.default_rng(2).normal(size=(2, 12, 4)).astype(np.float32)
    lexicon = jaxctc.Lexicon(list(SPELLED.values()), 4, SEPARATOR)
    hot = jaxctc.Hotwords({(1, 2): 2.0}, classes=4, separator=SEPARATOR).scorer()
    scorer = jaxctc.combine([lexicon.scorer(language_model=words.scorer()), hot])
    whole = jaxctc.ctc_beam_search(logits, beam_width=6, scorer=scorer)
    state = jaxctc.ctc_beam_start(batch=(2,), beam_width=6, max_labels=12, scorer=scorer)
    for piece in np.split(logits, 3, axis=1):
        state = jaxctc.ctc_beam_extend(state, piece, scorer=scorer)
    streamed = jaxctc.ctc_beam_finish(state, scorer=scorer)
    jax.tree.map(np.testing.assert_array_equal, streamed, whole)


def test_another_model_of_the_same_sizes_does_not_compile_anew(words):
    logits = np.random.default_rng(2).normal(size=(12, 4)).astype(np.float32)
    lexicon = jaxctc.Lexicon(list(SPELLED.values()), 4, SEPARATOR)
    search = jax.jit(lambda x, scorer: jaxctc.ctc_beam_search(x, beam_width=4, scorer=scorer))
    scorer = lexicon.scorer(language_model=words.scorer())
    first = search(logits, scorer)
    second = search(logits, lexicon.scorer(language_model=words.scorer(), weight=3.0))
    third = search(logits, dataclasses.replace(scorer, word_score=np.float32(2)))
    assert search._cache_size() == 1
    assert first.scorer_scores[0] != second.scorer_scores[0] != third.scorer_scores[0]


def test_numbers_and_models_may_be_traced(words):
    """With look-ahead; numbers of any kind are cast as those that are known."""
    lexicon, model = jaxctc.Lexicon(list(SPELLED.values()), 4, SEPARATOR), words.scorer()
    labels = np.array([[1, 2, 3, 2, 2, 3, 1, 1], [2, 2, 1, 3, 2, 2, 2, -1]])

    def score(numbers, model, **options):
        weight, word_score, *unknown = numbers
        options |= {"word_score": word_score, "unknown": tuple(unknown)}
        scorer = lexicon.scorer(language_model=model, weight=weight, **options)
        return jaxctc.score_sequence(scorer, labels)

    want = score((2.0, 1.0, -3.0, -0.5), model)
    np.testing.assert_allclose(score((2, 1, -3, -0.5), model, lookahead=False), want, rtol=1e-6)
    numbers = 2, jnp.bfloat16(1), -3.0, np.float32(-0.5)
    got = jax.jit(lambda *numbers: score(numbers, model))(*numbers)
    np.testing.assert_allclose(got, want, rtol=1e-6)
    with jax.enable_x64(True):
        got = jax.jit(lambda numbers, model: score(numbers, model))((2, 1.0, -3.0, -0.5), model)
    np.testing.assert_allclose(got, want, rtol=1e-6)
    # Without a model the numbers are all there is.
    got = jax.jit(lambda x: jaxctc.score_sequence(lexicon.scorer(word_score=x), labels[0, :5]))(1)
    assert got == 2

    def summed(unigram, lookahead):
        other = dataclasses.replace(model, unigram=unigram)
        return score((2.0, 1.0, -3.0, -0.5), other, lookahead=lookahead).sum()

    slopes = [jax.grad(summed)(jnp.asarray(model.unigram), ahead) for ahead in (True, False)]
    assert np.abs(slopes[1]).max() > 1
    np.testing.assert_allclose(*slopes, atol=1e-5)


def test_sums_of_probabilities_do_not_depend_on_the_look_ahead(words):
    logits = np.random.default_rng(3).normal(size=(10, 4)).astype(np.float32)
    lexicon = jaxctc.Lexicon(list(SPELLED.values()), 4, SEPARATOR)
    found = [
        jaxctc.ctc_beam_search(
            logits,
            beam_width=500,
            max_labels=5,
            scorer=lexicon.scorer(language_model=words.scorer(), lookahead=ahead),
        )
        for ahead in (True, False)
    ]
    many = int(min(h.complete.sum() for h in found))
    assert many > 10
    for field in ("labels", "complete"):
        np.testing.assert_array_equal(*(getattr(h, field)[:many] for h in found))
    for field in ("scores", "scorer_scores"):
        np.testing.assert_allclose(*(getattr(h, field)[:many] for h in found), atol=5e-4)
    assert np.isfinite(log_softmax(logits)).all()


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: jaxctc.Lexicon([[]], 4).scorer(), ValueError, r"words has \[\]; a word must not"),
        (
            lambda: jaxctc.Lexicon([[1, 3]], 4, 3).scorer(),
            ValueError,
            r"words has \[1, 3\]; a word must not be empty or contain the separator",
        ),
        (
            lambda: jaxctc.Lexicon([[1, 2]], 4, word_begins={2}).scorer(),
            ValueError,
            r"words has \[1, 2\]; a word must begin with a label of word_begins",
        ),
        (
            lambda: jaxctc.Lexicon([[1]], 4, 9).scorer(),
            ValueError,
            "separator is 9; it must be a class",
        ),
        (
            lambda: jaxctc.Lexicon([], 4).scorer(
                language_model=jaxctc.NGram({("a",): (-0.5, 0.0)}, []).scorer()
            ),
            ValueError,
            "words has length 0; with a language_model it must have a word",
        ),
        (
            lambda: jaxctc.Lexicon([[1]], 4).scorer(unknown=-3.0),
            TypeError,
            "unknown is -3.0; it must be two numbers",
        ),
        (
            lambda: jaxctc.Lexicon([[1]], 4).scorer(word_score=math.nan),
            ValueError,
            "word_score is nan; it must be finite",
        ),
    ],
)
def test_errors_name_the_argument(make, error, message):
    with pytest.raises(error, match=message):
        make()
