"""The contracts of net files, as classes of tests: one for each task."""

import dataclasses
from collections.abc import Callable, Sequence
from types import ModuleType
from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor

from heads import noise
from heads.batch import Side, Spec, gather
from heads.nets import Net, Retrieval
from heads.testing.files import FileTests, check_draws, check_params, short_name
from heads.testing.problems import CAPTIONED, only, row, side, small, specs_for, without

CLIPS = CAPTIONED.shapes.keys() - set(CAPTIONED.captions)


def build(module: ModuleType, spec: Spec, params: dict[str, Any] | None = None) -> Net:
    """Build a small net with the seed 0, in eval mode."""
    torch.manual_seed(0)
    net: Net = module.NET(dataclasses.replace(module.Params(), **{**small(module), **(params or {})}), spec)
    return net.eval()


def with_noise_where_absent(s: Side) -> Side:
    """Return the side with large random numbers in the windows that are not present."""
    gone = {m: ~present.reshape(*present.shape, *[1] * (s.x[m].dim() - 2)) for m, present in s.present.items()}
    return dataclasses.replace(s, x={m: x + gone[m] * 50 * torch.randn_like(x) for m, x in s.x.items()})


class AnyNetTests(FileTests):
    """The part of the contract that holds for the nets of every task."""

    contents = ("Params", "NET")
    task: ClassVar[str]
    base: ClassVar[type[Net]] = Net  #: the base class of NET
    params: ClassVar[dict[str, Any]] = {}  #: parameters to test with, where the defaults do not fit

    @classmethod
    def checked_modules(cls) -> list[ModuleType]:
        """Return the files under test, all of which have a net of this task."""
        modules = super().checked_modules()
        for net in (module.NET for module in modules):
            if net.task != cls.task:
                text = f"{net.__name__} is a {net.task} net, but {cls.__name__} tests {cls.task} nets"
                raise pytest.Collector.CollectError(f"{text}; subclass the class of that task")
        return modules

    def build(self, module: ModuleType, spec: Spec) -> Any:
        """Build the net with `params`. Override this for a net that needs more."""
        return build(module, spec, self.params)

    def test_file_follows_the_layout(self, module: ModuleType) -> None:
        """The file has a docstring; `Params` is frozen and documented; `NET` is a net of the right base class."""
        assert (module.__doc__ or "").strip(), f"{short_name(module)} has no docstring"
        assert issubclass(module.NET, self.base)
        assert issubclass(module.NET, Retrieval) == issubclass(self.base, Retrieval)
        check_params(module)
        check_draws(module)

    def test_both_sides_are_encoded_as_each_by_itself(self, module: ModuleType) -> None:
        """`encode_both` and `classify_both` equal two calls, on all pairs of sides of the task."""
        for spec in specs_for([self.task]).values():
            net = self.build(module, spec)
            for s, t in pairs_of_sides(spec):
                both, each = net.encode_both(s, t), (net.encode(s), net.encode(t))
                check_equal(both, each, "encode_both")
                if self.task == "classification":
                    check_equal(net.classify_both(*each), tuple(map(net.classify, each)), "classify_both")

    def test_both_sides_have_their_own_statistics(self, module: ModuleType) -> None:
        """In training `encode_both` computes a row as `encode` does: by itself, or with its own side only."""
        for spec in specs_for([self.task]).values():
            (s, t), *_ = pairs_of_sides(spec)
            moved = dataclasses.replace(t, x={m: 3 * x + 1 for m, x in t.x.items()})
            ours, buffers = self.in_training(module, spec, lambda net, s, t: net.encode_both(s, t)[0], s, t)
            other, _ = self.in_training(module, spec, lambda net, s, t: net.encode_both(s, t)[0], s, moved)
            for name, f in ours.items():
                assert torch.allclose(f, other[name], atol=1e-6), (
                    f"{name} of the first side depends on the second in training; a net with layers that mix rows, "
                    "such as batch normalisation, must not set `row_by_row`"
                )
            _, apart = self.in_training(module, spec, lambda net, s, t: (net.encode(s), net.encode(t))[0], s, t)
            for name, buffer in apart.items():
                assert torch.equal(buffers[name], buffer), f"encode_both leaves another {name} than two encodes"

    def test_randomness_comes_from_noise(self, module: ModuleType) -> None:
        """In training nets draw only through `heads.noise`, so that many heads can be trained in one pass."""
        for spec in specs_for([self.task]).values():
            s = side(spec, labelled=True)
            runs = [self.in_training(module, spec, lambda net, s: net.loss(net.encode(s), s), s) for _ in range(2)]
            (first, _), (again, _) = runs
            for name, term in first.items():
                assert torch.equal(term, again[name]), "equal generators gave other numbers; draw by `heads.noise` only"

    def in_training(
        self, module: ModuleType, spec: Spec, compute: Callable[..., dict[str, Tensor]], *sides: Side
    ) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Return the result of `compute(net, *sides)` for a new net in training mode, and its buffers after that."""
        net = self.build(module, spec).train()
        before = torch.get_rng_state()
        with noise.one(torch.Generator().manual_seed(0)):
            computed = compute(net, *sides)
        same = torch.equal(torch.get_rng_state(), before)
        assert same, "the net draws from torch's global stream; draw by `heads.noise`, and drop by noise.Dropout"
        return computed, dict(net.named_buffers())


def pairs_of_sides(spec: Spec) -> list[tuple[Side, Side]]:
    """Return pairs of sides: of equal shapes; with gaps; with other numbers of windows; with other modalities."""
    s, t = (side(spec, rows, labelled=False, seed=seed) for rows, seed in ((8, 0), (5, 1)))
    first, *others = s.x
    more = {m: torch.cat([x, x], 1) for m, x in t.x.items()}
    longer = dataclasses.replace(t, x=more, present={m: torch.cat([p, p], 1) for m, p in t.present.items()})
    several = [(s, longer)] if all(spec.windows[m] > 1 for m in (first, *others[:1])) else []
    labelled, gone = side(spec, 6, labelled=True), without(s, first, [1, 2])
    return [(s, t), (gone, t), *several, (labelled, t), (t, labelled), (only(s, [first]), t), (s, only(t, [first]))]


def check_equal(ours: Sequence[dict[str, Tensor]], expected: Sequence[dict[str, Tensor]], name: str) -> None:
    """Check that the values of both sides are equal up to rounding."""
    for of_side, values in zip(ours, expected, strict=True):
        assert list(of_side) == list(values), f"{name} returns {', '.join(of_side)} instead of {', '.join(values)}"
        for key, value in values.items():
            assert torch.allclose(of_side[key], value, atol=1e-6), f"{key} by {name} is not that of each side by itself"


class ClassifierTests(AnyNetTests):
    """The part of the contract that holds for nets with `classify`, on the specs of the net's task."""

    def pytest_generate_tests(self, metafunc: pytest.Metafunc) -> None:
        """Run a test with the argument `spec` once per spec of the task."""
        super().pytest_generate_tests(metafunc)
        if "spec" in metafunc.fixturenames:
            specs = specs_for([self.task])
            metafunc.parametrize("spec", specs.values(), ids=specs)

    def test_rows_do_not_depend_on_their_batch(self, module: ModuleType, spec: Spec) -> None:
        """In eval mode a row has the same logits in a batch of one."""
        net, s = self.build(module, spec), side(spec, rows=7, labelled=False)
        together = net.classify(net.encode(s))
        one_by_one = gather((row(s, k) for k in range(7)), lambda one: net.classify(net.encode(one)))
        for label, z in together.items():
            assert torch.allclose(z, one_by_one[label], atol=1e-6), f"logits of {label} depend on other rows"

    def test_windows_that_are_not_present_are_not_read(self, module: ModuleType, spec: Spec) -> None:
        """Whatever x holds in a window that `present` excludes, the features are the same, and finite."""
        first, second, *_ = spec.shapes
        net, s = self.build(module, spec), without(side(spec, labelled=False), second, [2, 5])
        s.present[first][3, 1:2] = False
        f, same = net.encode(s), net.encode(with_noise_where_absent(s))
        for m, f_BD in f.items():
            assert f_BD.isfinite().all()
            assert torch.allclose(same[m], f_BD, atol=1e-6), f"the feature {m} depends on windows that are not present"

    def test_the_classifier_is_what_classify_learns_and_encode_does_not(self, module: ModuleType, spec: Spec) -> None:
        """`classifier` holds all parameters that `classify` uses and none that `encode` uses."""
        net = self.build(module, spec)
        parameters = {name: p for name, p in net.named_parameters() if p.requires_grad}
        f = net.encode(side(spec, labelled=False))

        def reached(outputs: dict[str, Tensor]) -> set[str]:
            total = torch.stack([out.sum() for out in outputs.values()]).sum()
            grads = torch.autograd.grad(total, list(parameters.values()), allow_unused=True)
            return {name for name, grad in zip(parameters, grads, strict=True) if grad is not None}

        classifier = {name for name in parameters if name.startswith("classifier.")}
        assert reached(net.classify({m: f_BD.detach() for m, f_BD in f.items()})) == classifier
        assert reached(f) == parameters.keys() - classifier

    def test_state_dict_round_trip(self, module: ModuleType, spec: Spec) -> None:
        """A net that was saved and loaded has the same logits."""
        net, other = self.build(module, spec), self.build(module, spec)
        randomise(net)
        other.load_state_dict(net.state_dict())
        s = side(spec, labelled=False)
        for label, z in net.classify(net.encode(s)).items():
            assert torch.equal(other.classify(other.encode(s))[label], z)


