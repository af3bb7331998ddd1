"""Figures of a report from features: maps, neighbours, norms by class and in pairs; and curves from table rows."""

import re
import shutil
from dataclasses import replace
from itertools import combinations

import cv2
import numpy as np
import pytest
import torch

from featcache.errors import ConfigError
from featcache.manifest import Clip
from heads.methods import hcl, mm_sada, mmd, rna, shot, source_only, xmc
from heads.nets import mtran as mtran_net
from pipelines.config import Feed
from pipelines.data.opening import open_run
from pipelines.evaluation.evaluate import evaluate
from pipelines.experiments import Experiment, load
from pipelines.report import norms, plots, samples, sensitivity, spaces
from pipelines.report.neighbours import NEAREST, gallery, neighbours
from pipelines.report.norms import common, mean_norms, near
from pipelines.report.samples import draw, sample
from pipelines.report.sensitivity import across, sweeps
from pipelines.report.write import write
from pipelines.tables.build import build, norms_table
from pipelines.training.runs import Run
from pipelines.training.train import train
from tests.helpers import result_rows
from tests.helpers.result_rows import result
from tests.helpers.stores import CLASSES, manifest, run, write_all
from tests.pipelines.test_report import HOSTILE, Page

SECTIONS = (
    "Feature norms per class",
    "Pairs of feature norms",
    "Feature spaces",
    "Nearest source clips of target clips",
)


def toy(*runs, name="toy", **changes):
    return Experiment(name, "Toy.", runs, **changes)


