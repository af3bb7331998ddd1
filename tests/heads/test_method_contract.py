"""What every file of heads/methods keeps: the contract of heads/methods/__init__.py, over the whole folder."""

import dataclasses
import inspect
import re

import pytest
import torch

from featcache import registry
from heads import methods
from heads.batch import Batch
from heads.methods import Method
from tests.helpers.problems import EK, SPEC, batch, net_for, of, only, side, small, sweep, without

MODULES = {name: registry.load(methods, name, "method") for name in registry.names(methods)}
pytestmark = pytest.mark.filterwarnings("ignore:method.:UserWarning")  # so few rows to find prototypes in

SIDE_BY_SIDE = {  #: methods that see both sides, and compare none with the other in their losses
    *("adabn", "bnm", "cbst", "dlmm", "entropy", "infomax", "mcc", "mcd", "pseudo_label", "safn"),
    *("label_propagation", "logistic_regression", "nearest_mean"),
}


class HiddenError(KeyError):
    """Hidden labels were asked for."""


class Hidden(dict):
    """Labels that nobody may look at."""

    def refuse(self, *_):
        raise HiddenError

    __getitem__ = __contains__ = __iter__ = __len__ = get = keys = values = items = refuse


def settings():
    """Every method on every spec, with the sides it needs, and again with those it may have."""
    for name, module in MODULES.items():
        needed = tuple(s for s in ("source", "target") if s in module.METHOD.needs)
        allowed = tuple(s for s in ("source", "target") if s in module.METHOD.needs + module.METHOD.may)
        for sides in dict.fromkeys((needed, allowed)):
            for which, spec in of(*module.METHOD.tasks).items():
                yield pytest.param(module, spec, sides, id=f"{name}, {'+'.join(sides)}, {which}")


EVERY = pytest.mark.parametrize(("module", "spec", "sides"), tuple(settings()))
#: of each method and task the richest spec, with all sides that the method may have; the others are slow
RICHEST = {(param.values[0].__name__, bool(param.values[1].captions)): param.id for param in settings()}.values()


def both(module):
    """It sees a source and a target, of classification."""
    seen = module.METHOD.needs + module.METHOD.may
    return {"source", "target"} <= {*seen} and "classification" in module.METHOD.tasks


def build(module, spec, sides, seed=0, **params):
    seen = {*sides, "captions", *(("source_val",) if "source_val" in module.METHOD.needs + module.METHOD.may else ())}
    spec = dataclasses.replace(spec, rows={name: n for name, n in spec.rows.items() if name in seen})
    torch.manual_seed(seed)
    net = net_for(module, spec)
    return module.METHOD(dataclasses.replace(module.Params(), **{**small(module), **params}), spec, net)


def train(method, spec, sides, steps=3, lr=0.05):
    """The terms of a few clipped steps, begin_epoch included."""
    optimizer = torch.optim.SGD(method.parameters(), lr=lr)
    method.eval()
    with torch.no_grad():
        method.begin_epoch(0, sweep(spec))
    method.train()
    log = []
    for step in range(steps):
        for _, terms in method.rounds(batch(spec, sides, seed=10 * step), step / steps):
            method.zero_grad()
            sum(terms.values()).backward()
            torch.nn.utils.clip_grad_norm_(method.parameters(), 1.0)
            optimizer.step()
        log.append({name: term.item() for name, term in terms.items()})
    return log


@pytest.mark.parametrize("module", MODULES.values(), ids=MODULES)
def test_files_follow_the_layout(module):
    assert issubclass(module.METHOD, Method)
    assert re.search(r"L\s+= |min  L_|net:   L = ", module.__doc__), "the docstring gives the objective"
    assert "Implementation details" in module.__doc__
    assert module.Params.__dataclass_params__.frozen
    source = inspect.getsource(module.Params).splitlines()
    for field in dataclasses.fields(module.Params):
        line = next(line for line in source if line.strip().startswith(f"{field.name}:"))
        assert "#: " in line, f"{module.__name__}.Params.{field.name} says nothing of itself"


@EVERY
def test_terms_are_finite_scalars(module, spec, sides):
    log = train(build(module, spec, sides), spec, sides)
    assert log
    for terms in log:
        assert terms
        assert torch.tensor(list(terms.values())).isfinite().all()


@EVERY
def test_every_parameter_gets_a_gradient(module, spec, sides):
    method = build(module, spec, sides).train()
    sum(method(batch(spec, sides), 0.5).values()).backward()
    trainable = {name: p for name, p in method.named_parameters() if p.requires_grad}
    assert [name for name, p in trainable.items() if p.grad is None or p.grad.abs().max() == 0] == []
    listed = {id(p) for group in method.players().values() for p in group}
    assert listed == {id(p) for p in trainable.values()}


