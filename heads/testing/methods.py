"""The contract of a method file, as a class of tests."""

import copy
import dataclasses
import re
from collections.abc import Callable, Iterator, Sequence
from types import ModuleType
from typing import Any, ClassVar, Never

import pytest
import torch
from torch import Tensor
from torch.nn import Parameter
from torch.optim import SGD

from heads import noise, stacked
from heads.batch import Batch, Spec
from heads.methods import Method
from heads.stacked import Stack
from heads.testing.files import FileTests, check_draws, check_params, short_name
from heads.testing.problems import batch, net_for, only, side, small, specs_for, sweep, task_of, together, without

STACKING = (
    "keep state that differs between runs in parameters or buffers, draw through heads.noise, write losses that "
    "torch.vmap can take, or set `trained_alone` in the test to the reason why its runs are trained one by one"
)


class HiddenError(KeyError):
    """Hidden labels were read."""


class Hidden(dict[str, Any]):
    """The labels of a target, which raise an error as soon as somebody looks at them."""

    def _refuse(self, *_: object) -> Never:
        raise HiddenError("the method reads the target's labels `y`, which are hidden in training")

    __getitem__ = __contains__ = __iter__ = __len__ = get = keys = values = items = _refuse


def build(
    module: ModuleType, spec: Spec, sides: Sequence[str], seed: int = 0, params: dict[str, Any] | None = None
) -> Method:
    """Build a small method and net from this seed. The method receives these sides, and `source_val` if it uses it."""
    names = {*sides, "captions", *({"source_val"} & {*module.METHOD.needs, *module.METHOD.may})}
    spec = dataclasses.replace(spec, rows={name: n for name, n in spec.rows.items() if name in names})
    torch.manual_seed(seed)
    net = net_for(module, spec)
    method: Method = module.METHOD(
        dataclasses.replace(module.Params(), **{**small(module), **(params or {})}), spec, net
    )
    return method


def total(terms: dict[str, Tensor]) -> Tensor:
    """Return the sum of the terms; AssertionError if there is none."""
    assert terms, "losses() returned no terms"
    return torch.stack(list(terms.values())).sum()


def train(method: Method, spec: Spec, sides: Sequence[str], steps: int = 3, lr: float = 0.05) -> list[dict[str, float]]:
    """Train for a few clipped steps, `begin_epoch` included, and return the terms of each step.

    AssertionError if the method changes a batch.
    """
    optimizer = SGD(method.parameters(), lr=lr)
    method.eval()
    with torch.no_grad():
        method.begin_epoch(0, sweep(spec))
    method.train()
    log = []
    for step in range(steps):
        b = batch(spec, sides, seed=10 * step)
        before = {name: value.clone() for name, value in tensors(b).items()}
        for _, terms in method.rounds(b, step / steps):
            method.zero_grad()
            total(terms).backward()
            torch.nn.utils.clip_grad_norm_(method.parameters(), 1.0)
            optimizer.step()
        log.append({name: term.item() for name, term in terms.items()})
        for name, value in tensors(b).items():
            assert torch.equal(value, before[name]), f"the method changes {name} of its batch; compute a new tensor"
    return log


def tensors(batch: Batch) -> dict[str, Tensor]:
    """Return every tensor of a batch by its name, such as source.x[rgb]."""
    values = dict[str, Tensor]()
    for name, rows in (("source", batch.source), ("target", batch.target)):
        if rows is not None:
            values |= {f"{name}.domain": rows.domain, f"{name}.index": rows.index}
            for field in ("x", "present", "y"):
                values |= {f"{name}.{field}[{key}]": value for key, value in getattr(rows, field).items()}
    return values


def check_outputs(outputs: dict[str, Tensor], spec: Spec, rows: int) -> None:
    """Check the names and sizes of what `predict` returned of rows without labels."""
    for name, out in outputs.items():
        assert len(out) == rows, f"{name} has {len(out)} rows of {rows}"
    if not spec.clusters:
        assert set(outputs) == (set(spec.classes) or {"visual"})
        return
    branches = {name.removeprefix("feature_") for name in outputs if name.startswith("feature_")}
    assert branches, f"predict returned no feature_*, only {', '.join(outputs) or 'nothing'}"
    clusters = {f"cluster_{branch}" for branch in branches}
    assert set(outputs) - clusters == {f"feature_{branch}" for branch in branches}
    assert {outputs[name].shape[1] for name in clusters & set(outputs)} <= {spec.clusters}


