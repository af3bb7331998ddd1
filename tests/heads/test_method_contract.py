"""Every file of heads/methods keeps the contract of a method (heads/testing/methods.py)."""

import pytest
import torch

from featcache import registry
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
        names = [name for name in registry.names(methods) if (name in EACH_SIDE_ALONE) != cls.compares_sides]
        return [registry.load(methods, name, "method") for name in names]

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