def rows_of(experiment, values=(0.5, 0.7)):
    methods = list(dict.fromkeys(config.row for config in experiment.runs))
    return [result(config, values[methods.index(config.row)]) for config in experiment.runs]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Stores of 12 test clips with pictures, and the runs of two rows."""
    root = tmp_path_factory.mktemp("figures")
    clips = manifest()
    write_all(root / "stores", clips)
    for clip in clips:
        path = root / "stores" / "toy" / clip.source
        path.parent.mkdir(parents=True, exist_ok=True)
    for config in two().runs:
        train(config, root / "stores", root / "runs")
    return root


def two():
    return toy(run(), run(method=mmd.Params(), target="night", row="MMD"))


def drawn(folder, experiment=None):
    experiment = experiment or two()
    return draw(experiment, build(rows_of(experiment), experiment), folder / "runs", folder / "stores")


@pytest.fixture(scope="module")
def text(folder):
    """The page about both rows."""
    return report(folder)


def report(folder, experiment=None, results=None):
    experiment = experiment or two()
    out = folder / "report.html"
    write(experiment, rows_of(experiment) if results is None else results, folder / "runs", folder / "stores", out)
    return out.read_text()


# ------------------------------------------------------------------------------------------------------------ samples


def test_samples_are_the_features_of_the_test_rows_that_the_run_classifies(folder):
    config = two().runs[1]
    of = sample(two(), "MMD", folder / "runs" / config.id, folder / "stores")
    opened, method = open_run(config, folder / "stores"), Run.open(folder / "runs" / config.id).method()
    for domain, half in (("day", of.source), ("night", of.target)):
        rows = manifest().rows(domain=domain, split="test")
        assert [clip.clip_id for clip in half.clips] == [manifest().clips[row].clip_id for row in rows]
        (side,) = opened.load("test", rows).sweep()
        with torch.no_grad():
            f = method.features(side)
        for m, f_ND in f.items():
            np.testing.assert_allclose(half.f[m], f_ND, rtol=1e-5)
            np.testing.assert_allclose(half.norms[m][:, 0], np.linalg.norm(f_ND, axis=1), rtol=1e-5)


def test_both_rows_draw_the_same_sampled_clips_and_the_page_counts_them(folder, monkeypatch):
    monkeypatch.setattr(samples, "MOST", 4)
    before, after = drawn(folder).samples
    assert [len(half.clips) for half in (before.source, before.target)] == [4, 4]
    assert before.source.clips == after.source.clips
    assert before.target.clips == after.target.clips
    assert "4 of 6 test clips of day and 4 of 6 test clips of night, sampled" in drawn(folder).words


def test_the_rows_are_the_first_and_the_best_of_the_same_shift_and_seed():
    toy_table = result_rows.experiment()
    results = [r for r in result_rows.rows(toy_table) if not (r.seed == 0 and r.row == "source-only")]
    shift, seed, ids = samples.chosen(toy_table, build(results, toy_table))
    assert (shift, seed, list(ids)) == ("day→night", 1, ["source-only", "RNA (UDA)"])
    shift, seed, ids = samples.chosen(toy_table, build(result_rows.rows(toy_table), toy_table))
    assert (shift, seed, list(ids)) == ("day→night", 0, ["source-only", "RNA (UDA)"])
    assert {toy_table.by_id[run].source for run in ids.values()} == {("day",)}


def test_a_best_row_on_other_shifts_leaves_the_first_row():
    day = run()
    other = run(method=rna.Params(), source=("night",), target="day", test="day", row="RNA (UDA)")
    experiment = toy(day, other)
    table = build(rows_of(experiment), experiment)
    assert list(samples.chosen(experiment, table)[2]) == ["source-only"]


def test_at_most_four_rows_are_all_drawn_in_the_tables_order_else_the_first_and_the_best():
    names = [f"RNA {k}" for k in range(5)]
    made = [run(), *(run(method=rna.Params(lambda_g=float(k)), target="night", row=row) for k, row in enumerate(names))]
    values = dict(zip(["source-only", *names], (0.5, 0.3, 0.9, 0.4, 0.2, 0.1), strict=True))
    whole = toy(*made, run(source=("night",), row="supervised-target", method=source_only.Params(per_modality=True)))
    results = [result(config, values.get(config.row, 1.0)) for config in whole.runs]
    for only, shown in (
        ((), ["source-only", "RNA 1"]),
        (("source-only", "RNA 3", "RNA 4"), ["source-only", "RNA 3", "RNA 4"]),
        (("RNA 2", "RNA 4", "source-only", "RNA 0", "supervised-target"), ["source-only", "RNA 0", "RNA 2", "RNA 4"]),
    ):
        experiment = whole.changed(only=only)
        assert list(samples.chosen(experiment, build(results, experiment))[2]) == shown


def test_a_shift_that_is_given_is_drawn():
    toy_table = result_rows.experiment()
    table = build(result_rows.rows(toy_table), toy_table)
    for shift in table.shifts:
        found, _, ids = samples.chosen(toy_table, table, shift)
        assert found == shift
        assert {toy_table.columns[run] for run in ids.values()} == {(shift,)}


def test_the_page_names_the_shifts_that_are_given_and_refuses_others(folder):
    out = folder / "shift.html"
    arguments = two(), rows_of(two()), folder / "runs", folder / "stores", out
    write(*arguments, shifts=("day->night",))
    texts = Page(out.read_text()).texts
    assert all(f"{section} on day→night" in texts for section in SECTIONS)
    assert any("featcache report toy --shift 'day→night'" in text for text in texts)
    with pytest.raises(ConfigError, match=r"shift 'day→nihgt'.*day→night"):
        write(*arguments, shifts=("day→nihgt",))


def test_a_source_free_run_takes_the_source_of_its_start(folder):
    start = two().runs[0]
    free = run(method=shot.Params(), source=(), target="night", init_from=start.id, row="SHOT", epoch="target")
    train(free, folder / "stores", folder / "runs")
    of = sample(toy(start, free), "SHOT", folder / "runs" / free.id, folder / "stores")
    assert of.source.domains == ("day",)
    assert len(of.source.clips) == 6


def test_a_source_without_test_clips_draws_train_clips(tmp_path):
    clips = manifest()
    kept = tuple(c for c in clips if (c.domain, c.split) != ("day", "test"))
    stores = write_all(tmp_path / "stores", replace(clips, clips=kept))
    path = train(run(), stores, tmp_path / "runs")
    free = run(method=shot.Params(), source=(), target="night", init_from=run().id, row="SHOT", epoch="target")
    experiment, paths = toy(run(), free), [path, train(free, stores, tmp_path / "runs")]
    for config, folder in zip(experiment.runs, paths, strict=True):
        of = sample(experiment, config.row, folder, stores)
        assert of.source.words == "12 train clips of day"
        assert of.target.words == "6 test clips of night"
        assert {(clip.domain, clip.split) for clip in of.source.clips} == {("day", "train")}


def test_a_fusing_net_draws_what_it_classifies(folder):
    config = run(net=mtran_net.Params(dim=8, layers=1), row="source-only", steps=2)
    path = train(config, folder / "stores", folder / "runs")
    of = sample(toy(config), "source-only", path, folder / "stores")
    assert of.spaces == ("fused",)
    assert {space.modality for _, group in spaces.groups(of) for space in group} == {"fused"}
    assert neighbours(of, "label").space == "fused"


def test_a_fusing_net_has_norms_of_one_kind_and_no_coefficient_of_variation(folder):
    """In results, table and report alike, with the reason; a coefficient of an earlier version is not shown."""
    config = run(net=mtran_net.Params(dim=8, layers=1), row="source-only", steps=2)
    experiment = toy(config, replace(config, method=mmd.Params(), target="night", row="MMD"))
    found = []
    for each in experiment.runs:
        measured = evaluate(train(each, folder / "stores", folder / "runs"), folder / "stores", "toy")
        assert {r.metric for r in measured if r.metric.startswith(("norm/", "cv_"))} == {
            "norm/source/fused",
            "norm/target/fused",
        }
        found += [*measured, result(each, 0.0, "cv_st")]
    text = " ".join(norms_table(found, experiment).split())
    assert "No coefficient of variation of source-only, MMD" in text
    assert "CV both" not in text
    write(experiment, found, folder / "runs", folder / "stores", folder / "fused.html")
    shown = (folder / "fused.html").read_text()
    section = shown[shown.index("<h2>Feature norms per modality") : shown.index("<h2>Feature norms per class")]
    assert "MMD, target, fused: " in section
    assert "No coefficient of variation of source-only, MMD" in section
    assert not re.search("rgb|CV (both|source|target|0)", section)


# ------------------------------------------------------------------------------------------------------------- values


def test_neighbours_are_those_of_the_largest_cosine(folder):
    for of in drawn(folder).samples:
        found = neighbours(of, "label")
        assert found.space == "rgb"
        source, target = (
            [(c, f.astype(float)) for c, f in zip(half.clips, half.f["rgb"], strict=True) if f.any()]
            for half in (of.source, of.target)
        )
        assert found.pool == tuple(c for c, _ in source)
        assert found.queries == tuple(c for c, _ in target)
        right = 0
        for n, (query, f_t) in enumerate(target):
            cosines = [f_t @ f / np.sqrt((f_t @ f_t) * (f @ f)) for _, f in source]
            order = found.nearest[n].tolist()
            assert [cosines[k] for k in order] == pytest.approx(sorted(cosines, reverse=True)[:NEAREST])
            assert len(set(order)) == NEAREST
            same = [found.pool[k].labels == query.labels for k in order]
            assert found.right(n) == same
            right += same[0]
        assert found.share == pytest.approx(100 * right / len(target))


def test_clips_whose_features_are_zero_have_no_neighbours(folder):
    of = drawn(folder).samples[0]
    dead = replace(of.target, f={m: f * (np.arange(6) > 1)[:, None] for m, f in of.target.f.items()})
    assert of.target.clips[0] not in neighbours(replace(of, target=dead), "label").queries
    none = replace(of.target, f={m: 0 * f for m, f in of.target.f.items()})
    d = replace(drawn(folder), samples=(replace(of, target=none),))
    assert "No neighbours of source-only: the rgb features of all target clips are zero; the flow" in gallery(d)


def test_neighbours_are_of_the_first_space_that_both_domains_have_and_reasons_name_what_is_missing(folder):
    of = drawn(folder).samples[0]

    def lacking(*modalities):
        present = of.target.present | {m: np.zeros(6, bool) for m in modalities}
        return replace(of, target=replace(of.target, present=present))

    found = neighbours(lacking("rgb"), "label")
    assert (found.space, len(found.queries)) == ("flow", 6)
    d = replace(drawn(folder), samples=(lacking("rgb"),))
    assert "(flow features)" in gallery(d)
    assert "No clip has both" not in norms.norm_pairs(replace(d, samples=(lacking("rgb"), of)))
    none = replace(lacking("rgb", "flow"), source=replace(of.source, f={m: 0 * f for m, f in of.source.f.items()}))
    reasons = gallery(replace(d, samples=(none,)))
    assert "the rgb features of all source clips are zero" in reasons
    assert "no target clip has flow" in reasons
    nobody = {m: np.zeros(6, bool) for m in of.source.present}
    halves = {side: replace(half, present=nobody) for side, half in of.halves.items()}
    assert "No clip has both rgb and flow" in norms.norm_pairs(replace(d, samples=(replace(of, **halves),)))


def test_class_norms_are_the_means_of_the_clips_norms(folder):
    of = drawn(folder).samples[1]
    means = mean_norms(of, "label", 0)
    assert sorted(means) == sorted(CLASSES)
    for side, half in of.halves.items():
        for name in CLASSES:
            for m in ("rgb", "flow"):
                own = [
                    np.sqrt((f * f).sum())
                    for f, c in zip(half.f[m], half.clips, strict=True)
                    if c.labels["label"] == name
                ]
                assert means[name][side][m] == pytest.approx(sum(own) / len(own), rel=1e-5)


def test_a_clip_without_the_modality_does_not_count(folder):
    of = drawn(folder).samples[0]
    lacking = replace(of.target, present=of.target.present | {"rgb": np.array([False] + [True] * 5)})
    means = mean_norms(replace(of, target=lacking), "label", 0)
    name = of.target.clips[0].labels["label"]
    own = [n for n, c in zip(of.target.norms["rgb"][:, 0], of.target.clips, strict=True) if c.labels["label"] == name]
    assert means[name]["target"]["rgb"] == pytest.approx(np.mean(own[1:]))
    assert len(norms.norms_of(lacking, "rgb", "flow", 0)) == 5
    assert len(neighbours(replace(of, target=lacking), "label").queries) == 5
    ((_, group),) = spaces.groups(replace(of, target=lacking))
    assert sorted(len(space.f) for space in group) == [5, 6, 6, 6]


def test_the_most_and_the_least_common_classes_do_not_overlap(folder):
    half = drawn(folder).samples[0].target
    clips = [
        Clip(f"{k}.{n}", "night", "test", "a.mp4", labels={"label": f"c{k:02d}"})
        for k in range(25)
        for n in range(k + 1)
    ]
    most, least = common(replace(half, clips=tuple(clips)), "label")
    assert most == [f"c{k:02d}" for k in range(24, 14, -1)]
    assert least == [f"c{k:02d}" for k in range(9, -1, -1)]


def test_the_table_of_coefficients_has_those_of_each_class(folder, text):
    texts = Page(text).texts
    for of in drawn(folder).samples:
        means, all_cvs = mean_norms(of, "label", 0), []
        for name in CLASSES:
            pairs = [[means[name][side][m] for m in ("rgb", "flow")] for side in ("source", "target")]
            all_cvs.append([abs(rgb - flow) / (rgb + flow) for rgb, flow in pairs])
            assert "{:.3f} / {:.3f}".format(*all_cvs[-1]) in texts
        assert "{:.3f} / {:.3f}".format(*np.mean(all_cvs, 0)) in texts
    assert texts.count("2 / 2") == 3


def test_each_label_kind_has_figures_of_its_part(tmp_path):
    def labels(domain, split, name):
        return {"noun": f"n{name}", "verb": name}

    stores = write_all(tmp_path / "stores", manifest(labels=labels))
    config = run(method=source_only.Params(), steps=2)
    of = sample(toy(config), "source-only", train(config, stores, tmp_path / "runs"), stores)
    f, clips = of.target.f["rgb"], of.target.clips
    for column, kind in enumerate(("noun", "verb")):
        part, name = of.parts[kind], clips[0].labels[kind]
        own = [np.sqrt((row[part] ** 2).sum()) for row, c in zip(f, clips, strict=True) if c.labels[kind] == name]
        assert mean_norms(of, kind, column)[name]["target"]["rgb"] == pytest.approx(np.mean(own), rel=1e-5)
        assert f"the 3 most common classes of {kind}" in norms.class_norms(samples.Drawn("day→night", 0, (of,)))
        a, b = (np.linalg.norm(of.source.f[m][:, part], axis=1) for m in ("rgb", "flow"))
        np.testing.assert_allclose(norms.norms_of(of.source, "rgb", "flow", column), np.stack([a, b], 1), rtol=1e-5)
        found = neighbours(of, kind)
        units = [
            {
                c.clip_id: row / np.linalg.norm(row)
                for c, row in zip(half.clips, half.f["rgb"][:, part], strict=True)
                if row.any()
            }
            for half in (of.source, of.target)
        ]
        for query, nearest in zip(found.queries, found.nearest, strict=True):
            cosines = [units[1][query.clip_id] @ units[0][clip.clip_id] for clip in found.pool]
            assert cosines[nearest[0]] == pytest.approx(max(cosines), abs=1e-6)
    d = samples.Drawn("day→night", 0, (of,))
    pairs, maps, nearest = norms.norm_pairs(d), spaces.maps(d), gallery(d)
    assert re.findall(r"<figcaption>source-only: rgb and flow, (\w+)<", pairs) == ["noun", "verb"]
    assert "noun, verb" in pairs
    assert "noun, verb" in maps
    assert re.findall(r"<figcaption>by (\w+)<", maps) == ["domain", "modality", "noun", "verb"]
    assert {space.f.shape[1] for _, group in spaces.groups(of) for space in group} == {config.net.dim}
    assert "of the same noun or verb" in nearest
    assert re.findall(r"<h3>(\w+)</h3>", nearest) == ["noun", "verb"]
    assert re.findall(r"nearest source clip has their (\w+):", nearest) == ["noun", "verb"]


def marks(image):
    """(shape, colour) of the marks of a modality, by the modality at the end of their tips."""
    found = re.findall(r'<(\w+) class="mark (k\d+)[^>]*><title>(?:[^<]*, )?(\w+)(?:: [^<]*)?</title>', image)
    return {modality: (shape, colour) for shape, colour, modality in found}


def test_modalities_have_the_marks_of_the_legend_where_a_row_lacks_one(folder):
    one = run(feeds={"flow": Feed("hof")}, row="flow only"), run(feeds={"rgb": Feed("hog")}, row="rgb only")
    experiment = toy(*one, run())
    paths = [train(config, folder / "stores", folder / "runs") for config in experiment.runs]
    of = [sample(experiment, c.row, path, folder / "stores") for c, path in zip(experiment.runs, paths, strict=True)]
    results = [row for path in paths for row in evaluate(path, folder / "stores", "toy")]
    by_class = norms.class_norms(samples.Drawn("day→night", 0, tuple(of)))
    for page in (by_class, report(folder, experiment, results)):
        legend, *panels = re.findall(r"<svg.*?</svg>", page[page.index("Legend of the norm plots") - 200 :], re.S)
        expected = marks(legend)
        assert sorted(expected) == ["flow", "rgb"]
        assert len(set(expected.values())) == 2
        found = [marks(panel) for panel in panels if "ean feature norms" in panel]
        assert 1 in map(len, found)
        assert all(panel.items() <= expected.items() for panel in found)
    alone = plots.norms([plots.Norms("m", {"rgb": 1.0}, {"rgb": 2.0}, "")], ["rgb", "flow"], "alt")
    assert marks(alone) == {"rgb": expected["rgb"]}


def test_density_counts_the_clips_nearby():
    xy = np.random.default_rng(0).normal(size=(30, 2))
    naive = [sum(np.hypot(*(a - b)) <= 0.5 for b in xy) - 1 for a in xy]
    assert near(xy, 0.5).tolist() == naive


def test_the_densest_clips_are_full_and_each_clip_is_at_its_norms():
    a = np.array([[1.0, 10.0]] * 5 + [[10.0, 1.0]])
    image = norms.densities({"source": a}, ("x", "y"), (1.0, 100.0), "alt")
    dots = re.findall(r'<circle class="mark k0 dot d(\d)" cx="([\d.]+)" cy="([\d.]+)"', image)
    field = re.search(r'class="field" x="([\d.]+)" y="([\d.]+)"', image).groups()
    left, top = map(float, field)
    half = norms.SIZE / 2  # 10 is halfway between 1 and 100
    assert {(float(x) - left, float(y) - top) for _, x, y in dots} == {(0.0, half), (half, 2 * half)}
    assert [level for level, _, _ in dots] == ["4"] * 5 + ["0"]


def test_norms_of_zero_are_left_out_and_all_zero_is_said(folder):
    d = drawn(folder)
    zero = [
        replace(of, source=replace(of.source, norms={m: 0 * n for m, n in of.source.norms.items()})) for of in d.samples
    ]
    assert "(0)" in norms.norm_pairs(replace(d, samples=tuple(zero)))
    dead = [replace(of, target=replace(of.target, norms=of.source.norms)) for of in zero]
    page = norms.norm_pairs(replace(d, samples=tuple(dead)))
    assert "All norms of rgb and flow are zero" in page
    assert "nan" not in page + norms.class_norms(replace(d, samples=tuple(dead)))


def test_the_four_spaces_are_on_one_map_with_every_clip(folder):
    d = drawn(folder)
    ((title, group),) = spaces.groups(d.samples[0])
    assert title == ""
    assert {(space.side, space.modality) for space in group} == {
        (s, m) for s in ("source", "target") for m in ("rgb", "flow")
    }
    html = spaces.maps(d)
    panels = re.findall(r"<figcaption>(by [^<]*)</figcaption>(<svg.*?</svg>)", html)
    assert [title for title, _ in panels] == 2 * ["by domain", "by modality", "by class"]
    assert {image.count(" dot") for _, image in panels} == {24}
    for first, second in combinations([image for _, image in panels[:3]], 2):
        assert len(first) > 0
        assert sorted(places(first)) == sorted(places(second))
    assert "Labels are used for colour only" in html
    assert "Perplexity: 7.67 for 24 points; seed 0" in html


def places(image):
    """The middles of all dots, to a pixel."""
    found = [tuple(map(float, xy)) for xy in re.findall(r'dot" cx="([\d.]+)" cy="([\d.]+)"', image)]
    for corners in re.findall(r'dot" points="([^"]*)"', image):
        xy = np.array([[float(v) for v in corner.split(",")] for corner in corners.split()])
        found.append(tuple(((xy.min(0) + xy.max(0)) / 2).tolist()))
    return [(round(x / 2), round(y / 2)) for x, y in found]


def test_modalities_of_other_sizes_have_maps_of_their_own(folder):
    of = drawn(folder).samples[0]
    halves = (replace(half, f=half.f | {"flow": half.f["flow"][:, :5]}) for half in (of.source, of.target))
    source, target = halves
    assert [len(group) for _, group in spaces.groups(replace(of, source=source, target=target))] == [2, 2]


def test_features_after_a_projection_head_have_a_map_of_their_own(folder):
    """XMC's h(F), of which its Figure 5 is, next to F (Figure 7)."""
    config = run(method=xmc.Params(projection=5), target="night", row="XMC")
    train(config, folder / "stores", folder / "runs")
    both = toy(run(), config)
    d = drawn(folder, both)
    before, after = d.samples
    method = Run.open(folder / "runs" / config.id).method()
    for half in (after.source, after.target):
        for m, f_NP in half.projected.items():
            with torch.no_grad():
                np.testing.assert_allclose(f_NP, method.h(torch.from_numpy(half.f[m])), rtol=1e-4, atol=1e-6)
    assert before.source.projected == {}
    (_, plain), (title, projected) = spaces.groups(after)
    assert title == "after h, "
    assert [space.f.shape[1] for space in projected] == [5] * len(plain) == [5] * 4
    titles = ["by domain", "by modality", "by class"]
    html = spaces.maps(d)
    found = re.findall(r"<figcaption>([^<]*by [^<]*)</figcaption>", html)
    assert found == [*titles, *titles, *(f"after h, {title}" for title in titles)]
    assert "after the projection head h" in html
    assert "projection head" not in spaces.maps(drawn(folder))


