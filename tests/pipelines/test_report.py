import base64
import re
from dataclasses import replace
from hashlib import sha256
from html import escape
from html.parser import HTMLParser

import cv2
import numpy as np
import pytest

from featcache import Manifest
from featcache.manifest import Clip
from featcache.store import StoreWriter
from heads.batch import Spec
from pipelines.report.page import SCRIPT
from pipelines.report.plots import Bar, Norms, bars, confusion, norms
from pipelines.report.write import write
from pipelines.training import runs as run_folders
from tests.helpers.result_rows import experiment, norm_rows, result, rows

HOSTILE = "<script>alert('x')</script>"
CLASSES = ("cut", "stir", HOSTILE)


class Page(HTMLParser):
    """Every tag with its attributes, every text; and that all elements are closed in order."""

    VOID = ("meta", "img", "br")

    def __init__(self, text):
        super().__init__()
        self.tags, self.texts, self.open = [], [], []
        self.feed(text)
        assert not self.open, f"never closed: {self.open}"

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.texts.append(data)


@pytest.fixture
def folders(tmp_path):
    """A stores folder with pictures and a store that has a failure; a runs folder with outputs of every run."""
    clips = []
    for domain, grey in (("day", 200), ("night", 40)):
        for k, label in enumerate(CLASSES):
            cv2.imwrite(str(tmp_path / f"{domain}{k}.png"), np.full((30, 400, 3), grey, np.uint8))
            clips.append(Clip(f"{domain}{k}", domain, "test", f"{domain}{k}.png", labels={"label": label}))
    manifest = Manifest("toy", tuple(clips), tmp_path)
    manifest.write(tmp_path / "stores" / "toy" / "manifest.csv")
    recipe = {"extractor": "hog", "modality": "rgb", "weights_sha256": "untrained:7", "plan": "segments:1"}
    with StoreWriter.open(
        tmp_path / "stores" / "toy" / "hog.zarr",
        manifest,
        {**recipe, "dtype": "float32"},
        row_shape=(4,),
        windows=1,
        facts={},
    ) as writer:
        writer.failed(0, f"broken {HOSTILE}")
        for row in range(1, len(manifest)):
            writer.done(row, np.ones((1, 4), np.float32), np.zeros(1), np.ones(1))
    keep_outputs(tmp_path, experiment())
    return tmp_path


def keep_outputs(folder, of):
    """Runs whose outputs on the first domain's three clips are the classes 0, 1, 1."""
    sha256 = Manifest.read(folder / "stores" / "toy" / "manifest.csv").sha256
    spec = Spec(shapes={"rgb": (4,)}, windows={"rgb": 1}, classes={"label": 3}, rows={"source": 3}, domains=("day",))
    for run in of.runs:
        scores = np.eye(3, dtype=np.float32)[[0, 1, 1]]
        points = [{"step": step + 1} for step in range(run.keep)]
        facts = {"read": {"manifest": sha256}, "points": points, "note": "", "recipes": {}}
        facts |= {"untrained": [], "collapsed": []}
        log = [{"L_C": 1.0}] * run.steps
        outputs = {"label": np.stack([scores] * run.keep), "rows": np.arange(3)}
        run_folders.write(folder / "runs" / run.id, run, spec, facts, log=log, weights={}, outputs=outputs)


def report(folder, of=None, results=None, name="out/report.html"):
    of = of or experiment()
    results = [*rows(of), *norm_rows(of)] if results is None else results
    write(of, results, folder / "runs", folder / "stores", folder / name, date="2001-02-03")
    return (folder / name).read_text()


def test_the_page_is_well_formed_and_loads_nothing(folders):
    text = report(folders)
    page = Page(text)
    assert not {tag for tag, _ in page.tags} & {"link", "iframe", "object", "embed", "base"}
    assert [attributes for tag, attributes in page.tags if tag == "script"] == [{}]
    assert len(SCRIPT) < 6_000
    digest = base64.b64encode(sha256(re.search(r"<script>(.*?)</script>", text, re.S)[1].encode()).digest()).decode()
    assert f"default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'sha256-{digest}'" in text
    for tag, attributes in page.tags:
        for name, value in attributes.items():
            assert not name.startswith("on"), (tag, name)
            if name in ("src", "href", "xlink:href", "data", "action", "srcset"):
                assert value.startswith(("data:image/jpeg;base64,", "#")), (tag, value[:60])
    assert "@import" not in text
    assert not re.search(r"url\(|https?://", text)


def test_it_shows_every_row_every_shift_and_the_same_numbers_as_the_table(folders):
    texts = Page(report(folders)).texts
    for expected in ("source-only", "RNA (UDA)", "supervised-target †", "day→night", "night→day", "60.0 ± 10.0"):
        assert expected in texts