def losses_alone(method: Method, batches: Sequence[Batch], seed: int) -> list[dict[str, float]]:
    """Train a method on these batches, with a random stream of this seed, and return the terms of each step."""
    begin(method, seed)
    log = []
    for step, b in enumerate(batches):
        terms: dict[str, float] = {}
        for who, round_terms in method.rounds(b, step / len(batches)):
            method.zero_grad()
            total(round_terms).backward()
            descend(method, who, lambda p: p.grad)
            terms |= {name: term.item() for name, term in round_terms.items()}
        log.append(terms)
    return log


def losses_together(
    methods: Sequence[Method], batches: Sequence[Batch], seeds: Sequence[int]
) -> list[dict[str, Tensor]]:
    """Train methods in one pass, on batches of tensors (B, K, ...); return the terms (K,) of each step."""
    generators = []
    for method, seed in zip(methods, seeds, strict=True):
        begin(method, seed)
        generators.append(torch.Generator().set_state(torch.get_rng_state()))
    stack, log = Stack(methods), []
    for step, b in enumerate(batches):
        terms: dict[str, Tensor] = {}
        for who, objective in methods[0].objectives():
            round_terms = stack.terms(b, step / len(batches), generators, objective)
            stack.backward(round_terms)
            for k, method in enumerate(methods):
                names = {p: name for name, p in method.named_parameters()}
                each = {p: stack.parameters[name].grad for p, name in names.items()}
                descend(method, who, lambda p, k=k, each=each: None if each[p] is None else each[p][k])  # type: ignore[misc]
            terms |= {name: term.detach() for name, term in round_terms.items()}
        log.append(terms)
    stack.release()
    return log


def begin(method: Method, seed: int) -> None:
    """Begin the first epoch, and set torch's global stream, from which the method draws from now on."""
    torch.manual_seed(seed)
    method.eval()
    with torch.no_grad():
        method.net.begin(sweep(method.spec))
        method.begin_epoch(0, sweep(method.spec))
    method.train()


@torch.no_grad()
def descend(method: Method, who: str, gradient: Callable[[Parameter], Tensor | None]) -> None:
    """Update the parameters of these players by a step against their gradient, clipped to a norm of 1."""
    players = method.players()
    found = [(p, gradient(p)) for player in who.split() for p in players[player]]
    given = [(p, g) for p, g in found if g is not None]
    norm = torch.stack([g.norm() for _, g in given]).norm().clamp_min(1)
    for p, g in given:
        p.data -= 0.01 * g / norm