def test_equal_features_have_a_reason_in_place_of_a_map(folder):
    d = drawn(folder)
    flat = tuple(
        replace(
            of, **{side: replace(half, f={m: 0 * f for m, f in half.f.items()}) for side, half in of.halves.items()}
        )
        for of in d.samples
    )
    assert "No map of source-only: all 24 rows are equal" in spaces.maps(replace(d, samples=flat))


def test_most_classes_are_named_with_the_number_of_all(folder, monkeypatch):
    monkeypatch.setattr(spaces, "CLASSES", 2)
    assert "by class, the 2 most frequent of 3" in spaces.maps(drawn(folder))


# --------------------------------------------------------------------------------------------------------------- page


def test_the_page_has_all_sections_and_names_the_run(text):
    page = Page(text)
    assert all(section in page.texts for section in SECTIONS)
    assert "day→night, the runs of seed 0, 6 test clips of day and 6 test clips of night" in text
    assert "nan" not in "".join(re.findall(r"<svg.*?</svg>", text))
    assert all(attributes.get("aria-label") for tag, attributes in page.tags if tag == "svg")


def test_pictures_are_shown_where_there_are_any(tmp_path):
    clips = manifest()
    for k in range(len(clips)):
        cv2.imwrite(str(tmp_path / f"{k}.png"), np.full((30, 40, 3), 90, np.uint8))
    named = tuple(replace(clip, source=f"{k}.png") for k, clip in enumerate(clips))
    stores = write_all(tmp_path / "stores", replace(clips, clips=named, root=tmp_path))
    train(run(), stores, tmp_path / "runs")
    text = report(tmp_path, toy(run()))
    after = text[text.index("<h2>Nearest source clips") :]
    assert after.count('alt="A picture of clip') == 5 * (1 + NEAREST)
    assert "Missing pictures" not in after