def test_bold_is_the_best_row_that_saw_no_target_labels(folders):
    best = re.findall(r'<td class="best">([^<]*)</td>', report(folders))
    assert best == ["20.0 ± 0.0", "60.0 ± 10.0", "20.0 ± 10.0", "40.0 ± 10.0"]  # source-only shares night→day


def test_hostile_words_stay_words(folders):
    toy = experiment(name=f"toy{HOSTILE}", doc=f"About {HOSTILE} & more")
    results = [*rows(toy), *norm_rows(toy)]
    hostile = replace(toy, runs=tuple(replace(run, row=f"{run.row}{HOSTILE}") for run in toy.runs))
    text = report(folders, hostile, results)
    assert text.count("<script") == 1  # the one of the page
    assert f"About {HOSTILE} & more" in Page(text).texts
    assert f"RNA (UDA){HOSTILE}" in Page(text).texts


def test_a_hostile_domain_stays_a_word_above_its_confusion_matrices(folders):
    runs = tuple(replace(run, source=tuple(d + HOSTILE for d in run.source)) for run in experiment().runs)
    hostile = replace(experiment(), runs=runs[:6])  # source-only, on both shifts
    keep_outputs(folders, hostile)
    text = report(folders, hostile, [result(run, 0.5) for run in hostile.runs])
    assert text.count("<script") == 1  # the one of the page
    assert f"<h3>{escape(f'day{HOSTILE}→night')}</h3>" in text


def test_a_confusion_matrix_of_one_of_several_points_says_so(folders):
    runs = tuple(replace(run, select="mean", eval_every=1, keep=2) for run in experiment().runs)
    mean = replace(experiment(), runs=runs)
    keep_outputs(folders, mean)
    expected = "source-only: 50.0 ± 10.0 %; matrix: the last of the kept outputs"
    assert expected in Page(report(folders, mean)).texts
    assert "kept outputs" not in report(folders)


def test_a_confusion_matrix_without_all_classes_says_so(folders, monkeypatch):
    monkeypatch.setattr("pipelines.report.plots.MOST_CLASSES", 2)
    assert "source-only: 50.0 ± 10.0 %; 2 most frequent of 3 classes" in Page(report(folders)).texts
    monkeypatch.setattr("pipelines.report.plots.MOST_CLASSES", 3)
    assert "most frequent of" not in report(folders)


def test_every_picture_has_a_description(folders):
    page = Page(report(folders))
    assert all(attributes.get("alt") for tag, attributes in page.tags if tag == "img")
    assert all(attributes.get("aria-label") for tag, attributes in page.tags if tag == "svg")


def test_frames_of_both_domains_are_inside_and_small(folders):
    page = Page("<section><h2>" + report(folders).partition("<h2>Pictures of the domains")[2].partition("</main>")[0])
    pictures = [attributes for tag, attributes in page.tags if tag == "img"]
    assert [picture["alt"] for picture in pictures[:2]] == [
        "A picture of " + HOSTILE + " in day",
        "A picture of cut in day",
    ]
    assert len(pictures) == 6
    decoded = [cv2.imdecode(np.frombuffer(base64.b64decode(p["src"].split(",")[1]), np.uint8), 1) for p in pictures]
    assert [round(float(picture.mean()), -1) for picture in decoded] == [200] * 3 + [40] * 3
    assert {picture.shape for picture in decoded} == {(16, 216, 3)}


def test_it_is_the_same_for_the_same_input(folders):
    assert report(folders) == report(folders, name="again.html")


def test_without_media_runs_and_stores_it_says_so(tmp_path):
    text = report(tmp_path)
    page = " ".join(Page(text).texts)
    assert "No pictures: no manifest" in page
    assert "No confusion matrix of source-only on day→night: no finished run at" in page
    assert "Store toy/hog: no feature store at" in page
    assert "60.0 ± 10.0" in page


def test_a_lost_video_is_said_and_the_rest_shown(folders):
    (folders / "day0.png").unlink()
    page = Page("<section><h2>" + report(folders).partition("<h2>Pictures of the domains")[2].partition("</main>")[0])
    assert sum(tag == "img" for tag, _ in page.tags) == 5
    assert "Missing pictures: 1 of 3." in " ".join(page.texts)


def test_without_results_there_is_a_page_that_says_what_is_missing(folders):
    text = report(folders, results=[])
    assert '<p class="alarm" role="note">MISSING: source-only' in text


