"""Side.pool and gather."""

from dataclasses import replace

import pytest
import torch

from heads.batch import gather
from heads.losses.supervised import label_cross_entropy
from heads.testing.problems import SPEC, batch, side, without


def test_pool_is_the_mean_of_the_present_windows():
    s = side(SPEC, rows=3, labelled=True)
    s.present["rgb"][1] = torch.tensor([True, False, True])
    pooled = s.pool("rgb")
    assert torch.allclose(pooled[0], s.x["rgb"][0].mean(0))
    assert torch.allclose(pooled[1], (s.x["rgb"][1, 0] + s.x["rgb"][1, 2]) / 2)


def test_pool_of_an_absent_row_is_zero_and_has_says_so():
    s = without(side(SPEC, rows=3, labelled=True), "rgb", [1])
    assert s.pool("rgb")[1].tolist() == [0.0] * 6
    assert s.has("rgb").tolist() == [True, False, True]
    assert s.has("flow").all()


def test_pool_of_one_window_is_masked_and_a_copy():
    s = side(SPEC, rows=3, labelled=True)
    one = replace(s, x={"rgb": s.x["rgb"][:, :1].clone()}, present={"rgb": torch.tensor([[True], [False], [True]])})
    pooled = one.pool("rgb")
    assert torch.equal(pooled[0], one.x["rgb"][0, 0])
    assert not pooled[1].any()
    kept = pooled.clone()
    one.x["rgb"].fill_(7)  # as the next batch does
    assert torch.equal(pooled, kept)


def test_gather_keeps_the_order_of_the_sweep():
    sides = [side(SPEC, rows=n, labelled=False, seed=n) for n in (4, 1, 3)]
    seen = gather(iter(sides), lambda s: {"first": s.x["rgb"][:, 0], "row": s.index})
    assert torch.equal(seen["first"], torch.cat([s.x["rgb"][:, 0] for s in sides]))
    assert seen["row"].tolist() == [0, 1, 2, 3, 0, 0, 1, 2]


def test_hidden_labels_are_named():
    with pytest.raises(ValueError, match="labels of kind 'label'.*hidden"):
        label_cross_entropy({"label": torch.zeros(2, 3)}, {})


def test_a_batch_names_the_side_that_it_lacks():
    whole = batch(SPEC)
    assert whole.both() == (whole.source_side, whole.target_side) == (whole.source, whole.target)
    with pytest.raises(ValueError, match="no target .*'target' in `needs`"):
        batch(SPEC, ("source",)).both()
    with pytest.raises(ValueError, match="no source"):
        batch(SPEC, ("target",)).both()
