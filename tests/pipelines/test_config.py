"""RunConfig: JSON and back, its id, typed settings, and a sentence for everything that cannot be meant."""

import dataclasses
import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from featcache.errors import ConfigError
from heads.methods import acp, adabn, entropy, hcl, logistic_regression, rna, source_only, xmc
from heads.nets import adapter, gated
from heads.params import added, within
from pipelines import experiments, settings
from pipelines.config import Feed, Optim, RunConfig, override, parse_draw
from tests.helpers.stores import run

ADAPTED = {"method": rna.Params(), "target": "night"}


def test_json_round_trip():
    config = run(
        **ADAPTED,
        optim=Optim(milestones=(0.5, 0.75)),
        optim_for={"net.F": Optim("adam", 1e-3), "net": Optim(lr=0.1)},
        feeds={"rgb": Feed("hog", train="random:2", test="each"), "text": Feed("bert", "source test")},
        holdout=0.2,
        select="source_val",
        epoch=7,
        init_from="earlier",
    )
    again = RunConfig.from_json(json.loads(json.dumps(config.to_json())))
    assert again == config
    assert again.id == config.id


def test_id_names_the_run_and_hashes_all_but_the_row():
    config = run(**ADAPTED)
    assert config.id.startswith("rna_day_with-night_on-night_s0_")
    assert dataclasses.replace(config, row="another").id == config.id
    others = [
        override(config, setting).id
        for setting in (
            "seed=1",
            "method.lambda_g=2",
            "net.dim=16",
            "feeds.rgb.train=random:1",
            "optim.lr=0.1",
            "steps=13",
        )
    ]
    assert len({config.id, *others}) == 7


def test_id_is_a_folder_name():
    assert "/" not in run(source=("a/b", "c d"), test="e:f").id
    assert len(run(source=tuple(f"domain{k}" for k in range(50)), batch=(64, 6)).id) < 100


def test_equal_numbers_of_other_types_are_one_run():
    assert run(optim=Optim(lr=1)).id == run(optim=Optim(lr=1.0)).id


@pytest.mark.parametrize(
    ("setting", "read"),
    [
        ("method.lambda_g=0.5", lambda c: c.method.lambda_g == 0.5),
        ("method.lambda_g=2", lambda c: c.method.lambda_g == 2.0 and isinstance(c.method.lambda_g, float)),
        ("method.per_modality=true", lambda c: c.method.per_modality is True),
        ("method.per_modality=False", lambda c: c.method.per_modality is False),
        ("batch=3, 5", lambda c: c.batch == (3, 5)),
        ("source=(day,dusk)", lambda c: c.source == ("day", "dusk")),
        ("source=dusk", lambda c: c.source == ("dusk",)),
        ("target=dusk", lambda c: (c.target, c.test) == ("dusk", "dusk")),
        ("epoch=3", lambda c: c.epoch == 3),
        ("epoch=target", lambda c: c.epoch == "target"),
        ("optim.milestones=0.5,0.8", lambda c: c.optim.milestones == (0.5, 0.8)),
        ("optim.milestones=", lambda c: c.optim.milestones == ()),
        ("init_from=none", lambda c: c.init_from is None),
        ("init_from=r_1", lambda c: c.init_from == "r_1"),
        ("feeds.flow.train=random:2", lambda c: c.feeds["flow"].train == "random:2"),
        ("optim_for.net.F.lr=0.5", lambda c: c.optim_for["net.F"].lr == 0.5 and c.optim_for["net"].lr == 0.1),
        ("net.act=none", lambda c: c.net.act == "none"),
        ("method=rna", lambda c: c.method == rna.Params()),
    ],
)
def test_settings_know_their_type(setting, read):
    config = run(**ADAPTED, test="night", optim_for={"net": Optim(lr=0.1), "net.F": Optim(lr=0.2)})
    assert read(override(config, setting))