def test_without_pictures_names_are_shown_with_right_and_wrong(folder, text):
    after = text[text.index("<h2>Nearest source clips") :]
    assert "Missing pictures" in after
    assert after.count('<figure class="card">') >= 5
    found = [neighbours(of, "label") for of in drawn(folder).samples]
    marks = after.count("✓") + after.count("✗") - 2  # without those of the explanation
    assert marks == 5 * NEAREST * len(found)


def test_without_runs_or_stores_each_section_has_the_reason(tmp_path, folder):
    page = " ".join(Page(report(tmp_path)).texts)
    assert page.count("No features of source-only on day→night: no finished run") == len(SECTIONS)
    shutil.copytree(folder / "runs", tmp_path / "runs")
    page = " ".join(Page(report(tmp_path)).texts)
    assert all(section in page for section in SECTIONS)
    assert "No features of MMD on day→night" in page


def test_features_that_are_not_finite_have_a_reason(folder, monkeypatch):
    monkeypatch.setattr(samples, "clip_features", lambda method, rows: {"rgb": torch.full((len(rows), 8), torch.inf)})
    assert drawn(folder).samples == ()
    assert "not finite" in drawn(folder).reasons[0]


def test_one_missing_run_leaves_the_other_row(folder, tmp_path):
    shutil.copytree(folder / "stores", tmp_path / "stores")
    kept = two().runs[0].id
    shutil.copytree(folder / "runs" / kept, tmp_path / "runs" / kept)
    page = " ".join(Page(report(tmp_path)).texts)
    assert "Perplexity: 7.67" in page
    assert page.count("No features of MMD on day→night: no finished run") == len(SECTIONS)


