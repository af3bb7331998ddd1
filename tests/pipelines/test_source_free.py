"""What all source-free baselines keep: no source row is read, any net will do, copies begin as what init_from names."""

import dataclasses
import json
import shutil

import pytest
import torch

from featcache.errors import ConfigError
from heads.batch import Batch
from heads.methods import gan3c, hcl, sfda, shot
from heads.methods._copies import Teacher, second_head
from heads.nets import adapter
from heads.nets import mtran as net
from heads.testing import methods as contract
from heads.testing.problems import EK, SPEC, batch, side
from pipelines.data import opening
from pipelines.training.runs import Run, out_of_date, write_sums
from pipelines.training.train import train
from tests.helpers.stores import manifest, run, write_all

torch.set_num_threads(1)
MODULES = {"shot": shot, "sfda": sfda, "hcl": hcl, "gan3c": gan3c}
EVERY = pytest.mark.parametrize("module", MODULES.values(), ids=MODULES)
SPECS = pytest.mark.parametrize("spec", [SPEC, EK], ids=["one label", "two labels"])


def stages(module):
    """(source stage on day, target stage on night) of the toy benchmark."""
    first = run(row="")
    changes = {"source": (), "target": "night", "epoch": 3, "steps": 6, "init_from": first.id}
    return first, dataclasses.replace(first, method=module.Params(), row="adapted", **changes)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """Stores with all rows."""
    return write_all(tmp_path_factory.mktemp("whole"))


@pytest.fixture(scope="module")
def bare(tmp_path_factory):
    """Stores where no source row has features any more, nor its label."""
    rolled = {"chop": "peel", "peel": "stir", "stir": "chop"}
    clips = manifest(labels=lambda domain, _, name: {"label": rolled[name] if domain == "day" else name})
    gone = [row for row, clip in enumerate(clips) if clip.domain == "day"]
    return write_all(tmp_path_factory.mktemp("bare"), clips, states=dict.fromkeys(gone, "failed"))


@pytest.fixture(scope="module")
def runs(whole, tmp_path_factory):
    """The finished source stage."""
    folder = tmp_path_factory.mktemp("runs")
    train(stages(shot)[0], whole, folder)
    return folder


@EVERY
def test_no_source_row_is_read(module, whole, bare, runs, tmp_path, monkeypatch):
    """A run says the same to the digit where there are no source rows, and asks for target rows alone."""
    _, second = stages(module)
    asked, seen = [], []
    load, rounds = opening.Opened.load, module.METHOD.rounds
    monkeypatch.setattr(
        opening.Opened, "load", lambda self, role, rows, **k: (asked.extend(rows), load(self, role, rows, **k))[1]
    )
    monkeypatch.setattr(module.METHOD, "rounds", lambda self, b, at: (seen.append(b), rounds(self, b, at))[1])
    made = []
    for k, stores in enumerate((whole, bare)):
        shutil.copytree(runs, tmp_path / f"runs{k}")
        made.append(Run.open(train(second, stores, tmp_path / f"runs{k}")))
    assert made[0].log() == made[1].log()
    assert made[0].outputs["label"].tolist() == made[1].outputs["label"].tolist()
    assert {clip.domain for row, clip in enumerate(manifest()) if row in asked} == {"night"}
    assert len(seen) == 12
    assert all(b.source is None and b.target.y == {} for b in seen)


@EVERY
def test_a_source_and_a_random_start_are_refused(module):
    _, second = stages(module)
    with pytest.raises(ConfigError, match="must not see a source"):
        dataclasses.replace(second, source=("day",))
    with pytest.raises(ConfigError, match="needs init_from"):
        dataclasses.replace(second, init_from=None)


@EVERY
@SPECS
def test_any_net_will_do(module, spec):
    """A net that fuses, as MTRAN's tables have it."""

    def build():
        torch.manual_seed(0)
        return module.METHOD(module.Params(), spec, net.Mtran(net.Params(dim=8, layers=2), spec))

    log = contract.train(build(), spec, ("target",))
    assert log == contract.train(build(), spec, ("target",))
    assert all(torch.tensor(list(terms.values())).isfinite().all() for terms in log)
    method = build().train()
    sum(method(batch(spec, ("target",)), 0.5).values()).backward()
    trainable = {name: p for name, p in method.named_parameters() if p.requires_grad}
    silent = {name for name, p in trainable.items() if p.grad is None or p.grad.abs().max() == 0}
    assert {name for name in silent if not name.startswith("net.branch")} == set()  # ReLU units may all be dead there


# ------------------------------------------------------------------------------------------------------------- copies