def test_settings_are_checked_together():
    """No single one of them would be allowed."""
    config = override(run(**ADAPTED), "method=source_only", "target=none", "test=night")
    assert (config.method, config.target) == (source_only.Params(), None)


@pytest.mark.parametrize(
    ("setting", "complaint"),
    [
        ("method.lamda_g=1", "no setting 'lamda_g' in method.*'lambda_g'.*lambda_g, lambda_c"),
        ("metod.lambda_g=1", "no setting 'metod'.*'method'"),
        ("feeds.rbg.store=x", "no setting 'rbg' in feeds.*'rgb'.*rgb, flow"),
        ("optim_for.net.lr=1", "no setting 'net' in optim_for.*none"),
        ("method.lambda_g=much", "method.lambda_g=much: 'much' is not a number"),
        ("seed=1.5", "seed=1.5: '1.5' is not a whole number"),
        ("method.per_modality=1", "'1' is not true or false"),
        ("batch=3", r"batch: \[3\] must have 2 values"),
        ("batch=3,x", "batch=x: 'x' is not a whole number"),
        ("optim=sgd", "optim=sgd: 'sgd' is not a group of settings"),
        ("seed.x=1", "seed is a whole number and has no part 'x'"),
        ("method=rma", "no method 'rma'.*'rna'"),
        ("net=adaptor", "no net 'adaptor'.*'adapter'"),
        ("seed", "no setting 'seed'.*NAME=VALUE"),
        ("=1", "no setting '=1'.*NAME=VALUE"),
    ],
)
def test_bad_settings_are_named(setting, complaint):
    with pytest.raises(ConfigError, match=complaint):
        override(run(**ADAPTED), setting)


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"target": "night"}, "'source_only' must not see a target .target='night'.*source"),
        ({"source": ()}, "method 'source_only' needs source"),
        ({"source": "day"}, r'must be a tuple of domains: source=\("day",\)'),
        ({"source": ("day", "day")}, "names a domain twice"),
        ({"method": rna.Params(), "target": "day"}, "target 'day' is also a source"),
        ({"test": ""}, "test is empty"),
        ({"manifest": ""}, "manifest is empty"),
        ({"method": adapter.Params()}, "method must be the Params"),
        ({"net": rna.Params}, "net must be the Params"),
        ({"feeds": {}}, "feeds is empty"),
        ({"feeds": {"a.b": Feed("hog")}}, "feeds: 'a.b' is not a valid name.*letters"),
        (
            {"feeds": {"rgb": Feed("hog", seen_by="everyone")}},
            "feeds.rgb.seen_by='everyone'.*source, target",
        ),
        ({"feeds": {"rgb": Feed("hog", train="random")}}, "feeds.rgb.train='random'.*choose from all"),
        (
            {"feeds": {"rgb": Feed("hog", train="random:0")}},
            "train='random:0'.*all, random:K, shared:K, segments:K",
        ),
        ({"feeds": {"rgb": Feed("hog", test="random:1")}}, "feeds.rgb.test='random:1'.*all, segments:K, mean, each"),
        ({"feeds": {"rgb": Feed("hog", test="each:2")}}, "feeds.rgb.test='each:2'.*choose from all"),
        ({"train_split": "training"}, "train_split='training'.*train, val, test"),
        ({"absent": "ignore"}, "absent='ignore'.*refuse, drop, mask"),
        ({"select": "best"}, "select='best'.*last, mean, source_val"),
        ({"select": "source_val"}, "set holdout"),
        ({"fidelity": "close"}, "fidelity='close'.*exact, adapter"),
        ({"holdout": 1.0}, "holdout=1.0 must be a share"),
        ({"steps": -1}, "steps=-1 must be at least 0"),
        ({"keep": 9}, "keep=9 needs evaluation points"),
        ({"epoch": "target"}, "epoch='target'.*has no target"),
        ({"epoch": 0}, "epoch=0 must be at least 1"),
        ({"epoch": "day"}, "epoch='day'.*source, target"),
        ({"batch": (1, 6), "source": ("day", "dusk")}, r"batch=\(1, 6\).*2 source domains"),
        ({"optim": Optim("lion")}, "optim.name='lion'.*sgd, adam"),
        ({"optim": Optim(lr=0.0)}, "optim.lr=0.0 must be above 0"),
        ({"optim": Optim(milestones=(50,))}, "optim.milestones=.*50.*between 0 and 1"),
        ({"optim": Optim(nesterov=True, momentum=0.0)}, "optim.nesterov needs sgd.*momentum"),
        ({"optim_for": {"net": Optim(clip_norm=-1.0)}}, "optim_for.net.clip_norm=-1.0 must be at least 0"),
    ],
)
def test_what_cannot_be_meant_is_refused(changes, complaint):
    with pytest.raises(ConfigError, match=complaint):
        run(**changes)


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"steps": "5"}, "steps: '5' is not a whole number"),
        ({"steps": 2.5}, "steps: 2.5 is not a whole number"),
        ({"keep": True}, "keep: True is not a whole number"),
        ({"seed": "a"}, "seed: 'a' is not a whole number"),
        ({"seed": 1.0}, "seed: 1.0 is not a whole number"),
        ({"seed": -1}, r"seed=-1 must be a whole number in \[0, 2\*\*63\)"),
        ({"seed": 2**63}, "seed=9223372036854775808 must be"),
        ({"source": ["loft"]}, r"source=\['loft'\] must be a tuple: \('loft',\)"),
        ({"source": None}, "source=None must be a tuple"),
        ({"test": ("night",)}, r"test: \('night',\) is not text"),
        ({"row": None}, "row: None is not text"),
        ({"manifest": 3}, "manifest: 3 is not text"),
        ({"feeds": {"rgb": "hog"}}, r"feeds.rgb='hog' must be Feed\(...\)"),
        ({"feeds": {3: Feed("hog")}}, "feeds: 3 is not text"),
        ({"feeds": ("hog",)}, r"feeds: \('hog',\) is not a group of settings"),
        ({"feeds": {"rgb": Feed(3)}}, "feeds.rgb.store: 3 is not text"),
        ({"batch": 64}, "batch=64 must be a tuple of 2 values"),
        ({"batch": (64,)}, r"batch=\(64,\) must be a tuple of 2 values"),
        ({"batch": (6, 6.5)}, "batch: 6.5 is not a whole number"),
        ({"epoch": None}, "epoch=None is not a whole number or text"),
        ({"epoch": 2.5}, "epoch=2.5 is not a whole number or text"),
        ({"holdout": "0.1"}, "holdout='0.1' is not a finite number"),
        ({"holdout": math.nan}, "holdout=nan is not a finite number"),
        ({"net": adapter.Params(dim="a")}, "net.dim: 'a' is not a whole number"),
        ({"method": source_only.Params(per_modality=1)}, "method.per_modality: 1 is not true or false"),
        ({"method": rna.Params(lambda_g=math.nan)}, "method.lambda_g=nan is not a finite number"),
        ({"method": rna.Params(lambda_im=-0.1)}, "method.lambda_im=-0.1 must be at least 0"),
        ({"optim": 0.1}, r"optim=0.1 must be Optim\(...\)"),
        ({"optim": Optim(lr=math.inf)}, "optim.lr=inf is not a finite number"),
        ({"optim": Optim(lr=math.nan)}, "optim.lr=nan is not a finite number"),
        ({"optim": Optim(gamma=math.inf)}, "optim.gamma=inf is not a finite number"),
        ({"optim": Optim(milestones=0.5)}, "optim.milestones=0.5 must be a tuple"),
        ({"optim_for": {"net": 0.1}}, r"optim_for.net=0.1 must be Optim\(...\)"),
        ({"optim_for": {"net": Optim(name=3)}}, "optim_for.net.name: 3 is not text"),
        ({"init_from": run()}, "init_from takes the id of a run.*THE_RUN.id"),
        ({"init_from": 3}, "init_from=3 is not text or none"),
    ],
)
def test_values_of_another_type_are_named_in_one_sentence(changes, complaint):
    with pytest.raises(ConfigError, match=complaint) as caught:
        run(**changes)
    assert len(str(caught.value)) < 150


