"""A contract that is given the wrong file names the mistake before any test runs; broken files break its tests."""

import dataclasses
from types import ModuleType

import pytest
import torch
from torch.nn.functional import dropout

from featcache import registry
from heads.methods import adabn, codt, rna, source_only
from heads.nets import adapter, ce, stgcn
from heads.params import within
from heads.testing import ClusteringNetTests, MethodTests, NetTests, RetrievalNetTests
from heads.testing.files import check_draws, check_params, provenance
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


class MixedSides(adapter.NET):
    """A net with batch normalisation that encodes both sides in one batch."""

    def __init__(self, params, spec):
        super().__init__(dataclasses.replace(params, batch_norm=True), spec)
        self.row_by_row = True


class OwnDropout(adapter.NET):
    """A net with torch's dropout."""

    def classify(self, f):
        return super().classify({m: dropout(f_BD, training=self.training) for m, f_BD in f.items()})


class OwnDraws(source_only.METHOD):
    """A method that draws from torch's global stream."""

    def losses(self, batch, progress):
        return {name: term * torch.rand(()) for name, term in super().losses(batch, progress).items()}


def test_a_net_that_mixes_rows_of_both_sides_fails():
    with pytest.raises(AssertionError, match="depends on the second in training.* must not set `row_by_row`"):
        NetTests().test_both_sides_have_their_own_statistics(file(Params=adapter.Params, NET=MixedSides))


def test_a_net_whose_passes_differ_fails():
    halved = lambda net, s, t: tuple({m: f / 2 for m, f in net.encode(side).items()} for side in (s, t))  # noqa: E731
    net = type("Halved", (adapter.NET,), {"encode_both": halved})
    with pytest.raises(AssertionError, match="rgb by encode_both is not that of each side"):
        NetTests().test_both_sides_are_encoded_as_each_by_itself(file(Params=adapter.Params, NET=net))


def test_draws_past_noise_fail():
    with pytest.raises(AssertionError, match="the net draws from torch's global stream.*noise.Dropout"):
        NetTests().test_randomness_comes_from_noise(file(Params=adapter.Params, NET=OwnDropout))
    method = file(Params=source_only.Params, METHOD=OwnDraws)
    with pytest.raises(AssertionError, match="the method draws from torch's global stream.*noise.Dropout"):
        MethodTests().test_randomness_comes_from_noise(method, SPEC, ("source",))


DRAWS_IN_A_BRANCH = """
import torch
from torch import nn
from heads import noise
weights = lambda rows: torch.randn(rows)
class Drawn(nn.Module):
    def __init__(self):
        self.weights, self.normal = torch.randn(3), nn.Linear(2, 2)
        self.keep = noise.Dropout(0.5)
    def losses(self, batch, progress):
        noisy = self.normal(noise.normal(3, like=batch)) + torch.randn(3, generator=batch.generator)
        return noisy + {call} if self.params.noisy else noisy
"""


@pytest.mark.parametrize(
    "call", ["torch.rand(3)", "noisy.normal_()", "torch.nn.functional.dropout(noisy)", "Normal(0, 1).sample((3,))"]
)
def test_draws_in_a_branch_that_no_test_takes_are_found(call, monkeypatch):
    monkeypatch.setattr("inspect.getsource", lambda _: DRAWS_IN_A_BRANCH.replace("{call}", call))
    with pytest.raises(AssertionError, match=r"^(torch|noisy|Normal)\S+.* in line 12:"):
        check_draws(source_only)


def test_dropout_modules_of_torch_are_found_in_constructors_too(monkeypatch):
    text = DRAWS_IN_A_BRANCH.replace("{call}", "noisy")
    monkeypatch.setattr("inspect.getsource", lambda _: text)
    check_draws(source_only)
    monkeypatch.setattr("inspect.getsource", lambda _: text.replace("noise.Dropout", "nn.Dropout1d"))
    with pytest.raises(AssertionError, match="nn.Dropout1d in line 9:"):
        check_draws(source_only)


@dataclasses.dataclass(frozen=True)
class NoRange:
    """Parameters of which one number states no range."""

    scale: float = within(1.0, 0)  #: with a range [paper]
    count: int = 3  #: without [ours]


def test_a_number_without_a_range_is_named():
    with pytest.raises(AssertionError, match=r"mine.Params.count has no range; write count = within\(3, low, high\)"):
        check_params(file(Params=NoRange))


@dataclasses.dataclass(frozen=True)
class Sources:
    """Parameters with the source of their default in the right form, and in others."""

    a: str = ""  #: a word [paper]
    b: str = ""  #: a place in it [paper, Sec. 4.2]
    c: str = ""  #: the code of another [code: MM-SADA, relative]
    d: str = ""  #: a reason [ours: the paper states none]
    none: str = ""  #: no source
    other: str = ""  #: another word [book]
    longer: str = ""  #: a longer word [papers]
    empty: str = ""  #: no details after the colon [ours:]
    inside: str = ""  #: [paper] not at the end
    value: str = "[ours]"


def test_a_source_is_a_word_at_the_end_of_the_comment():
    named = {"a": "paper", "b": "paper", "c": "code", "d": "ours"}
    assert provenance(Sources) == named | dict.fromkeys(("none", "other", "longer", "empty", "inside", "value"), "")


@dataclasses.dataclass(frozen=True)
class NoSource:
    """Parameters of which one states no source."""

    scale: float = within(1.0, 0)  #: with a source [code]
    kind: str = "old"  #: without


def test_a_field_without_the_source_of_its_default_is_named():
    with pytest.raises(AssertionError, match=r"mine.Params.kind .*source of its default 'old'.*\[paper\], \[code\] or"):
        check_params(file(Params=NoSource))
