"""Ranks of retrieval against brute force and hand-worked numbers."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from pipelines.measures.ranks import firsts, ranks
from pipelines.tasks.retrieval import of_ranks


def looked_up(matrix):
    """Embeddings that are row and column numbers, and the similarity that looks them up: any matrix at all."""
    xi = torch.as_tensor(np.asarray(matrix), dtype=torch.float32)
    text, visual = (np.arange(size, dtype=np.float32)[:, None] for size in xi.shape)
    return text, visual, lambda t, v: xi[t[:, 0].long()][:, v[:, 0].long()]


def naive(xi, clip):
    """METHODS 8.5, query by query: candidates above, and half of the others that tie."""

    def rank(candidates, own):
        return sum(x > own for x in candidates) + (sum(x == own for x in candidates) - 1) / 2

    t2v = [rank(xi[k], xi[k][clip[k]]) for k in range(len(xi))]
    v2t = []
    for j in range(len(xi[0])):
        column = [row[j] for row in xi]
        own = [column[k] for k in range(len(xi)) if clip[k] == j]
        v2t.append(rank(column, max(own)) if own else np.nan)
    return t2v, v2t


def test_a_case_worked_by_hand():
    # clip 0 has captions 0 and 1, clip 1 has caption 2, clip 2 has none
    xi = [[3, 1, 3], [2, 5, 4], [0, 2, 1]]
    t2v, v2t = ranks(*looked_up(xi)[:2], np.array([0, 0, 1]), looked_up(xi)[2])
    assert t2v.tolist() == [0.5, 2, 0]  # caption 0 ties with clip 2; caption 1's clip is last; caption 2's is first
    assert v2t.tolist()[:2] == [0, 1]  # clip 0's 3 leads its column; clip 1's 2 comes after caption 1's 5
    assert np.isnan(v2t[2])


def drawn(data):
    """Similarities (c, n) with many ties, the clip of each caption, and the size of tiles."""
    c, n, tile = (data.draw(st.integers(1, most)) for most in (9, 7, 5))
    xi = data.draw(st.lists(st.lists(st.integers(-2, 2), min_size=n, max_size=n), min_size=c, max_size=c))
    clip = np.array(data.draw(st.lists(st.integers(0, n - 1), min_size=c, max_size=c)))
    return xi, clip, tile


@given(st.data())
def test_ranks_equal_brute_force_with_many_ties(data):
    xi, clip, tile = drawn(data)
    text, visual, similarity = looked_up(xi)
    t2v, v2t = ranks(text, visual, clip, similarity, tile=tile)
    expected = naive(xi, clip)
    np.testing.assert_array_equal(t2v, expected[0])
    np.testing.assert_array_equal(v2t, expected[1])


@given(st.data())
def test_the_first_answer_is_the_largest_and_never_the_right_one_of_a_wrong_query(data):
    xi, clip, tile = drawn(data)
    text, visual, similarity = looked_up(xi)
    t2v, v2t = firsts(text, visual, clip, similarity, tile=tile)
    ranks_t2v, ranks_v2t = ranks(text, visual, clip, similarity)
    matrix = np.array(xi)
    c, n = matrix.shape
    assert matrix[np.arange(c), t2v].tolist() == matrix.max(1).tolist()
    assert matrix[v2t, np.arange(n)].tolist() == matrix.max(0).tolist()
    assert (t2v == clip).tolist() == (ranks_t2v == 0).tolist()
    shared = [np.sum(matrix[clip == j, j] == matrix[:, j].max()) for j in range(n)]  # a clip's captions that tie
    assert all((clip[v2t[j]] == j) == (ranks_v2t[j] == (shared[j] - 1) / 2) for j in range(n) if (clip == j).any())


@pytest.mark.parametrize("tile", [16, 64, 100, 1024])
def test_tiles_give_the_ranks_of_the_whole_matrix(tile):
    rng = np.random.default_rng(0)
    text, visual = (rng.standard_normal((size, 12), dtype=np.float32) for size in (300, 130))
    clip = rng.integers(0, 120, 300)  # the last clips have no captions
    rank = ranks(text, visual, clip, lambda t, v: t @ v.T, tile=tile)
    for ours, expected in zip(rank, naive((text @ visual.T).tolist(), clip), strict=True):
        np.testing.assert_array_equal(ours, expected)


def test_every_tile_has_one_shape_and_one_more_per_row_and_column_at_most():
    shapes = []

    def similarity(text, visual):
        shapes.append((text.shape, visual.shape))
        return text @ visual.T

    rng = np.random.default_rng(3)
    text, visual = (rng.standard_normal((size, 3), dtype=np.float32) for size in (50, 30))
    ranks(text, visual, rng.integers(0, 30, 50), similarity, tile=8)
    assert set(shapes) == {((8, 3), (8, 3))}
    assert 7 * 4 < len(shapes) <= 7 * 4 + 7 + 4


def test_equal_clips_tie_wherever_their_tiles_lie():
    rng = np.random.default_rng(1)
    one = rng.standard_normal((7, 512), dtype=np.float32)
    visual, text = np.tile(one, (30, 1)), rng.standard_normal((210, 512), dtype=np.float32)
    t2v, _ = ranks(text, visual, np.arange(210), lambda t, v: t @ v.T, tile=64)
    assert ((t2v - 14.5) % 30 == 0).all()  # whole groups of 30 lie above; in its own the mean rank is 14.5


def test_equal_similarities_give_everyone_the_mean_rank():
    text, visual, similarity = looked_up(np.zeros((6, 5)))
    t2v, v2t = ranks(text, visual, np.arange(6) % 5, similarity, tile=4)
    assert t2v.tolist() == [2.0] * 6
    assert v2t.tolist() == [2.5] * 5


def test_the_order_of_captions_and_clips_changes_no_rank():
    rng = np.random.default_rng(2)
    xi, clip = rng.integers(0, 4, (40, 17)), rng.integers(0, 17, 40)
    captions, clips = rng.permutation(40), rng.permutation(17)
    text, visual, similarity = looked_up(xi)
    t2v, v2t = ranks(text, visual, clip, similarity, tile=8)
    moved = ranks(text[captions], visual[clips], np.argsort(clips)[clip[captions]], similarity, tile=8)
    np.testing.assert_array_equal(moved[0], t2v[captions])
    np.testing.assert_array_equal(moved[1], v2t[clips])


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_a_similarity_that_is_not_finite_has_no_rank(bad):
    xi = np.array([[0.0, bad], [0.0, 1.0]])
    text, visual, similarity = looked_up(xi)
    with pytest.raises(ValueError, match="not finite"):
        ranks(text, visual, np.array([0, 1]), similarity)


@pytest.mark.parametrize("clip", [[0, 2], [-1, 0], [0]])
def test_a_caption_of_no_clip_is_an_error(clip):
    text, visual, similarity = looked_up(np.eye(2))
    with pytest.raises(ValueError, match="each of 2 captions.*`clip` has"):
        ranks(text, visual, np.array(clip), similarity)


def test_recall_counts_ranks_below_k_and_a_tie_is_not_first():
    t2v = np.array([0, 0.5, 1, 4.5, 5, 9.5, 10, 99])
    values = of_ranks(t2v, np.array([0.0, 2, np.nan, np.nan]))
    assert values["t2v/R@1"] == 1 / 8
    assert values["t2v/R@5"] == 4 / 8
    assert values["t2v/R@10"] == 6 / 8
    assert values["t2v/MedR"] == 4.75 + 1
    assert values["t2v/MeanR"] == pytest.approx(129.5 / 8 + 1)
    assert values["t2v/GM"] == pytest.approx((1 / 8 * 4 / 8 * 6 / 8) ** (1 / 3))
    assert values["v2t/R@1"] == 1 / 2  # of the two clips that have captions
    assert values["v2t/MedR"] == 2
    assert len(values) == 12


def test_no_query_no_measure():
    with pytest.raises(ValueError, match="v2t"):
        of_ranks(np.zeros(2), np.full(2, np.nan))