def test_whole_numbers_are_numbers():
    assert run(holdout=0, optim=Optim(lr=1, milestones=())).optim.lr == 1


def test_labelled_rows_are_not_tested():
    for method in (source_only.Params(), rna.Params()):
        with pytest.raises(ConfigError, match="test rows of 'night'.*train_split"):
            run(method=method, source=("day", "night"), test="night", train_split="test")
    assert run(source=("night",), test="night").test == "night"  # supervised-target: other rows of the domain


def test_points_are_the_last_ones_and_there_are_as_many_as_asked_for():
    assert run(steps=12).points == (12,)
    assert run(steps=11, eval_every=3, keep=2).points == (9, 11)
    assert run(steps=12, eval_every=3, keep=4).points == (3, 6, 9, 12)
    assert run(steps=0).points == (0,)
    with pytest.raises(ConfigError, match="keep=5.*4 evaluation points.*steps=12.*eval_every=3"):
        run(steps=12, eval_every=3, keep=5)


def test_a_feed_that_only_the_test_sees_is_refused():
    feeds = {"rgb": Feed("hog"), "flow": Feed("hof", seen_by="test")}
    with pytest.raises(ConfigError, match="feeds.flow.seen_by='test'.*init_from"):
        run(feeds=feeds)
    assert run(feeds=feeds, init_from="earlier").feeds == feeds