def test_a_teacher_follows_by_hand():
    torch.manual_seed(0)
    student = adapter.Adapter(adapter.Params(dim=8), SPEC)
    teacher = Teacher(student)
    before = [p.clone() for p in student.parameters()]
    with torch.no_grad():
        for p in student.parameters():
            p.add_(1.0)
    for k in (1, 2):  # 1 - 0.75^k of the way
        teacher.follow(student, 0.75)
        for mine, old in zip(teacher.parameters(), before, strict=True):
            assert torch.allclose(mine, old + 1 - 0.75**k, atol=1e-6)
    teacher.follow(student)
    assert all(torch.equal(a, b) for a, b in zip(teacher.parameters(), student.parameters(), strict=True))
    assert all(torch.equal(p, old + 1.0) for p, old in zip(student.parameters(), before, strict=True))


def test_a_teacher_stays_in_eval_mode_and_takes_no_gradient():
    teacher = Teacher(adapter.Adapter(adapter.Params(dim=8), SPEC))
    holder = torch.nn.ModuleList([teacher]).train()
    assert holder.training
    assert not any(module.training for module in teacher.modules())
    assert not any(p.requires_grad for p in teacher.parameters())


def test_a_teacher_takes_over_buffers():
    student = adapter.Adapter(adapter.Params(dim=8), SPEC)
    student.register_buffer("seen", torch.zeros(2))
    teacher = Teacher(student)
    student.seen.add_(5)
    teacher.follow(student, 0.9)
    assert teacher.net.seen.tolist() == [5, 5]


def test_a_second_head_shares_the_encoder_and_not_the_classifier():
    first = adapter.Adapter(adapter.Params(dim=8), SPEC).eval()
    second, s = second_head(first).eval(), side(SPEC, labelled=False)
    assert torch.equal(second.classify(first.encode(s))["label"], first.classify(first.encode(s))["label"])
    with torch.no_grad():
        for p in first.parameters():
            p.mul_(2.0)
    for m, f in first.encode(s).items():
        assert torch.equal(second.encode(s)[m], f)
    assert not torch.equal(second.classify(first.encode(s))["label"], first.classify(first.encode(s))["label"])


@pytest.mark.parametrize("module", [sfda, hcl, gan3c], ids=["sfda", "hcl", "gan3c"])
def test_copies_begin_as_the_loaded_net(module):
    """init_from comes after the constructor: the first begin_epoch copies anew, later ones do not."""
    method = contract.build(module, SPEC, ("target",)).eval()
    loaded = adapter.Adapter(adapter.Params(dim=8), SPEC)
    method.net.load_state_dict(loaded.state_dict())
    copied = {
        sfda: lambda: method.first.classifier.state_dict(),
        hcl: lambda: method.history.net.state_dict(),
        gan3c: lambda: method.source.net.state_dict(),
    }[module]
    expected = (loaded.classifier if module is sfda else loaded).state_dict()
    for epoch in (0, 1):
        with torch.no_grad():
            method.begin_epoch(epoch, lambda _: iter([side(SPEC, 18, labelled=False)]))
        assert all(torch.equal(value, expected[name]) for name, value in copied().items())
        with torch.no_grad():
            for p in method.net.parameters():
                p.add_(1.0)


def pick(s, index):
    """Rows of a side."""
    cut = lambda values: {name: v[index] for name, v in values.items()}  # noqa: E731
    return dataclasses.replace(
        s, x=cut(s.x), present=cut(s.present), y=cut(s.y), domain=s.domain[index], index=s.index[index]
    )


@EVERY
@SPECS
def test_a_sweep_in_pieces_is_a_sweep(module, spec):
    rows, found = side(spec, 18, labelled=False, seed=3), []
    for pieces in ([rows], [pick(rows, torch.arange(k, min(k + 5, 18))) for k in range(0, 18, 5)]):
        method = contract.build(module, spec, ("target",)).eval()
        with torch.no_grad():
            method.begin_epoch(0, lambda name, pieces=pieces: iter(pieces if name == "target" else ()))
        torch.manual_seed(1)
        found.append(method.losses(Batch(target=rows), 0.3))
    for name, term in found[0].items():
        assert term.item() == pytest.approx(found[1][name].item(), rel=1e-5, abs=1e-6)


def test_hcl_of_an_earlier_version_is_trained_again(whole, runs, tmp_path):
    """Equal settings once meant p^s of test windows: the id stays, and the folder still opens, but is out of date."""
    shutil.copytree(runs, tmp_path / "runs")
    stage = dataclasses.replace(stages(hcl)[1], method=hcl.Params(every=0))
    path = train(stage, whole, tmp_path / "runs")
    read = Run.open(path).facts.read
    assert read["method hcl"] == "2"
    facts = json.loads((path / "run.json").read_text())
    del facts["read"]["method hcl"]  # as an earlier version wrote it
    (path / "run.json").write_text(json.dumps(facts))
    write_sums(path)
    assert Run.open(path).config.id == stage.id
    assert out_of_date(path, read).endswith("have changed: method hcl")
