"""The judge is a distribution, is the textbook's, starts afresh at each document, and survives the disk."""

import math
from pathlib import Path

import numpy as np
import pytest

from diffulex_edge.bench.judge import KneserNey
from diffulex_edge.errors import ArtefactError, UsageError

V, EOS = 12, 2


def corpus(seed: int = 0, documents: int = 60) -> np.ndarray:
    """Documents over the ids 3..9, each ending with EOS; 10 and 11 are never seen."""
    rng = np.random.default_rng(seed)
    texts = [
        np.append(3 + rng.choice(7, rng.integers(1, 20), p=[0.4, 0.2, 0.15, 0.1, 0.08, 0.05, 0.02]), EOS)
        for _ in range(documents)
    ]
    return np.concatenate(texts)


@pytest.mark.parametrize("order", [1, 2, 3, 5])
def test_the_judge_sums_to_one_after_seen_and_unseen_contexts(order):
    judge = KneserNey.train(corpus(), vocab_size=V, eos_id=EOS, order=order)
    rng = np.random.default_rng(1)
    for length in range(8):
        for high in (9, 12):  # up to 12: with tokens that were never seen
            context = rng.integers(3, high, length).tolist()
            p = _distribution(judge, context)
            assert p.sum() == pytest.approx(1, abs=1e-12), context
            assert (p > 0).all()


def _distribution(judge: KneserNey, context: list[int]) -> np.ndarray:
    """p over all of V; EOS cannot be scored inside a document, so it takes the stream that the judge itself reads."""
    streams = [np.array([EOS, *context, w]) for w in range(V)]
    return np.array([judge._probabilities(stream)[-1] for stream in streams])


def test_a_bigram_judge_equals_the_textbook_formula_by_hand():
    """Corpus a b | a b | a c (| is an end). One discount for all counts, since no count of counts reaches four."""
    a, b, c = 3, 4, 5
    judge = KneserNey.train(np.array([a, b, EOS, a, b, EOS, a, c, EOS]), vocab_size=6, eos_id=EOS, order=2)
    # bigrams: (|a) 3, (ab) 2, (ac) 1, (b|) 2, (c|) 1: n1 = 2, n2 = 2, D = 2 / (2 + 4)
    # continuations: a 1, b 1, c 1, | 2: n1 = 3, n2 = 1, D = 3 / 5
    high, low = 1 / 3, 3 / 5
    unigram_b = (1 - low) / 5 + (4 * low / 5) / 6
    p_b_after_a = (2 - high) / 3 + (2 * high / 3) * unigram_b
    (nats,) = judge.log_probs([[a, b]])
    assert nats[1] == pytest.approx(math.log(p_b_after_a), abs=1e-12)


def test_a_document_is_scored_the_same_alone_and_among_others():
    judge = KneserNey.train(corpus(), vocab_size=V, eos_id=EOS)
    texts = [[3, 4, 3, 5], [], [3], [9, 3, 3, 4, 4, 3]]
    for alone, among in zip([judge.log_probs([text])[0] for text in texts], judge.log_probs(texts), strict=True):
        np.testing.assert_array_equal(alone, among)
    assert [len(x) for x in judge.log_probs(texts)] == [4, 0, 1, 6]


def test_no_count_reaches_across_the_end_of_a_document():
    swapped = [np.array([3, 4, EOS]), np.array([5, 6, EOS]), np.array([7, 8, EOS])]
    judges = [
        KneserNey.train(np.concatenate([swapped[i] for i in order]), vocab_size=V, eos_id=EOS)
        for order in ([0, 1, 2], [2, 0, 1])
    ]
    a, b = (judge.log_probs([[3, 4], [5, 6], [7, 4]]) for judge in judges)
    for x, y in zip(a, b, strict=True):
        np.testing.assert_allclose(x, y, atol=1e-12)


def test_text_like_the_training_text_is_likelier_than_text_unlike_it():
    judge = KneserNey.train(corpus(documents=400), vocab_size=V, eos_id=EOS)
    held_out = np.split(corpus(seed=5), np.flatnonzero(corpus(seed=5) == EOS) + 1)[:-1]
    nats = -np.concatenate(judge.log_probs([d[:-1].tolist() for d in held_out])).mean()
    assert nats < math.log(7) - 0.05  # knows that the seven are not equally frequent
    assert -np.concatenate(judge.log_probs([[11, 10, 11]])).mean() > 2 * nats


def test_a_saved_judge_comes_back_equal_and_a_flipped_bit_is_found(tmp_path):
    path = tmp_path / "judge.npz"
    judge = KneserNey.train(corpus(), vocab_size=V, eos_id=EOS)
    judge.save(path, "train.bin of digest 12")
    again, trained_on = KneserNey.load(path)
    assert trained_on == "train.bin of digest 12"
    np.testing.assert_array_equal(again.log_probs([[3, 4, 5, 11, 3]])[0], judge.log_probs([[3, 4, 5, 11, 3]])[0])
    data = bytearray(path.read_bytes())
    for at in range(0, len(data), 97):
        broken = data.copy()
        broken[at] ^= 4
        path.write_bytes(broken)
        assert _refused(path) or _same(KneserNey.load(path)[0], judge)  # a few bits of the container carry nothing
    path.write_bytes(data[: len(data) // 2])
    with pytest.raises(ArtefactError, match=r"judge\.npz"):
        KneserNey.load(path)


def _refused(path: Path) -> bool:
    try:
        KneserNey.load(path)
    except ArtefactError as error:
        return str(path) in str(error)
    return False


def _same(a: KneserNey, b: KneserNey) -> bool:
    pairs = zip(a.levels, b.levels, strict=True)
    return all(np.array_equal(x.keys, y.keys) and np.array_equal(x.counts, y.counts) for x, y in pairs)


def test_ids_beyond_the_vocabulary_and_no_text_at_all_are_refused():
    with pytest.raises(UsageError, match="from 0 to 11"):
        KneserNey.train(np.array([3, 12, EOS]), vocab_size=V, eos_id=EOS)
    with pytest.raises(UsageError, match="given 0"):
        KneserNey.train(np.array([], dtype=np.int64), vocab_size=V, eos_id=EOS)
