"""The joints themselves as features: what each branch would read, whatever the net is."""

import torch

from heads.methods.joints import Joints, Params
from tests.helpers.skeleton_problems import ONE, TWO, net, side


def test_features_are_the_rows_that_each_branch_would_read():
    s = side(TWO, "target")
    said = Joints(Params(), TWO, net(TWO)).predict(s)
    assert {name: tuple(f.shape) for name, f in said.items()} == {
        "feature_B0": (6, 3 * 8 * 15 * 2),
        "feature_B1": (6, 3 * 8 * 20 * 2),
    }
    for name, m in {"feature_B0": "shared", "feature_B1": "own"}.items():
        assert torch.equal(said[name].flatten(), s.x[m].flatten())


def test_one_layout_serves_both_branches_and_no_net_has_a_say():
    s = side(ONE, "target")
    first, second = (Joints(Params(), ONE, net(ONE, seed)).predict(s) for seed in (0, 1))
    assert torch.equal(first["feature_B0"], second["feature_B1"])