def test_hostile_names_stay_words_in_figures(tmp_path):
    def label(domain, split, name):
        return {"label": name + HOSTILE}

    stores = write_all(tmp_path / "stores", manifest(labels=label))
    config = run(row=f"row{HOSTILE}")
    train(config, stores, tmp_path / "runs")
    text = report(tmp_path, toy(config))
    Page(text)
    assert text.count("<script") == 1  # the one of the page
    assert text.count("&lt;script&gt;") > 10


# --------------------------------------------------------------------------------------------------------- sensitivity


def swept(numbers=(1.0, 1.5), default=1.25, prefix="XMC final, ", name="λ", seeds=(0, 1), extra=(), **changes):
    made = [("source-only", source_only.Params(), None)]
    made += [("XMC final", xmc.Params(lambda_=default), "night")] if default is not None else []
    made += [(f"{prefix}{name} = {n:g}", xmc.Params(lambda_=n), "night") for n in numbers]
    made += [(row, params, "night") for row, params in extra]
    runs = [run(row=row, method=params, target=target, seed=seed) for row, params, target in made for seed in seeds]
    return Experiment("swept", "Swept.", tuple(runs), **changes)


def curves(experiment, values):
    """(sweeps, section) with the values of each row, one per seed."""
    results = [result(c, values[c.row][c.seed] / 100, experiment="swept") for c in experiment.runs if c.row in values]
    table = build(results, experiment)
    return sweeps(experiment, table), "".join(sensitivity.sensitivity(experiment, table))


