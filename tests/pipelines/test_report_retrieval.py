"""What a report shows of retrieval: queries with what they find, and embeddings of both domains."""

import re
from html import unescape

import cv2
import numpy as np
import pytest

from pipelines.data.stores import open_manifest
from pipelines.evaluation.answers import manifests
from pipelines.evaluation.evaluate import evaluate, ranked
from pipelines.experiments import Experiment
from pipelines.report.plots import SCATTER, Points, scatter
from pipelines.report.retrieval import answers
from pipelines.report.write import write
from pipelines.training.runs import Run
from pipelines.training.train import train
from tests.helpers.words import retrieval_run, retrieval_stores
from tests.pipelines.test_report import HOSTILE, Page


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Stores of `films`, a run on them, its results, and no media."""
    folder = tmp_path_factory.mktemp("gallery")
    retrieval_stores(folder / "stores", copies=2)
    train(retrieval_run(), folder / "stores", folder / "runs")
    return folder


@pytest.fixture(scope="module")
def results(folder):
    return evaluate(folder / "runs" / retrieval_run().id, folder / "stores")


def page(folder, results, name="report.html", **changes):
    experiment = Experiment("films", "Films.", (retrieval_run(**changes),))
    write(experiment, results, folder / "runs", folder / "stores", folder / name)
    return (folder / name).read_text()


def test_answers_are_those_of_the_embeddings(folder):
    run = Run.open(folder / "runs" / retrieval_run().id)
    kept = run.outputs
    xi = kept["text"][-1] @ kept["visual"][-1].T
    for answer in answers(run):
        k = kept["captions"].tolist().index(answer.caption)
        own = kept["clip"][k]
        assert answer.own == kept["rows"][own]
        assert answer.rank == (xi[k] > xi[k, own]).sum() + ((xi[k] == xi[k, own]).sum() - 1) / 2
        places = [kept["rows"].tolist().index(row) for row in answer.rows]
        np.testing.assert_allclose(xi[k, places], np.sort(xi[k])[::-1][:5], atol=1e-6)


@pytest.mark.parametrize(("count", "right"), [(8, 4), (4, 2)])
def test_half_of_the_queries_are_right_where_half_can_be(folder, count, right):
    run = Run.open(folder / "runs" / retrieval_run().id)
    text, visual = np.zeros((24, 16), np.float32), np.eye(12, 16, dtype=np.float32)
    for k in range(24):  # the captions of even clips mean their clip, the others the next one
        text[k, k // 2 + (k // 2) % 2] = 1 if k // 2 < 11 else 0
    run.outputs["text"], run.outputs["visual"] = text[None], visual[None]
    found = [answer.rank == 0 for answer in answers(run, count=count)]
    assert found == [True] * right + [False] * (count - right)
    run.outputs["text"] = visual[None, np.arange(24) // 2]
    assert [answer.rank for answer in answers(run, count=count)] == [0] * count
    run.outputs["text"] = np.zeros_like(text)[None]
    assert [answer.rank for answer in answers(run, count=count)] == [5.5] * count


def test_the_choice_of_queries_is_seeded(folder):
    run = Run.open(folder / "runs" / retrieval_run().id)
    assert answers(run, seed=1) == answers(run, seed=1)
    assert len({tuple(answer.caption for answer in answers(run, seed=seed)) for seed in range(4)}) > 1


def test_without_media_the_gallery_is_words(folder, results):
    text = page(folder, results)
    texts = Page(text).texts
    run = Run.open(folder / "runs" / retrieval_run().id)
    captions = open_manifest(folder / "stores", "films_captions")
    queries = [line for line in texts if line.startswith("“")]
    assert [line.split("”")[0][1:] for line in queries] == [captions.clips[a.caption].caption for a in answers(run)]
    said = ["comes first" if a.rank == 0 else f"has rank {a.rank + 1:g}" for a in answers(run)]
    assert all(line.endswith(f": its clip {words} of 12") for line, words in zip(queries, said, strict=True))
    clips = open_manifest(folder / "stores", "films")
    first = {c.of: c.caption for c in reversed(captions.clips)}
    found = [
        f"{k} {'✓' if row == a.own else '✗'} {first[clips.clips[row].clip_id]}"
        for a in answers(run)
        for k, row in enumerate(a.rows, 1)
    ]
    assert [line for line in texts if re.match(r"\d [✓✗]", line)] == found
    assert sum("✓" in line or "✗" in line for line in texts) == 5 * len(queries) + 1  # and the legend
    assert "<img" not in text
    assert any("Missing pictures" in line for line in texts)


def test_without_media_to_be_there_no_advice_is_given(tmp_path):
    run = retrieval_run(steps=2)
    retrieval_stores(tmp_path / "stores", ending="npz")
    for name in ("day", "night"):
        np.savez(tmp_path / "stores" / f"{name}.npz", rows=np.zeros(3))
    results = evaluate(train(run, tmp_path / "stores", tmp_path / "runs"), tmp_path / "stores")
    text = " ".join(Page(page(tmp_path, results, steps=2)).texts)
    assert "No pictures: the sources of the clips are arrays" in text
    assert "re-encode" not in text


def test_marks_say_which_clip_is_the_querys_own(folder, results):
    cards = page(folder, results).split('<figure class="card"><figcaption>“')[1:9]
    run = Run.open(folder / "runs" / retrieval_run().id)
    for card, answer in zip(cards, answers(run), strict=True):
        marks = re.findall(r'<figure class="(right|wrong)">.*?<figcaption>(\d) ([✓✗])', card)
        assert [mark == "✓" for _, _, mark in marks] == [row == answer.own for row in answer.rows]
        assert all((kind == "right") == (mark == "✓") for kind, _, mark in marks)


def test_pictures_are_shown_where_they_are_and_hostile_captions_stay_words(folder, tmp_path):
    run = retrieval_run(steps=2)
    retrieval_stores(tmp_path / "stores", sources=tmp_path, prefix=HOSTILE)
    for name in ("day", "night"):
        cv2.imwrite(str(tmp_path / f"{name}.png"), np.full((30, 40, 3), 90, np.uint8))
    results = evaluate(train(run, tmp_path / "stores", tmp_path / "runs"), tmp_path / "stores")
    out = tmp_path / "report.html"
    write(Experiment("films", "Films.", (run,)), results, tmp_path / "runs", tmp_path / "stores", out)
    text = out.read_text()
    assert text.count("<script") == 1  # the one of the page
    pictures = [attributes for tag, attributes in Page(text).tags if tag == "img"]
    queries = text.partition("<h2>Example queries")[2].partition("</section>")[0]
    assert queries.count("<img ") == 5 * 8
    assert all(p["src"].startswith("data:image/jpeg;base64,") and p["alt"] for p in pictures)


def test_captions_that_changed_since_are_not_shown(folder, results):
    path = folder / "stores" / "films_captions" / "manifest.csv"
    before = path.read_text()
    path.write_text(before.replace("tomato", "potato"))
    try:
        text = page(folder, results, "changed.html")
    finally:
        path.write_text(before)
    assert "manifest &#x27;films_captions&#x27; has changed since" in text
    assert not any(line.startswith("“") for line in Page(text).texts)


def test_it_is_the_same_for_the_same_input_and_every_plot_has_words(folder, results):
    text = page(folder, results)
    assert text == page(folder, results, "again.html")
    alts = [attributes["aria-label"] for tag, attributes in Page(text).tags if tag == "svg"]
    assert any(alt.startswith("t-SNE of clips and captions, day→night: day (source), clips") for alt in alts)


def test_queries_that_are_wrong_have_the_right_answer_the_first_one_and_its_rank(folder, results):
    text = page(folder, results)
    name = retrieval_run().row
    section = text.partition(f"Wrong answers of {name}</h2>")[2].partition("</section>")[0]
    lines = [
        [unescape(re.sub("<[^>]+>", "", cell)) for cell in re.findall("<t[hd][^>]*>(.*?)</t[hd]>", line)]
        for line in re.findall("<tr[^>]*>(.*?)</tr>", section, re.S)
    ]
    names = ["query", "right answer", "answers", "shift", f"first answer, {name}", f"rank, {name}"]
    rows = [tuple(line[lines[0].index(each)] for each in names) for line in lines[1:]]
    run = Run.open(folder / "runs" / retrieval_run().id)
    clips, captions = manifests(run, folder / "stores")
    outputs = run.outputs
    ids = [clips.clips[row].clip_id for row in outputs["rows"]]
    texts = [captions.clips[row].caption for row in outputs["captions"]]
    of_clip = [[texts[k] for k in np.flatnonzero(outputs["clip"] == row)] for row in range(len(ids))]
    found = ranked(run.folder, folder / "stores")
    xi = np.round(outputs["text"][-1] @ outputs["visual"][-1].T, 5)
    xi[np.arange(len(xi)), outputs["clip"]] -= 1e-6  # of equal ones another than the right one
    expected = {"t2v": [], "v2t": []}
    for k in np.flatnonzero(found["t2v"][0] > 0):
        first, rank = ids[xi[k].argmax()], f"{found['t2v'][0][k] + 1:.4g}"
        expected["t2v"].append((texts[k], ids[outputs["clip"][k]], "t2v", "day→night", first, rank))
    for k in np.flatnonzero(found["v2t"][0] > 0):
        truth = of_clip[k][0] + f", … and {len(of_clip[k]) - 1} more" * (len(of_clip[k]) > 1)
        first, rank = texts[xi[:, k].argmax()], f"{found['v2t'][0][k] + 1:.4g}"
        expected["v2t"].append((ids[k], truth, "v2t", "day→night", first, rank))
    for way, answers_of_way in expected.items():
        listed = [row for row in rows if row[2] == way]
        assert sorted(listed) == sorted(answers_of_way) != []
        assert [float(row[5]) for row in listed] == sorted((float(row[5]) for row in listed), reverse=True)
    assert {row[2] for row in rows[:2]} == {"t2v", "v2t"}  # they take turns


def test_a_missing_run_leaves_a_page_that_says_so(folder, results, tmp_path):
    experiment = Experiment("films", "Films.", (retrieval_run(),))
    write(experiment, results, tmp_path, tmp_path, tmp_path / "report.html")
    text = (tmp_path / "report.html").read_text()
    assert "No queries of gated on day→night: no finished run" in text
    assert "No embeddings of gated on day→night: no finished run" in text


def test_a_scatter_plot_keeps_shapes_and_proportions():
    square = np.array([[0.0, 0], [10, 0], [0, 10], [10, 10]])
    image = scatter([Points("a", 0, 0, square), Points("b", 1, 1, square / 2)], "alt")
    dots = [(float(x), float(y)) for x, y in re.findall(r'class="mark k0 dot" cx="([\d.]+)" cy="([\d.]+)"', image)]
    (left, top), (right, _), (_, bottom), _ = dots
    assert right - left == bottom - top > 100
    assert image.count("k1 dot") == 4
    assert image.count("<polygon") == 5  # squares, and one in the legend


def test_a_flat_group_of_points_is_in_the_middle():
    image = scatter([Points("a", 0, 0, np.array([[0.0, 5.0], [10.0, 7.0]]))], "alt")
    dots = [(float(x), float(y)) for x, y in re.findall(r'class="mark k0 dot" cx="([\d.]+)" cy="([\d.]+)"', image)]
    assert np.mean(dots, 0).tolist() == pytest.approx([SCATTER / 2, SCATTER / 2], abs=0.1)


def test_points_that_coincide_are_no_error():
    assert "nan" not in scatter([Points("a", 0, 0, np.ones((3, 2)))], "alt")
