"""Every file of heads/methods keeps the contract of a method (heads/testing/methods.py)."""

import pytest
import torch

from heads import methods
from heads.testing import MethodTests
from heads.testing.methods import Hidden, HiddenError

EACH_SIDE_ALONE = (  #: methods that see both sides, and compare none with the other in their losses
    *("adabn", "bnm", "cbst", "dlmm", "entropy", "infomax", "mcc", "mcd", "pseudo_label", "safn"),
    *("label_propagation", "logistic_regression", "nearest_mean"),
)


class TestMethods(MethodTests):
    """All files whose methods see one side, or compare the sides."""

    @classmethod
    def modules(cls):
        return [methods.load(name) for name in methods.names() if (name in EACH_SIDE_ALONE) != cls.compares_sides]

    @pytest.mark.slow
    def test_shapes_do_not_depend_on_values_on_any_spec(self, module, spec, sides):
        self.test_shapes_do_not_depend_on_values(module, spec, sides)


class TestMethodsThatCompareNothing(TestMethods):
    """The others."""

    compares_sides = False


@pytest.mark.parametrize(
    "look", [dict, list, bool, len, lambda y: y["label"], lambda y: y.get("label"), lambda y: "label" in y]
)
def test_hidden_labels_notice_every_look(look):
    with pytest.raises(HiddenError):
        look(Hidden(label=torch.zeros(8)))


def test_unknown_names_list_the_known_ones():
    with pytest.raises(ValueError, match=f"no method 'rma'; heads/methods has: {', '.join(methods.names())}"):
        methods.load("rma")