VALUES = {
    "source-only": (40, 41),
    "XMC final": (50, 54),
    "XMC final, λ = 1": (48, 50),
    "XMC final, λ = 1.5": (47, 53),
}


def test_a_curve_is_at_the_means_and_deviations_of_the_table():
    (sweep,), html = curves(swept(), VALUES)
    assert (sweep.prefix, sweep.name, sweep.default) == ("XMC final", "λ", 1.25)
    assert {n: line.method for n, line in sweep.lines.items()} == {
        1.0: "XMC final, λ = 1",
        1.25: "XMC final",
        1.5: "XMC final, λ = 1.5",
    }
    circles = [
        (float(x), float(y)) for x, y in re.findall(r'<circle class="mark k0" cx="([\d.]+)" cy="([\d.]+)"', html)
    ]
    bars = [
        (float(a), float(b))
        for a, b in re.findall(r'class="error" x1="[\d.]+" y1="([\d.]+)" x2="[\d.]+" y2="([\d.]+)"', html)
    ]
    means, stds = (49.0, 52.0, 50.0), [np.std(v, ddof=1) for v in ((48, 50), (50, 54), (47, 53))]
    scale = (circles[0][1] - circles[1][1]) / (means[1] - means[0])
    assert circles[2][1] - circles[1][1] == pytest.approx(scale * 2, abs=0.2)
    assert circles[1][0] - circles[0][0] == pytest.approx(circles[2][0] - circles[1][0], abs=0.2)  # 1, 1.25, 1.5
    for (a, b), std in zip(bars, stds, strict=True):
        assert abs(a - b) == pytest.approx(2 * std * scale, abs=0.3)
    default = float(re.search(r'class="default" x1="([\d.]+)"', html)[1])
    assert default == pytest.approx(circles[1][0], abs=0.1)