def test_sides_that_share_no_modality_are_refused():
    feeds = {"rgb": Feed("hog", seen_by="source test"), "flow": Feed("hof", seen_by="target test")}
    for method in (rna.Params(), entropy.Params(), logistic_regression.Params()):
        with pytest.raises(ConfigError, match="source and target share no modality.*seen_by"):
            run(method=method, target="night", feeds=feeds)
    assert run(method=rna.Params(), target=None, test="night", feeds=feeds).feeds == feeds


@pytest.mark.parametrize(
    ("data", "complaint"),
    [
        ({"stepz": 3}, "no setting 'stepz'.*'steps'"),
        ({"steps": "3"}, "steps: '3' is not a whole number"),
        ({"steps": True}, "steps: True is not a whole number"),
        ({"method": {"name": "nope"}}, "no method 'nope'"),
        ({"method": {}}, "method.name: None is not text"),
        ({"batch": [1, 2, 3]}, "must have 2 values"),
        ({"source": "day"}, "source: 'day' is not a list"),
        ({"target": 3}, "target: 3 is not text or none"),
    ],
)
def test_bad_json_is_named(data, complaint):
    with pytest.raises(ConfigError, match=complaint):
        RunConfig.from_json({**run().to_json(), **data})


def test_missing_json_keys_take_their_defaults_or_are_named():
    data = run().to_json()
    del data["seed"]
    assert RunConfig.from_json(data).seed == 0
    del data["manifest"]
    with pytest.raises(ConfigError, match="manifest"):
        RunConfig.from_json(data)


# ------------------------------------------------------------------------------- fields that earlier runs did not have

ADDED = {
    "net.dropout_at": (run(net=adapter.Params(dim=8)), "features"),
    "method.every": (run(method=hcl.Params(), source=(), target="night", init_from="r", epoch="target"), 0),
    "method.layers": (run(method=adabn.Params(), target="night"), False),
}


def without(data, path):
    """The JSON without the setting at `path`, as runs from before the setting wrote it."""
    part, _, name = path.partition(".")
    return {**data, part: {key: value for key, value in data[part].items() if key != name}}