class MethodTests(FileTests):
    """The contract of a method: a file with `Params` and `METHOD`.

    Each test runs on the small specs of the tasks in `METHOD.tasks` (two of classification, one of retrieval and one of
    clustering), with the sides in `METHOD.needs` and again with those in `METHOD.may`.
    """

    contents = ("Params", "METHOD")
    params: ClassVar[dict[str, Any]] = {}  #: hyper-parameters to test with, where the defaults do not fit few rows
    compares_sides: ClassVar[bool] = True  #: a loss compares source rows with target rows; False: each has its own
    trained_alone: ClassVar[str] = ""  #: reason why runs cannot share a pass; they are then trained one by one
    pass_steps: ClassVar[int] = 20  #: steps over which a pass of several is compared with each run alone
    pytestmark = pytest.mark.filterwarnings("ignore:method.:UserWarning")  # about the few rows

    @classmethod
    def problems(cls) -> Iterator[tuple[ModuleType, Spec, tuple[str, ...], str]]:
        """Yield (module, spec, sides, id) for every method, on every spec of its tasks, with both sets of sides."""
        for module in cls.checked_modules():
            uses = (module.METHOD.needs, module.METHOD.needs + module.METHOD.may)
            for sides in dict.fromkeys(tuple(s for s in ("source", "target") if s in used) for used in uses):
                for title, spec in specs_for(module.METHOD.tasks).items():
                    yield module, spec, sides, f"{short_name(module)}, {'+'.join(sides)}, {title}"

    def pytest_generate_tests(self, metafunc: pytest.Metafunc) -> None:
        """Run a test once per file (`module`), per problem (`spec`), or per kind of problem (`richest`, `two_sided`).

        richest: the last spec of each of a file's tasks, with all sides.
        two_sided: the classification specs, with both sides, if the method receives and compares both. Retrieval
        compares "visual", and a clustering run is refused unless both sides have the first feed.
        """
        problems = list(self.problems())
        last = {(module, task_of(spec)): id for module, spec, _, id in problems}.values()
        both = [case for case in problems if len(case[2]) == 2 and task_of(case[1]) == "classification"]
        both = both if self.compares_sides else []
        wanted = {"spec": problems, "richest": [case for case in problems if case[3] in last], "two_sided": both}
        for argument, cases in wanted.items():
            if argument in metafunc.fixturenames:
                skip = pytest.mark.skip("not for a method of these tasks and sides")
                params = [pytest.param(*case, id=id) for *case, id in cases]
                nothing = pytest.param(None, None, None, marks=skip, id="no problem")
                metafunc.parametrize(("module", argument, "sides"), params or [nothing])
                return
        super().pytest_generate_tests(metafunc)

    def build(self, module: ModuleType, spec: Spec, sides: Sequence[str], seed: int = 0) -> Method:
        """Build the method with `params`. Override this for a method that needs more."""
        return build(module, spec, sides, seed, self.params)

    def test_file_follows_the_layout(self, module: ModuleType) -> None:
        """The docstring gives objective and details; `Params` is frozen and documented; `METHOD` is a Method."""
        assert issubclass(module.METHOD, Method)
        assert {*module.METHOD.needs, *module.METHOD.may} <= {"source", "source_val", "target", "init_from"}
        text = module.__doc__ or ""
        assert re.search(r"L\s+= |min  L_|net:   L = ", text), "the docstring has no objective, such as 'L = L_C + ...'"
        assert "Implementation details" in text, "the docstring has no section 'Implementation details'"
        check_params(module)
        check_draws(module)

    def test_terms_are_finite_scalars(self, module: ModuleType, spec: Spec, sides: tuple[str, ...]) -> None:
        """A few steps of training give finite terms, and leave the tensors of their batches as they are."""
        log = train(self.build(module, spec, sides), spec, sides)
        assert log
        for terms in log:
            assert torch.tensor(list(terms.values())).isfinite().all(), terms

    def test_every_parameter_gets_a_gradient(self, module: ModuleType, spec: Spec, sides: tuple[str, ...]) -> None:
        """Every trainable parameter has a gradient other than 0, and `players` lists it."""
        method = self.build(module, spec, sides).train()
        total(method(batch(spec, sides), 0.5)).backward()
        trainable = {name: p for name, p in method.named_parameters() if p.requires_grad}
        idle = [name for name, p in trainable.items() if p.grad is None or p.grad.abs().max() == 0]
        assert idle == [], f"no gradient reaches {', '.join(idle)}; use these parameters in a loss, or freeze them"
        listed = {id(p) for group in method.players().values() for p in group}
        unlisted = [name for name, p in trainable.items() if id(p) not in listed]
        assert unlisted == [], f"players() does not list {', '.join(unlisted)}"
        assert listed == {id(p) for p in trainable.values()}, "players() lists frozen parameters, or others' ones"

    def test_same_seed_same_log(self, module: ModuleType, spec: Spec, sides: tuple[str, ...]) -> None:
        """Equal seeds give equal terms, other seeds other terms."""
        log, again, other = (train(self.build(module, spec, sides, seed), spec, sides, steps=2) for seed in (0, 0, 1))
        assert log == again, "equal seeds gave different terms; draw random numbers by `heads.noise` only"
        assert log != other, "different seeds gave equal terms"

    def test_randomness_comes_from_noise(self, module: ModuleType, spec: Spec, sides: tuple[str, ...]) -> None:
        """Rounds of training draw only through `heads.noise`, so that many heads can be trained in one pass."""
        logs = []
        for _ in range(2):
            method, b = self.build(module, spec, sides), batch(spec, sides)
            before = torch.get_rng_state()
            with noise.one(torch.Generator().manual_seed(0)):
                method.eval()
                with torch.no_grad():
                    method.begin_epoch(0, sweep(spec))
                rounds = method.train().rounds(b, 0.5)
                logs.append([{name: term.item() for name, term in terms.items()} for _, terms in rounds])
            same = torch.equal(torch.get_rng_state(), before)
            assert same, "the method draws from torch's global stream; draw by `heads.noise`, and drop by noise.Dropout"
        assert logs[0] == logs[1], "equal generators gave different terms; draw random numbers by `heads.noise` only"

    def test_the_net_is_drawn_before_the_method(self, module: ModuleType, spec: Spec, sides: tuple[str, ...]) -> None:
        """The constructor leaves the net's weights as they were drawn, so that equal seeds compare methods."""
        torch.manual_seed(0)
        bare = net_for(module, spec)
        for name, weights in self.build(module, spec, sides).net.state_dict().items():
            assert torch.equal(weights, bare.state_dict()[name]), f"the constructor changed {name} of the net"

    def test_state_dict_round_trip(self, module: ModuleType, spec: Spec, sides: tuple[str, ...]) -> None:
        """A trained method that was saved and loaded predicts the same."""
        method, other = self.build(module, spec, sides), self.build(module, spec, sides, seed=5)
        train(method, spec, sides)
        other.load_state_dict(method.state_dict())
        rows = side(spec, labelled=False)
        outputs, again = method.eval().predict(rows), other.eval().predict(rows)
        check_outputs(outputs, spec, len(rows.index))
        for name, out in outputs.items():
            assert torch.equal(out, again[name]), f"{name} differs after load_state_dict; keep what predict reads in it"

    def test_outputs_are_those_of_the_features(self, module: ModuleType, spec: Spec, sides: tuple[str, ...]) -> None:
        """`outputs` makes what `predict` returns from `features`, without x: a run measures what it classifies.

        No method is exempt: one with several classifiers returns all that they read.
        """
        method, whole = self.build(module, spec, sides), side(spec, labelled=False)
        train(method, spec, sides, steps=1)
        method.eval()
        for rows in (whole, without(whole, list(whole.x)[-1], slice(0, 8, 2))):
            f, wanted = method.features(rows), method.predict(rows)
            blank = dataclasses.replace(rows, x={m: torch.full_like(x, torch.nan) for m, x in rows.x.items()})
            outputs = method.outputs(f, blank)
            assert f.keys() - {"fused", "visual", "text", "B0", "B1"} <= rows.x.keys()
            assert {len(value) for value in f.values()} == {len(rows.index)}
            assert outputs.keys() == wanted.keys()
            for name, out in outputs.items():
                assert torch.allclose(out, wanted[name], atol=1e-6), (
                    f"{name} by predict is not that of outputs(features(side), side); return what is classified from "
                    "`features`, and override `outputs` in place of `predict` for a classifier of your own"
                )

    def test_every_feature_is_classified(self, module: ModuleType, spec: Spec, sides: tuple[str, ...]) -> None:
        """`features` returns nothing that the outputs do not read: norms and `dev` would measure it."""
        method, rows = self.build(module, spec, sides), side(spec, labelled=False)
        train(method, spec, sides, steps=1)
        method.eval()
        f = method.features(rows)
        wanted = method.outputs(f, rows)
        for name, f_BD in f.items():
            outputs = method.outputs(f | {name: torch.full_like(f_BD, torch.nan)}, rows)
            assert any(not torch.equal(out, outputs[key]) for key, out in wanted.items()), (
                f"no output reads {name!r} of `features`; leave out what is not classified"
            )

    def test_prediction_draws_nothing_and_keeps_no_state(
        self, module: ModuleType, spec: Spec, sides: tuple[str, ...]
    ) -> None:
        """`predict` draws no random number, changes no weight, buffer or row, and gives the same again."""
        method, rows = self.build(module, spec, sides).eval(), side(spec, labelled=False)
        before, weights = torch.get_rng_state(), {name: w.clone() for name, w in method.state_dict().items()}
        first = method.predict(rows)
        assert torch.equal(torch.get_rng_state(), before), "predict draws random numbers"
        for label, z in method.predict(rows).items():
            assert torch.equal(z, first[label]), f"a second predict gives another {label}"
        for name, w in method.state_dict().items():
            assert torch.equal(w, weights[name]), f"predict changes {name}"
        for name, x in side(spec, labelled=False).x.items():
            assert torch.equal(rows.x[name], x), f"predict changes the {name} of its rows; compute a new tensor"

    def test_labels_of_the_target_are_not_read(self, module: ModuleType, spec: Spec, sides: tuple[str, ...]) -> None:
        """Not even to see if there are any: a run hides them, and a method that looks learns from something else."""
        method, b = self.build(module, spec, sides).train(), batch(spec, sides)
        if b.target is not None:
            b = dataclasses.replace(b, target=dataclasses.replace(b.target, y=Hidden(b.target.y)))
        for _, terms in method.rounds(b, 0.5):
            total(terms).backward()

    def test_missing_labels_of_the_source_are_named(
        self, module: ModuleType, spec: Spec, sides: tuple[str, ...]
    ) -> None:
        """A source side without labels, or without captions in retrieval, is a ValueError that names them."""
        method, b = self.build(module, spec, sides).train(), batch(spec, sides)
        if b.source is None:
            return
        source = dataclasses.replace(only(b.source, spec.shapes.keys() - set(spec.captions)), y={})
        hidden = Batch(source=source, target=b.target)
        with pytest.raises(ValueError, match="needs captions" if spec.captions else "labels of kind .*hidden"):
            method(hidden, 0.5)

    def test_a_batch_of_one_and_rows_without_a_modality(
        self, module: ModuleType, spec: Spec, sides: tuple[str, ...]
    ) -> None:
        """Terms and gradients stay finite in a batch of one row and where rows lack a modality or their captions."""
        method = self.build(module, spec, sides).train()
        single = batch(spec, sides, rows=1)
        whole, lacking = batch(spec, sides), {}
        for name in sides:  # the second modality, or the only one that a clustering source has
            rows = getattr(whole, name)
            lacking[name] = without(rows, list(rows.x)[min(1, len(rows.x) - 1)], slice(0, 8, 2))
        gone = Batch(**lacking)
        mute = [dataclasses.replace(gone, source=without(gone.source_side, m, slice(1, 4))) for m in spec.captions]
        for b in (single, gone, *mute):
            method.zero_grad()
            terms = method(b, 0.5)
            total(terms).backward()
            assert torch.stack(list(terms.values())).isfinite().all(), terms
            for name, p in method.named_parameters():
                assert p.grad is None or p.grad.isfinite().all(), f"the gradient of {name} is not finite"

    def test_shapes_do_not_depend_on_values(self, module: ModuleType, richest: Spec, sides: tuple[str, ...]) -> None:
        """No `.item()`, no `if tensor`: losses run on tensors that have shapes but no values."""
        from torch._subclasses.fake_tensor import FakeTensorMode

        method = self.build(module, richest, sides).train()
        with FakeTensorMode(allow_non_fake_inputs=True):
            for name, term in method(batch(richest, sides), 0.5).items():
                assert term.shape == (), f"{name} is no scalar"

    def test_sides_that_share_no_modality(self, module: ModuleType, two_sided: Spec, sides: tuple[str, ...]) -> None:
        """A method that compares the sides refuses sides without a common modality: it would align nothing."""
        method, b = self.build(module, two_sided, sides).train(), batch(two_sided, sides)
        strangers = Batch(only(b.source_side, ["rgb"]), only(b.target_side, ["flow"]))
        words = "source and target share no modality to align; check `seen_by` of the feeds"
        try:
            method(strangers, 0.5)
        except ValueError as error:
            message = str(error)
        else:
            message = "nothing"
        assert words in message, (
            f"on sides that share no modality the method raised {message}; raise ValueError({words!r}), or set "
            f"`compares_sides = False` in {type(self).__name__} if no loss compares source rows with target rows"
        )

    def test_several_in_one_pass_equal_each_alone(
        self, module: ModuleType, richest: Spec, sides: tuple[str, ...]
    ) -> None:
        """Three seeds in one pass of `heads.stacked` have the terms and weights that each has alone, to 1e-4.

        So they do while last digits have not grown: over `pass_steps` steps, with dropout.
        """
        methods = [self.build(module, richest, sides, seed) for seed in range(3)]
        self.check_together(module, richest, sides, methods, self.pass_steps)

    def test_weights_of_losses_only_multiply(self, module: ModuleType, richest: Spec, sides: tuple[str, ...]) -> None:
        """Methods that differ in a weight `lambda_*` can share a pass: losses never ask for its value.

        The constructor may ask if a weight is 0: such runs are not in one pass with others.
        """
        for name, value in stacked.lambdas(module.Params()).items():
            given = [{**self.params, name: factor * (value or 0.1)} for factor in (1.0, 1.5, 2.0)]
            methods = [build(module, richest, sides, 0, params) for params in given]
            self.check_together(module, richest, sides, methods, steps=2)

    def check_together(
        self, module: ModuleType, spec: Spec, sides: tuple[str, ...], methods: list[Method], steps: int
    ) -> None:
        """Train these methods in one pass and one by one, and compare terms and weights."""
        if reason := stacked.why_not(module.METHOD) or self.trained_alone:
            pytest.skip(reason)
        seeds, copies = range(len(methods)), copy.deepcopy(methods)
        drawn = [[batch(spec, sides, seed=100 * step + 10 * k) for k in seeds] for step in range(steps)]
        log = losses_together(methods, [together(batches) for batches in drawn], seeds)
        for k, method in enumerate(copies):
            for step, terms in enumerate(losses_alone(method, [batches[k] for batches in drawn], k)):
                for name, term in terms.items():
                    assert log[step][name][k].item() == pytest.approx(term, rel=1e-4, abs=1e-4), (
                        f"{name} at step {step} is not the same in a pass of several; {STACKING}"
                    )
            for (name, p), other in zip(method.named_parameters(), methods[k].parameters(), strict=True):
                assert torch.allclose(p, other, rtol=1e-4, atol=1e-4), (
                    f"the weights {name} are not the same in a pass of several; {STACKING}"
                )