@EVERY
def test_same_seed_same_log(module, spec, sides):
    log, again, other = (train(build(module, spec, sides, seed), spec, sides, steps=2) for seed in (0, 0, 1))
    assert log == again
    assert log != other


@EVERY
def test_the_net_is_drawn_before_the_method(module, spec, sides):
    torch.manual_seed(0)
    bare = net_for(module, spec)
    for name, weights in build(module, spec, sides).net.state_dict().items():
        assert torch.equal(weights, bare.state_dict()[name])


@EVERY
def test_state_dict_round_trip(module, spec, sides):
    method, other = build(module, spec, sides), build(module, spec, sides, seed=5)
    train(method, spec, sides)
    other.load_state_dict(method.state_dict())
    s = side(spec, labelled=False)
    said, again = method.eval().predict(s), other.eval().predict(s)
    assert set(said) == (set(spec.classes) or {"visual"})
    for name, out in said.items():
        assert torch.equal(out, again[name])


@EVERY
def test_prediction_draws_nothing_and_keeps_no_state(module, spec, sides):
    method, s = build(module, spec, sides).eval(), side(spec, labelled=False)
    before, weights = torch.get_rng_state(), {name: w.clone() for name, w in method.state_dict().items()}
    first = method.predict(s)
    assert torch.equal(torch.get_rng_state(), before)
    for task, z in method.predict(s).items():
        assert torch.equal(z, first[task])
    for name, w in method.state_dict().items():
        assert torch.equal(w, weights[name])


@EVERY
def test_labels_of_the_target_are_not_asked_for(module, spec, sides):
    """Not even whether there are any: what a run hides, a method that looks would learn from elsewhere."""
    method, b = build(module, spec, sides).train(), batch(spec, sides)
    if b.target is not None:
        b = dataclasses.replace(b, target=dataclasses.replace(b.target, y=Hidden(b.target.y)))
    for _, terms in method.rounds(b, 0.5):
        sum(terms.values()).backward()


@EVERY
def test_missing_labels_of_the_source_are_named(module, spec, sides):
    method, b = build(module, spec, sides).train(), batch(spec, sides)
    if b.source is None:
        return
    source = dataclasses.replace(only(b.source, spec.shapes.keys() - set(spec.captions)), y={})
    hidden = Batch(source=source, target=b.target)
    with pytest.raises(ValueError, match="needs captions" if spec.captions else "labels of kind .*hidden"):
        method(hidden, 0.5)


@EVERY
def test_a_batch_of_one_and_rows_without_a_modality(module, spec, sides):
    method = build(module, spec, sides).train()
    single = batch(spec, sides, rows=1)
    gone = batch(spec, sides)
    second = list(spec.shapes)[1]
    gone = Batch(**{name: without(getattr(gone, name), second, slice(0, 8, 2)) for name in sides})
    mute = [dataclasses.replace(gone, source=without(gone.source, m, slice(1, 4))) for m in spec.captions]
    for b in (single, gone, *mute):
        method.zero_grad()
        terms = method(b, 0.5)
        sum(terms.values()).backward()
        assert torch.stack(list(terms.values())).isfinite().all()
        assert all(p.grad is None or p.grad.isfinite().all() for p in method.parameters())


@pytest.mark.parametrize(
    ("module", "spec", "sides"),
    [
        pytest.param(*param.values, id=param.id, marks=() if param.id in RICHEST else pytest.mark.slow)
        for param in settings()
    ],
)
def test_shapes_do_not_depend_on_values(module, spec, sides):
    """No `.item()`, no `if tensor`: losses run on tensors that have shapes but no values."""
    from torch._subclasses.fake_tensor import FakeTensorMode

    method = build(module, spec, sides).train()
    with FakeTensorMode(allow_non_fake_inputs=True):
        for term in method(batch(spec, sides), 0.5).values():
            assert term.shape == ()


@pytest.mark.parametrize("name", [n for n, module in MODULES.items() if both(module) and n not in SIDE_BY_SIDE])
@pytest.mark.parametrize("spec", [SPEC, EK], ids=["one label", "two labels"])
def test_sides_that_share_no_modality_are_refused(name, spec):
    """For nothing would be aligned; a run refuses them before (tests/pipelines/test_config.py), whatever its method."""
    method, b = build(MODULES[name], spec, ("source", "target")).train(), batch(spec)
    strangers = Batch(only(b.source, ["rgb"]), only(b.target, ["flow"]))
    with pytest.raises(ValueError, match="source and target share no modality to align; check `seen_by` of the feeds"):
        method(strangers, 0.5)


@pytest.mark.parametrize(
    "look", [dict, list, bool, len, lambda y: y["label"], lambda y: y.get("label"), lambda y: "label" in y]
)
def test_hidden_labels_notice_every_look(look):
    with pytest.raises(HiddenError):
        look(Hidden(label=torch.zeros(8)))
