"""Every file of heads/methods keeps the contract of a method (heads/testing/methods.py)."""

from typing import ClassVar

import pytest
import torch

from featcache import registry
from heads import methods
from heads.methods import joints, xmc
from heads.stacked import why_not
from heads.testing import MethodTests
from heads.testing.methods import Hidden, HiddenError, total
from heads.testing.problems import batch

EACH_SIDE_ALONE = (  #: methods that see both sides, and compare none with the other in their losses
    *("adabn", "bnm", "cbst", "dlmm", "entropy", "infomax", "mcc", "mcd", "pseudo_label", "safn"),
    *("label_propagation", "logistic_regression", "nearest_mean"),
)


class TestMethods(MethodTests):
    """All files whose methods see one side, or compare the sides, on the richest spec of each task."""

    one_label: ClassVar = False  #: True: only on the spec of one label kind; False: on all others
    pass_steps: ClassVar = 3

    @classmethod
    def problems(cls):
        return (problem for problem in super().problems() if problem[3].endswith(", one label") == cls.one_label)

    @classmethod
    def modules(cls):
        names = [name for name in registry.names(methods) if (name in EACH_SIDE_ALONE) != cls.compares_sides]
        names = [name for name in names if name != "joints"]
        return [registry.load(methods, name, "method") for name in names]

    @pytest.mark.slow
    def test_several_in_one_pass_equal_each_alone_over_twenty_steps(self, module, spec, sides):
        methods = [self.build(module, spec, sides, seed) for seed in range(3)]
        self.check_together(module, spec, sides, methods, MethodTests.pass_steps)

    @pytest.mark.slow
    def test_shapes_do_not_depend_on_values_on_any_spec(self, module, spec, sides):
        self.test_shapes_do_not_depend_on_values(module, spec, sides)


class TestMethodsThatCompareNothing(TestMethods):
    """The others."""

    compares_sides = False


@pytest.mark.slow
class TestMethodsOnOneLabel(TestMethods):
    """The same files on the spec of one label kind."""

    one_label = True


@pytest.mark.slow
class TestMethodsThatCompareNothingOnOneLabel(TestMethodsThatCompareNothing):
    """The others on the spec of one label kind."""

    one_label = True


class TestAdversariesOfXmc(MethodTests):
    """XMC with adversaries in place of both of its contrasts (Table 8)."""

    module = xmc
    params: ClassVar = {"cross_modal": "adversarial", "cross_domain": "adversarial"}


class TestJoints(MethodTests):
    """The baseline without learning."""

    module = joints
    pass_steps: ClassVar = 5  #: ten layers of batch normalisation over a few small rows let last digits grow

    def test_every_parameter_gets_a_gradient(self, module, spec, sides):
        """No feature depends on the net, and L_sup reaches the branch of the source only."""
        method = self.build(module, spec, sides).train()
        total(method(batch(spec, sides), 0.5)).backward()
        idle = {name.split(".")[1] for name, p in method.net.named_parameters() if p.grad is None}
        assert idle == {"B1"}


@pytest.mark.parametrize(
    "look", [dict, list, bool, len, lambda y: y["label"], lambda y: y.get("label"), lambda y: "label" in y]
)
def test_hidden_labels_notice_every_look(look):
    with pytest.raises(HiddenError):
        look(Hidden(label=torch.zeros(8)))


OWN_ROUNDS = {  #: methods whose runs are trained one by one, and their code after an update
    "codt": "teachers follow the students, and the memory takes in features",
    "hcl": "historical models are renewed",
    "xmc": "the banks take in the features of the batch",
}


def test_runs_of_all_other_methods_can_share_a_pass():
    named = {name: registry.load(methods, name, "method") for name in registry.names(methods)}
    assert {name for name, module in named.items() if why_not(module.METHOD)} == OWN_ROUNDS.keys()
    assert len(named) - len(OWN_ROUNDS) >= 35