def test_untrained_weights_are_red_in_the_table_and_at_the_store(folders):
    untrained = [result(run, 0.5, untrained=("rgb",)) for run in experiment().runs]
    text = report(folders, results=untrained)
    assert '<p class="alarm" role="note">UNTRAINED WEIGHTS in rgb' in text
    assert '<td class="red">UNTRAINED (seed 7)</td>' in text


def test_provenance_counts_failures_and_prints_recipes(folders):
    page = Page(report(folders))
    assert "5 of 6" in page.texts
    assert any('"plan": "segments:1"' in text for text in page.texts)
    assert f"day0: broken {HOSTILE}" in page.texts


def test_no_gain_is_called_no_gain(folders):
    worse = [result(run, 0.3 if run.row.startswith("RNA") else 0.5) for run in experiment().runs]
    text = "-20.0 ± 0.0 points: not better than source-only; 95 % interval [-20.0, -20.0]"
    assert text in Page(report(folders, results=worse)).texts


def test_a_gain_that_may_be_chance_is_called_not_distinguishable(folders):
    text = "+5.0 ± 5.0 points: not distinguishable from source-only; 95 % interval [-7.4, +17.4]"
    assert text in Page(report(folders)).texts


def test_only_a_first_row_without_a_target_is_called_no_adaptation(folders):
    for row, expected in {"source-only": True, "RNA (UDA)": False, "supervised-target": False}.items():
        runs = sorted(experiment().runs, key=lambda run: run.row != row)
        texts = Page(report(folders, replace(experiment(), runs=tuple(runs)))).texts
        assert ("mean over shifts, no adaptation" in texts) is expected
        assert f"vs {row}" in texts


def test_the_date_is_the_given_one_or_none(folders):
    assert "2001-02-03" in report(folders)
    write(experiment(), [], folders / "runs", folders / "stores", folders / "undated.html")
    assert "2001" not in (folders / "undated.html").read_text()


# ------------------------------------------------------------------------------------------------------------- plots


def test_confusion_shares_are_per_cent_of_the_true_class():
    image = confusion(np.array([0, 0, 0, 0, 1]), np.array([0, 1, 1, 1, 1]), ("a", "b"), "alt")
    shares = re.findall(r'<text class="cell[^"]*"[^>]*>(\d+)</text>', image)
    assert shares == ["25", "75", "100"]
    opacities = re.findall(r'fill-opacity="([\d.]+)"', image)
    assert opacities == ["0.25", "0.75", "1.00"]


def test_confusion_of_many_classes_keeps_the_most_frequent_ones():
    truth = np.repeat(np.arange(40), np.arange(40) + 1)  # class k has k + 1 rows
    image = confusion(truth, truth, [f"class {k}" for k in range(40)], "alt")
    assert "class 10<" in image
    assert "class 9<" not in image
    assert image.count('class="heat"') == 30


def test_bars_end_at_their_means_and_error_bars_at_one_deviation():
    image = bars([Bar("m", (40.0, 60.0), "50.0 ± 14.1", "base")], "alt")
    width = float(re.search(r'class="bar base"[^>]*width="([\d.]+)"', image).group(1))
    low, high = map(float, re.search(r'class="error" x1="([\d.]+)"[^>]*x2="([\d.]+)"', image).groups())
    full = float(re.findall(r'class="grid" x1="([\d.]+)"', image)[-1]) - 2
    assert width == pytest.approx(full / 2, abs=0.1)
    assert high - low == pytest.approx(2 * 0.1414 * full, abs=0.3)


def test_equal_ratios_of_norms_are_equal_distances():
    image = norms([Norms("m", {"a": 2.0, "b": 4.0}, {"a": 4.0, "b": 8.0}, "CV")], "ab", "alt")
    low, high = zip(*re.findall(r'class="range"[^>]*y1="([\d.]+)"[^>]*y2="([\d.]+)"', image), strict=True)
    source, target = (float(a) - float(b) for a, b in zip(low, high, strict=True))
    assert source == pytest.approx(target, abs=0.2)


@pytest.mark.parametrize("value", [1e-4, 1.0, 1e5])
def test_a_norm_panel_has_ticks_at_every_scale(value):
    image = norms([Norms("m", {"a": value}, {"a": value}, "")], "a", "alt")
    assert image.count('class="grid"') >= 2


def test_norms_that_are_all_zero_leave_a_page(folders):
    dead = [result(run, 0.0, metric) for run in experiment().runs for metric in ("norm/source/rgb", "norm/target/rgb")]
    assert "Feature norms per modality" in report(folders, results=[*rows(experiment()), *dead])


def test_a_dead_modality_does_not_break_the_logarithm():
    assert "NaN" not in norms([Norms("m", {"a": 0.0, "b": 1.0}, {"a": 0.0, "b": 1.0}, "")], "ab", "alt")
