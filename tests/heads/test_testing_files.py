"""A contract that is given the wrong file names the mistake before any test runs; broken files break its tests."""

import dataclasses
from types import ModuleType

import pytest

from featcache import registry
from heads.methods import adabn, codt, rna, source_only
from heads.nets import adapter, ce, stgcn
from heads.params import within
from heads.testing import ClusteringNetTests, MethodTests, NetTests, RetrievalNetTests
from heads.testing.files import check_params
from heads.testing.problems import SIMPLE, SKELETONS, SPEC, SPECS, task_of


@pytest.mark.parametrize(
    ("base", "module", "message"),
    [
        (MethodTests, None, "Mine.module is not set; write `module = your_file`"),
        (MethodTests, rna.METHOD, "Rna.*has no Params and no METHOD; `module` must be a Python file with"),
        (NetTests, rna, "heads.methods.rna.*has no NET; `module` must be a Python file with Params and NET"),
        (NetTests, ce, "is a retrieval net, but Mine tests classification nets"),
        (RetrievalNetTests, adapter, "Adapter is a classification net, but Mine tests retrieval nets"),
    ],
    ids=["no file", "a class", "a method", "a retrieval net", "a classification net"],
)
def test_a_file_that_does_not_fit_is_named(base, module, message):
    tests = type("Mine", (base,), {} if module is None else {"module": module})
    with pytest.raises(pytest.Collector.CollectError, match=message):
        tests.checked_modules()


def test_every_task_has_small_specs_and_a_simple_net():
    tasks = set(registry.names("pipelines.tasks"))
    assert SPECS.keys() == tasks, "add a small spec of each task to SPECS in heads/testing/problems.py"
    assert SIMPLE.keys() == tasks, "add the simplest net of each task to SIMPLE in heads/testing/problems.py"
    for task in tasks:
        assert {task_of(spec) for spec in SPECS[task].values()} == {task}, "add the task to task_of, too"
        assert SIMPLE[task].task == task
        method = type("Mine", (source_only.METHOD,), {"tasks": (task,)})
        tests = type("Tests", (MethodTests,), {"module": file(Params=source_only.Params, METHOD=method)})
        assert [spec for _, spec, _, _ in tests.problems()] == list(SPECS[task].values())


def file(**names):
    """A Python file with these names."""
    module = ModuleType("mine")
    vars(module).update(names)
    return module


class InPlace(source_only.METHOD):
    """A method that scales the windows of its batch, where they are."""

    def losses(self, batch, progress):
        next(iter(batch.source.x.values())).mul_(1.01)
        return super().losses(batch, progress)


class InPlaceAtTest(source_only.METHOD):
    """A method that scales the windows of test rows, where they are."""

    def predict(self, side):
        next(iter(side.x.values())).mul_(1.0 + 1e-6)
        return {label: z.round() for label, z in super().predict(side).items()}


class LooksElsewhere(adabn.METHOD):
    """A method that classifies normalised rows, while a run would look at the features of raw ones."""

    def features(self, side):
        return self.net.encode(side)

    def predict(self, side):
        return self.net.classify(super().features(side))


class ReadsRows(source_only.METHOD):
    """A method whose classifier reads rows that are no part of its features."""

    def outputs(self, f, side):
        return {label: z + side.pool("rgb").sum() for label, z in super().outputs(f, side).items()}


class Diverging(codt.METHOD):
    """A clustering method whose terms are infinite."""

    def losses(self, batch, progress):
        return {name: term / 0 for name, term in super().losses(batch, progress).items()}


class AllRows(stgcn.NET):
    """A clustering net whose features depend on the other rows."""

    def encode(self, side):
        return {branch: f_BD - f_BD.mean(0) for branch, f_BD in super().encode(side).items()}


@pytest.mark.parametrize(
    ("method", "params", "spec", "sides", "message"),
    [
        (InPlace, source_only.Params, SPEC, ("source",), "the method changes source.x.rgb. of its batch"),
        (Diverging, codt.Params, SKELETONS, ("source", "target"), "inf"),
    ],
)
def test_a_broken_method_fails(method, params, spec, sides, message):
    with pytest.raises(AssertionError, match=message):
        MethodTests().test_terms_are_finite_scalars(file(Params=params, METHOD=method), spec, sides)


def test_a_method_that_changes_test_rows_fails():
    module = file(Params=source_only.Params, METHOD=InPlaceAtTest)
    with pytest.raises(AssertionError, match="predict changes the rgb of its rows"):
        MethodTests().test_prediction_draws_nothing_and_keeps_no_state(module, SPEC, ("source",))


@pytest.mark.parametrize(("method", "params"), [(LooksElsewhere, adabn.Params), (ReadsRows, source_only.Params)])
def test_a_method_whose_features_are_not_those_that_it_classifies_fails(method, params):
    sides = ("source", "target") if method is LooksElsewhere else ("source",)
    with pytest.raises(AssertionError, match="label by predict is not .*outputs.*features"):
        MethodTests().test_outputs_are_those_of_the_features(file(Params=params, METHOD=method), SPEC, sides)


def test_a_broken_clustering_net_fails():
    module = file(Params=stgcn.Params, NET=AllRows)
    with pytest.raises(AssertionError, match="features of B0 depend on other rows"):
        ClusteringNetTests().test_features_do_not_depend_on_other_rows(module, SKELETONS)


@dataclasses.dataclass(frozen=True)
class NoRange:
    """Parameters of which one number states no range."""

    scale: float = within(1.0, 0)  #: with a range
    count: int = 3  #: without


def test_a_number_without_a_range_is_named():
    with pytest.raises(AssertionError, match=r"mine.Params.count has no range; write count = within\(3, low, high\)"):
        check_params(file(Params=NoRange))