def test_published_numbers_are_a_second_mark_also_where_no_run_is():
    published = {
        "XMC final": {"day→night": 51.0},
        "XMC final, λ = 1": {"day→night": 50.1},
        "XMC final, λ = 2": {"day→night": 49.0},
    }
    (sweep,), html = curves(swept(published=published, quoted=("XMC final, λ = 2",)), VALUES)
    assert list(sweep.lines) == [1.0, 1.25, 1.5, 2.0]
    assert re.findall(r"<title>([\d.]+): published ([\d.]+)</title>", html) == [
        ("1", "50.1"),
        ("1.25", "51.0"),
        ("2", "49.0"),
    ]
    assert html.count("<circle") == 3


def test_names_without_a_prefix_and_settings_as_names_are_sweeps():
    (sweep,), _ = curves(swept(prefix=""), {})
    assert (sweep.prefix, sweep.default) == ("", 1.25)
    extra = [
        ("XMC final, method.T=0.5", xmc.Params(lambda_=1.25, T=0.5)),
        ("XMC final, method.T=0.6", xmc.Params(lambda_=1.25, T=0.6)),
    ]
    of = {sweep.name: sweep.default for sweep in curves(swept(extra=extra), {})[0]}
    assert of == {"λ": 1.25, "method.T": 0.8}