class ClusteringNetTests(ClassifierTests):
    """The contract of a clustering net: a file with `Params` and `NET`, whose branches read skeletons."""

    task = "clustering"

    def build(self, module: ModuleType, spec: Spec) -> Any:
        """Build the net with `params`, and move its weights: with those of a deep net features may be nearly 0."""
        net = super().build(module, spec)
        randomise(net)
        return net

    def test_features_and_logits(self, module: ModuleType, spec: Spec) -> None:
        """Features of a branch are (B, dim); `outputs` names them feature_*; logits are of the source's classes."""
        net, s, t = self.build(module, spec), side(spec, labelled=True), side(spec, labelled=False)
        f = net.encode(t)
        outputs = net.outputs(f)
        assert {tuple(f_BD.shape) for f_BD in f.values()} == {(8, net.dim)}
        assert outputs.keys() == {f"feature_{branch}" for branch in f}
        for branch, f_BD in f.items():
            assert torch.equal(outputs[f"feature_{branch}"], f_BD)
            assert f_BD.std(0).max() > 1e-4, f"rows have equal features of the branch {branch}"
        z = net.classify(net.encode(s))
        assert {label: tuple(z_BK.shape) for label, z_BK in z.items()} == {t: (8, k) for t, k in spec.classes.items()}

    def test_features_do_not_depend_on_other_rows(self, module: ModuleType, spec: Spec) -> None:
        """In eval mode a row has the same features in a batch of one."""
        net, s = self.build(module, spec), side(spec, rows=7, labelled=False)
        one_by_one = gather((row(s, k) for k in range(7)), net.encode)
        for branch, f_BD in net.encode(s).items():
            assert torch.allclose(f_BD, one_by_one[branch], atol=1e-6), f"features of {branch} depend on other rows"