@pytest.mark.parametrize("path", ADDED)
def test_a_run_from_before_a_field_opens_with_the_value_it_had_and_keeps_its_id(path):
    config, before = ADDED[path]
    part, _, name = path.partition(".")
    old = json.loads(json.dumps(without(config.to_json(), path)))
    opened = RunConfig.from_json(old)
    assert getattr(getattr(opened, part), name) == before
    assert opened.to_json() == old
    assert opened.id == override(config, f"{path}={before}").id != config.id
    default = getattr(getattr(config, part), name)
    assert override(opened, f"{path}={default}") == config
    assert RunConfig.from_json(json.loads(json.dumps(config.to_json()))) == config
    assert config.all_settings[part][name] == default
    assert opened.all_settings[part][name] == before


def test_the_name_of_a_method_or_net_gives_the_defaults_of_today():
    assert override(ADDED["net.dropout_at"][0], "net=adapter").net == adapter.Params()
    old = override(ADDED["method.every"][0], "method.every=0", "net.dropout_at=features")
    assert override(old, "method=hcl", "net=adapter", "net.dim=8") == ADDED["method.every"][0]


@dataclasses.dataclass(frozen=True)
class Part:
    size: int = 1
    place: str = added("new", before="old")
    every: int = within(300, 0, before=0)


@dataclasses.dataclass(frozen=True)
class Whole:
    parts: dict[str, Part]
    one: Part = added(Part(), before=Part(size=2))


def test_fields_are_left_out_at_every_level():
    values = [Whole({"a": Part(place="old"), "b": Part(every=0)}, Part(2)), Whole({"a": Part(3, "old", 0)})]
    written = [settings.to_json(value, Whole) for value in values]
    assert [settings.from_json(data, Whole) for data in written] == values
    assert written[0] == {"parts": {"a": {"size": 1, "every": 300}, "b": {"size": 1, "place": "new"}}}
    assert written[1] == {"parts": {"a": {"size": 3}}, "one": {"size": 1, "place": "new", "every": 300}}
    assert settings.to_json(values[1], Whole, whole=True)["parts"]["a"] == {"size": 3, "place": "old", "every": 0}


def test_relative_rotations_head_keeps_its_place_of_dropout_and_so_its_runs():
    """Their ids are those from before there was a choice."""
    runs = experiments.load("rna_rod").runs
    assert {run.net.dropout_at for run in runs} == {"features"}
    assert next(run.id for run in runs if run.target) == "dann_synrod_with-rod_on-rod_s0_34b858d3a3"


@pytest.mark.parametrize("module", [xmc, acp])
def test_the_printed_form_changes_the_id_and_the_default_does_not(module):
    kinds = {
        xmc: {},
        acp: {
            "net": gated.Params(),
            "feeds": {"rgb": Feed("rgb"), "text": Feed("t", seen_by="source test", captions="own")},
        },
    }
    plain, printed = (
        run(method=method, target="night", **kinds[module]) for method in (module.Params(), module.PRINTED)
    )
    assert "reduction" not in plain.to_json()["method"]
    assert printed.to_json()["method"]["reduction"] == module.PRINTED.reduction
    assert RunConfig.from_json(json.loads(json.dumps(printed.to_json()))) == printed
    assert plain.id != printed.id == override(plain, f"method.reduction={module.PRINTED.reduction}").id


def test_learning_rate_by_hand():
    steps = Optim(lr=1.0, milestones=(0.5, 0.75))
    assert [steps.at(p) for p in (0, 0.49, 0.5, 0.75)] == pytest.approx([1, 1, 0.1, 0.01])
    assert Optim(lr=2.0, inverse=10).at(0.3) == pytest.approx(2 * 4**-0.75)


@given(st.integers(1, 99))
def test_parse_draw(k):
    assert parse_draw(f"random:{k}") == ("random", k)
    assert parse_draw("each") == ("each", 0)