@pytest.mark.parametrize(
    "changes",
    [
        {"default": None},
        {"extra": [("XMC again", xmc.Params(lambda_=2.0))]},  # two rows could be the default
    ],
)
def test_a_default_that_is_not_clear_is_left_out(changes):
    (sweep,), html = curves(swept(**changes), {k: v for k, v in VALUES.items() if k != "XMC final"})
    assert sweep.default is None
    assert list(sweep.lines) == [1.0, 1.5]
    assert 'class="default"' not in html


def test_a_row_that_differs_in_something_else_is_no_default():
    other = [("other", xmc.Params(lambda_=2.0, T=0.5)), ("MM-SADA", mm_sada.Params())]
    (sweep,), _ = curves(swept(default=None, extra=other), {})
    assert sweep.default is None


def test_one_row_with_a_number_is_no_sweep_and_there_is_no_section():
    assert curves(swept(numbers=(1.0,)), VALUES)[1] == ""
    assert curves(two(), {})[1] == ""


def test_rows_without_results_have_no_point_and_no_error():
    (sweep,), html = curves(swept(), {"XMC final, λ = 1": (48, 50)})
    assert html.count("<circle") == 1
    assert curves(swept(), {})[1] == ""
    assert len(sweep.lines) == 3


def test_sweeps_of_xmc_have_its_defaults():
    experiment = load("xmc_epic8_ablations")
    found = {sweep.name: (list(sweep.lines), sweep.default) for sweep in sweeps(experiment, build([], experiment))}
    assert found == {"λ": ([1.0, 1.25, 1.5], 1.25), "T": ([0.6, 0.8, 0.9], 0.8)}


@pytest.mark.parametrize("plain", [0, 300])
def test_numbers_that_configurations_do_not_write_are_in_a_sweep(plain):
    """0 is the value of `every` in runs that are older than it."""
    start = run()

    def row(every, name):
        method = hcl.Params(every=every)
        return run(method=method, source=(), target="night", init_from=start.id, epoch="target", row=name)

    others = [row(n, f"HCL, every = {n}") for n in (0, 300, 600) if n != plain]
    experiment = toy(start, row(plain, "HCL"), *others)
    (sweep,) = sweeps(experiment, build([], experiment))
    assert (sweep.prefix, sweep.name, list(sweep.lines)) == ("HCL", "every", [0, 300, 600])
    assert (sweep.default, sweep.lines[plain].method) == (plain, "HCL")


def test_wide_numbers_are_on_a_logarithmic_axis():
    assert across([1, 2, 3]) == {1: 0.0, 2: 0.5, 3: 1.0}
    assert across([0.01, 0.1, 1]) == pytest.approx({0.01: 0.0, 0.1: 0.5, 1: 1.0})
    assert across([0, 50, 100]) == {0: 0.0, 50: 0.5, 100: 1.0}
    assert across([2, 2]) == {2: 0.0}


def test_hostile_names_of_sweeps_stay_words():
    experiment = swept(prefix=f"{HOSTILE}, ", name=f"λ{HOSTILE}")
    values = dict.fromkeys(experiment.rows, (50, 52))
    html = curves(experiment, values)[1]
    assert "<script" not in html
    assert "&lt;script&gt;" in html
    Page(html)