class NetTests(ClassifierTests):
    """The contract of a classification net: a file with `Params` and `NET`."""

    task = "classification"

    def test_shapes_and_parts(self, module: ModuleType, spec: Spec) -> None:
        """Features are (B, dim), logits (B, K); `parts` cuts dim, and each label reads its part only."""
        net, s = self.build(module, spec), side(spec, labelled=True)
        f = net.encode(s)
        assert f.keys() - {"fused"} == spec.shapes.keys()
        assert {tuple(value.shape) for value in f.values()} == {(8, net.dim)}
        assert {t: tuple(z.shape) for t, z in net.classify(f).items()} == {t: (8, k) for t, k in spec.classes.items()}
        entries = [k for part in net.parts.values() for k in range(*part.indices(net.dim))]
        assert sorted(entries) == list(range(net.dim)), "parts must cover each of the dim entries once"
        for label, part in net.parts.items():
            others = {m: value.clone() for m, value in f.items()}
            for value in others.values():
                mask = torch.ones(net.dim, dtype=torch.bool)
                mask[part] = False
                value[:, mask] = 99.0
            assert torch.allclose(net.classify(others)[label], net.classify(f)[label]), (
                f"logits of {label} depend on entries outside parts[{label!r}]"
            )

    def test_reads_is_all_that_a_label_is_classified_by(self, module: ModuleType, spec: Spec) -> None:
        """`reads` returns the features for which the logits of a label have a gradient, and no others."""
        net = self.build(module, spec)
        f = {m: f_BD.detach().requires_grad_() for m, f_BD in net.encode(side(spec, labelled=True)).items()}
        for label, z in net.classify(f).items():
            grads = torch.autograd.grad(z.square().sum(), list(f.values()), allow_unused=True)
            used = [g if g is not None else torch.zeros_like(f_BD) for g, f_BD in zip(grads, f.values(), strict=True)]
            read = torch.autograd.grad(net.reads(f)[label].sum(), list(f.values()), allow_unused=True)
            for g_z, g_r in zip(used, read, strict=True):
                assert torch.equal(g_z != 0, torch.zeros_like(g_z, dtype=torch.bool) if g_r is None else g_r != 0)
            assert net.reads(f)[label].shape == (8, sum(int(g[0].sum()) for g in read if g is not None))

    def test_classified_features_are_enough(self, module: ModuleType, spec: Spec) -> None:
        """`classify` needs no more than `classified` returns. Nets that add "fused" have `fuses`, others do not."""
        net = self.build(module, spec)
        f = net.encode(side(spec, labelled=True))
        assert net.fuses == ("fused" in f), "set `fuses = True` in a net whose `encode` adds 'fused', and in no other"
        for label, z in net.classify(net.classified(f)).items():
            assert torch.equal(z, net.classify(f)[label])


class RetrievalNetTests(AnyNetTests):
    """The contract of a retrieval net: a file with `Params` and `NET`, a subclass of `heads.nets.Retrieval`."""

    task, base = "retrieval", Retrieval

    def test_a_side_is_encoded_as_far_as_it_goes(self, module: ModuleType) -> None:
        """Clips and captions are encoded separately, so that a method can pass either or both."""
        net, pairs = self.build(module, CAPTIONED), side(CAPTIONED, labelled=True)
        both, clips, captions = (net.encode(only(pairs, m)) for m in (pairs.x, CLIPS, CAPTIONED.captions))
        assert (both.keys(), clips.keys(), captions.keys()) == ({"visual", "text"}, {"visual"}, {"text"})
        assert both["visual"].shape == both["text"].shape == (8, net.dim)
        assert torch.equal(both["visual"], clips["visual"]), "embeddings of clips depend on their captions"
        assert torch.equal(both["text"], captions["text"]), "embeddings of captions depend on their clips"
        assert net.outputs(both).keys() == both.keys()
        assert net.similarity(both["text"][:3], both["visual"]).shape == (3, 8)

    def test_similarities_do_not_depend_on_other_rows(self, module: ModuleType) -> None:
        """In eval mode the similarity of a caption and a clip is the same without the rest of the batch."""
        net, pairs = self.build(module, CAPTIONED), without(side(CAPTIONED, labelled=True), "action", [2])
        f = net.encode(pairs)
        xi = net.similarity(f["text"], f["visual"])
        for i in (0, 2):
            alone = net.encode(row(pairs, i))
            assert torch.allclose(net.similarity(f["text"], alone["visual"])[:, 0], xi[:, i], atol=1e-6)
            assert torch.allclose(net.similarity(alone["text"], f["visual"])[0], xi[i], atol=1e-6)

    def test_windows_that_are_not_present_are_not_read(self, module: ModuleType) -> None:
        """Whatever x holds in a window that `present` excludes, the embeddings are the same."""
        net, pairs = self.build(module, CAPTIONED), without(side(CAPTIONED, labelled=True), "action", [2])
        pairs.present["words"][3, 2:] = False
        f, same = net.encode(pairs), net.encode(with_noise_where_absent(pairs))
        for name, f_BM in f.items():
            assert torch.allclose(same[name], f_BM, atol=1e-6), f"{name} depends on windows that are not present"

    def test_a_row_without_anything_is_0(self, module: ModuleType) -> None:
        """A row without any modality has embeddings of zeros, and no other row has."""
        net, pairs = self.build(module, CAPTIONED), side(CAPTIONED, labelled=True)
        for m in pairs.x:
            pairs = without(pairs, m, [1])
        for f in net.encode(pairs).values():
            assert f.isfinite().all()
            assert f.any(1).tolist() == [k != 1 for k in range(8)]

    def test_the_ranking_loss_reaches_every_weight(self, module: ModuleType) -> None:
        """Every parameter has a gradient of L_R other than 0."""
        net, pairs = self.build(module, CAPTIONED).train(), side(CAPTIONED, labelled=True)
        terms = net.loss(net.encode(pairs), pairs)
        assert terms.keys() == {"L_R"}
        terms["L_R"].backward()
        idle = [name for name, p in net.named_parameters() if p.grad is None or not p.grad.any()]
        assert idle == [], f"no gradient reaches {', '.join(idle)}"

    def test_state_dict_round_trip(self, module: ModuleType) -> None:
        """A net that was saved and loaded has the same embeddings."""
        net, other, pairs = self.build(module, CAPTIONED), self.build(module, CAPTIONED), side(CAPTIONED, labelled=True)
        randomise(net)
        other.load_state_dict(net.state_dict())
        for name, f in net.encode(pairs).items():
            assert torch.equal(other.encode(pairs)[name], f)


def randomise(net: Net) -> None:
    """Move all parameters, as training does, so that a net that is built again has other ones."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=generator))
