"""Builders of retrieval benchmarks, on small files in the official layouts and, where they are, on the real ones."""

import json
import re
import shutil
import warnings

import pytest
from click.testing import CliRunner

from featcache import Manifest, builders
from featcache.errors import ManifestError
from featcache.joining import captions_of, join
from pipelines.cli import main
from tests.conftest import ROOT

MSVD = "VideoID,Start,End,WorkerID,Source,AnnotationTime,Language,Description"


def write(path, *lines):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(f"{line}\n" for line in lines))


def videos(*splits, captions=2):
    """The JSON of MSR-VTT: video k has the split and captions "k 0", "k 1", ..."""
    return {
        "info": {"year": "2016"},
        "videos": [
            {
                "video_id": f"video{k}",
                "split": split,
                "category": 9,
                "url": "u",
                "start time": 1.5,
                "end time": 9,
                "id": k,
            }
            for k, split in enumerate(splits)
        ],
        "sentences": [
            {"sen_id": k, "video_id": f"video{k}", "caption": f"{k} {c}"}
            for c in range(captions)
            for k in range(len(splits))
        ],
    }


def msrvtt(folder):
    write(folder / "MSRVTT_data.json", json.dumps(videos("train", "validate", "test")))


def msrvtt_1ka(folder):
    msrvtt(folder)
    write(folder / "MSRVTT_JSFUSION_test.csv", "key,vid_key,video_id,sentence", 'ret0,msr2,video2,"a dog, barking"')
    write(folder / "MSRVTT_train.9k.csv", "video_id", "video0", "video1")


def msvd(folder):
    rows = ["a_b_1_9,10,12", "b,0,7", "c,3,4", "z,1,2"]
    write(
        folder / "MSR Video Description Corpus.csv",
        MSVD,
        *(f"{row},1,clean,30,English,Someone runs {row[0]}." for row in rows),
        "b,0,7,2,unverified,9,English,A second one",
        "b,0,7,2,unverified,9,English,",
        "b,0,7,3,clean,9,German,Jemand rennt.",
    )
    for split, name in (("train", "a_b_1_9_10_12"), ("val", "b_0_7"), ("test", "c_3_4")):
        write(folder / f"{split}_list.txt", name)


def lsmdc(folder):
    times = "00.00.01.000\t00.00.02.000\t00.00.01.100\t00.00.01.900"
    lines = [f'0001_American_Beauty_00.00.{k}-00.01.{k}\t{times}\tSOMEONE says "{k}.' for k in range(4)]
    write(folder / "LSMDC16_annos_training.csv", *lines[:2], lines[1].replace("says", "sings"))
    write(folder / "LSMDC16_annos_val.csv", lines[2])
    write(folder / "LSMDC16_challenge_1000_publictect.csv", lines[3], "")


def narrative(image, caption):
    return json.dumps({"dataset_id": "d", "image_id": image, "annotator_id": 9, "caption": caption, "traces": [[]]})


def narratives(folder):
    coco = {"annotations": [{"image_id": 57, "id": k, "caption": f"A cat {k}.\n"} for k in range(2)]}
    write(folder / "annotations" / "captions_train2017.json", json.dumps(coco))
    write(folder / "captions_val2017.json", json.dumps(coco))
    for k in range(2):
        write(
            folder / f"coco_train_localized_narratives-0000{k}-of-00004.jsonl", narrative("57", f"In this image {k}.")
        )
    write(folder / "coco_val_localized_narratives.jsonl", narrative("632", "There is a bed."))
    write(folder / "open_images_train_v6_localized_narratives-00000-of-00010.jsonl", narrative("00a1", "A sky."), "")
    write(folder / "open_images_validation_localized_narratives.jsonl", narrative("00b2", "A tree."))
    write(folder / "open_images_test_localized_narratives.jsonl", narrative("00c3", "A lake."))


WRITERS = {"msrvtt": msrvtt, "msrvtt_1ka": msrvtt_1ka, "msvd": msvd, "lsmdc": lsmdc, "narratives": narratives}


def build(name, folder):
    """The clips and their captions; numbers that are too small are no matter here."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        clips = builders.load(name).build(folder)
    return clips, Manifest.read(folder / f"{name}_captions.csv")


def told(captions):
    """clip -> its captions."""
    found = {}
    for caption in captions:
        found.setdefault(caption.of, []).append(caption.caption)
    return found


@pytest.fixture(params=WRITERS)
def name(request):
    return request.param


@pytest.fixture
def files(name, tmp_path):
    WRITERS[name](tmp_path)
    return tmp_path


# Every builder


def test_both_manifests_are_written_and_captions_are_of_clips(name, files):
    clips, captions = build(name, files)
    assert Manifest.read(files / f"{name}.csv").clips == clips.clips
    by_id = {clip.clip_id: clip for clip in clips}
    assert {caption.of for caption in captions} == set(by_id)
    counts = {}
    for caption in captions:
        clip, k = by_id[caption.of], counts.get(caption.of, 0)
        assert caption.clip_id == f"{clip.clip_id}#{k}"
        assert (caption.domain, caption.split, caption.source) == (clip.domain, clip.split, clip.source)
        assert caption.caption == " ".join(caption.caption.split()) != ""
        counts[caption.of] = k + 1
    assert not any(clip.caption or clip.of for clip in clips)


def test_building_again_gives_the_same_bytes(name, files):
    build(name, files)
    before = [path.read_bytes() for path in sorted(files.glob(f"{name}*.csv"))]
    build(name, files)
    assert [path.read_bytes() for path in sorted(files.glob(f"{name}*.csv"))] == before


def test_each_missing_file_is_named_with_where_to_get_it(name, files, tmp_path_factory):
    for path in sorted(p for p in files.rglob("*") if p.is_file()):
        if name == "narratives" or "LSMDC16_annos_val" in path.name:
            continue  # may be left out
        less = tmp_path_factory.mktemp("less")
        shutil.copytree(files, less, dirs_exist_ok=True)
        (less / path.relative_to(files)).unlink()
        with pytest.raises(ManifestError, match=rf"no .*{re.escape(path.stem)}.* in {less}; get it from .*\.com"):
            build(name, less)
        assert not list(less.glob(f"{name}*.csv"))


def test_a_folder_without_any_file_is_an_error(name, tmp_path):
    with pytest.raises(ManifestError, match=rf"no .* in {tmp_path}.*; get (it|them) from "):
        build(name, tmp_path / "nothing")


def test_numbers_that_are_not_the_published_ones_are_warnings(name, files):
    published = {
        "msrvtt": [r"train has 1 clips\D+6513$", r"test has 2 captions\D+59800$"],
        "msrvtt_1ka": [r"train has 2 clips\D+9000$", r"test has 1 captions\D+1000$"],
        "msvd": [r"train has 1 clips\D+1200$", "val has 1 clips", r"test has 1 clips\D+670$"],
        "lsmdc": [r"train has 3 captions\D+101079$", r"test has 1 captions\D+1000$"],
        "narratives": [r"coco train has 2 captions\D+591753$", "open_narratives val has 1 captions"],
    }
    with pytest.warns(UserWarning, match=f"^{name}: ") as said:
        builders.load(name).build(files)
    texts = "\n".join(str(warning.message) for warning in said)
    for part in published[name]:
        assert re.search(part, texts, re.MULTILINE)


def test_the_command_prints_both_manifests(name, files):
    result = CliRunner().invoke(main, ["manifest", "build", name, str(files)])
    assert result.exit_code == 0, result.output
    assert result.stdout == f"{files / f'{name}.csv'}\n{files / f'{name}_captions.csv'}\n"


def test_the_card_names_the_benchmark_its_domains_and_its_files(name, files):
    card = (ROOT / "data_manifests" / f"{name}.md").read_text()
    assert card.startswith(f"# {name}\n")
    for word in (f"featcache manifest build {name} ", "| licence |", "| captions |", "## Checks"):
        assert word in card
    for domain in build(name, files)[0].domains:
        assert f"`{domain}`" in card


# MSR-VTT


def test_both_kinds_of_files_of_msrvtt_give_the_same_manifests(tmp_path):
    msrvtt(tmp_path)
    clips, captions = build("msrvtt", tmp_path)
    assert [(clip.clip_id, clip.domain, clip.split, clip.source) for clip in clips] == [
        ("video0", "msrvtt", "train", "TrainValVideo/video0.mp4"),
        ("video1", "msrvtt", "val", "TrainValVideo/video1.mp4"),
        ("video2", "msrvtt", "test", "TestVideo/video2.mp4"),
    ]
    assert told(captions) == {f"video{k}": [f"{k} 0", f"{k} 1"] for k in range(3)}
    whole = videos("train", "validate", "test")
    (tmp_path / "MSRVTT_data.json").unlink()
    for file, keep in (("train_val_videodatainfo", slice(0, 2)), ("test_videodatainfo", slice(2, 3))):
        part = {"videos": whole["videos"][keep]}
        part["sentences"] = [s for s in whole["sentences"] if s["video_id"] in {v["video_id"] for v in part["videos"]}]
        write(tmp_path / f"{file}.json", json.dumps(part))
    again, captions_again = build("msrvtt", tmp_path)
    assert (again.clips, captions_again.clips) == (clips.clips, captions.clips)


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ('"sentences"', '"annotations"', r"MSRVTT_data.json has no list 'sentences'; .*official file"),
        ('"caption": "0 1"', '"text": "0 1"', r"sentences\[3\] has no 'caption'; it has: sen_id, video_id, text"),
        ('"split": "test"', '"split": "hidden"', r"videos\[2\]: split 'hidden' is none of train, validate, val, test"),
        ('"video_id": "video1"', '"video_id": null', r"videos\[1\] has no 'video_id'"),
        ('"video_id": "video1"', '"video_id": "video0"', r"clip 'video0' .*more than once"),
        ('{"info"', '{"info', r"MSRVTT_data.json.* not JSON .*line 1 column.*again"),
        ("train", "\xfc", r"MSRVTT_data.json.* not UTF-8 .*again"),
    ],
)
def test_what_makes_no_sense_is_named_with_its_place(tmp_path, old, new, said):
    msrvtt(tmp_path)
    path = tmp_path / "MSRVTT_data.json"
    path.write_bytes(path.read_text().replace(old, new, 1).encode("latin-1"))
    with pytest.raises(ManifestError, match=said):
        build("msrvtt", tmp_path)
    assert not list(tmp_path.glob("*.csv"))


def test_blank_captions_are_left_out_and_clips_without_one_are_told(tmp_path):
    found = videos("train", "test")
    for sentence in found["sentences"]:
        if sentence["video_id"] == "video1":
            sentence["caption"] = " \n"
    write(tmp_path / "MSRVTT_data.json", json.dumps(found))
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        builders.load("msrvtt").build(tmp_path)
    texts = [str(warning.message) for warning in said]
    assert any(re.match("msrvtt: 1 clips have no caption.*'video1'", text) for text in texts)
    assert set(told(Manifest.read(tmp_path / "msrvtt_captions.csv"))) == {"video0"}


def test_1ka_asks_one_sentence_of_each_test_video_and_trains_on_what_its_list_says(tmp_path):
    msrvtt_1ka(tmp_path)
    clips, captions = build("msrvtt_1ka", tmp_path)
    assert [(clip.clip_id, clip.split) for clip in clips] == [
        ("video0", "train"),
        ("video1", "train"),
        ("video2", "test"),
    ]
    assert told(captions) == {"video0": ["0 0", "0 1"], "video1": ["1 0", "1 1"], "video2": ["a dog, barking"]}
    write(tmp_path / "MSRVTT_train.9k.csv", "video_id", "video7")
    with pytest.raises(ManifestError, match=r"train.9k.csv row 1: .* have no 'video7'"):
        build("msrvtt_1ka", tmp_path)


@pytest.mark.realdata
def test_the_real_lists_of_1ka_split_msrvtt_in_two(realdata, tmp_path):
    for name in ("MSRVTT_JSFUSION_test.csv", "MSRVTT_train.9k.csv"):
        shutil.copy(realdata / "video_text" / name, tmp_path)
    full = videos(*["train"] * 6513, *["validate"] * 497, *["test"] * 2990, captions=1)
    (tmp_path / "MSRVTT_data.json").write_text(json.dumps(full))
    with pytest.warns(UserWarning, match="published") as said:
        clips = builders.load("msrvtt_1ka").build(tmp_path)
    (text,) = (str(warning.message) for warning in said)  # the test wrote one caption per video
    assert re.fullmatch(r"msrvtt_1ka: msrvtt train has 9000 captions\D+180000", text)
    test = clips.select(split="test")
    assert {clip.clip_id for clip in clips} == {f"video{k}" for k in range(10_000)}
    assert all(
        clip.source.startswith("TestVideo/") for clip in test
    )  # of the videos that are also the full split's test
    captions = told(Manifest.read(tmp_path / "msrvtt_1ka_captions.csv").select(split="test"))
    assert captions["video9770"] == ["a person is connecting something to system"]


# MSVD


def test_msvd_takes_english_captions_of_the_clips_of_the_split(tmp_path):
    msvd(tmp_path)
    clips, captions = build("msvd", tmp_path)
    assert [(c.clip_id, c.split, c.source) for c in clips] == [
        ("a_b_1_9_10_12", "train", "YouTubeClips/a_b_1_9_10_12.avi"),
        ("b_0_7", "val", "YouTubeClips/b_0_7.avi"),
        ("c_3_4", "test", "YouTubeClips/c_3_4.avi"),
    ]
    assert told(captions) == {
        "a_b_1_9_10_12": ["Someone runs a."],
        "b_0_7": ["Someone runs b.", "A second one"],
        "c_3_4": ["Someone runs c."],
    }


def test_the_mapping_of_msvd_splits_by_its_numbers(tmp_path):
    msvd(tmp_path)
    for path in tmp_path.glob("*_list.txt"):
        path.unlink()
    write(tmp_path / "youtube_mapping.txt", "c_3_4 vid1200", "b_0_7 vid1201", "z_1_2 vid1300", "a_b_1_9_10_12 vid1301")
    assert [clip.split for clip in build("msvd", tmp_path)[0]] == ["train", "val", "val", "test"]
    write(tmp_path / "youtube_mapping.txt", "c_3_4 vid0")
    with pytest.raises(ManifestError, match="youtube_mapping.txt line 1: 'vid0' .*vid1 to vid1970"):
        build("msvd", tmp_path)


@pytest.mark.realdata
def test_the_real_mapping_of_msvd_has_the_published_split(realdata, tmp_path):
    shutil.copy(realdata / "video_text" / "msvd_youtube_mapping.txt", tmp_path / "youtube_mapping.txt")
    named = [line.split()[0] for line in (tmp_path / "youtube_mapping.txt").read_text().splitlines()]
    rows = [",".join([*name.rsplit("_", 2), "1,clean,9,English,Someone runs."]) for name in named]
    write(tmp_path / "video_corpus.csv", MSVD, *rows)
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # 1,200, 100 and 670 clips, each with a caption
        clips = builders.load("msvd").build(tmp_path)
    val = [clip.clip_id for clip in clips.select(split="val")]
    assert (val[0], val[-1]) == ("bQJQGoJF7_k_162_169", "eyMYc-37Sk4_0_10")  # as in Collaborative Experts' val_list.txt


# LSMDC


def test_lsmdc_joins_the_sentences_of_a_clip(tmp_path):
    lsmdc(tmp_path)
    clips, captions = build("lsmdc", tmp_path)
    first = clips.clips[0]
    assert (first.clip_id, first.domain) == ("0001_American_Beauty_00.00.0-00.01.0", "lsmdc")
    assert first.source == "0001_American_Beauty/0001_American_Beauty_00.00.0-00.01.0.avi"
    assert [clip.split for clip in clips] == ["train", "train", "val", "test"]
    assert list(told(captions).values()) == [
        ['SOMEONE says "0.'],
        ['SOMEONE says "1.', 'SOMEONE sings "1.'],
        ['SOMEONE says "2.'],
        ['SOMEONE says "3.'],
    ]
    (tmp_path / "LSMDC16_annos_val.csv").unlink()
    assert [clip.split for clip in build("lsmdc", tmp_path)[0]] == ["train", "train", "test"]


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("0002_Up_1-2\ta\tb\tSOMEONE", r"publictect.csv line 2 has 4 cells.*; 6 "),
        ("film\ta\tb\tc\td\tSOMEONE", r"publictect.csv line 2: 'film' .*such as 1012_Unbreakable_00.05.16.065"),
        (
            "0001_American_Beauty_00.00.0-00.01.0\ta\tb\tc\td\tSOMEONE",
            r"publictect.csv line 2: clip '0001_American_Beauty_00.00.0-00.01.0' .*split train",
        ),
    ],
)
def test_lines_of_lsmdc_that_make_no_sense_are_named(tmp_path, line, said):
    lsmdc(tmp_path)
    path = tmp_path / "LSMDC16_challenge_1000_publictect.csv"
    write(path, path.read_text().splitlines()[0], line)
    with pytest.raises(ManifestError, match=said):
        build("lsmdc", tmp_path)


# COCO and Localized Narratives


def test_images_have_their_captions_in_each_domain(tmp_path):
    narratives(tmp_path)
    clips, captions = build("narratives", tmp_path)
    assert [(c.clip_id, c.domain, c.split, c.source) for c in clips] == [
        ("coco/train2017/000000000057", "coco", "train", "train2017/000000000057.jpg"),
        ("coco/val2017/000000000057", "coco", "test", "val2017/000000000057.jpg"),
        ("coco_narratives/train2017/000000000057", "coco_narratives", "train", "train2017/000000000057.jpg"),
        ("coco_narratives/val2017/000000000632", "coco_narratives", "test", "val2017/000000000632.jpg"),
        ("open_narratives/train/00a1", "open_narratives", "train", "open_images/train/00a1.jpg"),
        ("open_narratives/validation/00b2", "open_narratives", "val", "open_images/validation/00b2.jpg"),
        ("open_narratives/test/00c3", "open_narratives", "test", "open_images/test/00c3.jpg"),
    ]
    assert told(captions)["coco/train2017/000000000057"] == ["A cat 0.", "A cat 1."]
    assert told(captions)["coco_narratives/train2017/000000000057"] == ["In this image 0.", "In this image 1."]


def test_domains_whose_files_are_not_there_are_left_out(tmp_path):
    narratives(tmp_path)
    for path in tmp_path.glob("open_images*"):
        path.unlink()
    (tmp_path / "captions_val2017.json").unlink()
    assert build("narratives", tmp_path)[0].domains == ("coco", "coco_narratives")


def test_a_broken_line_of_narratives_is_named(tmp_path):
    narratives(tmp_path)
    path = tmp_path / "coco_val_localized_narratives.jsonl"
    write(path, narrative("632", "x"), '{"image_id": "7"')
    with pytest.raises(ManifestError, match="coco_val_localized_narratives.jsonl line 2: .*not JSON"):
        build("narratives", tmp_path)
    write(path, narrative("632", "x"), "", '{"image_id": "7"}')
    with pytest.raises(ManifestError, match="line 3 has no 'caption'; it has: image_id"):
        build("narratives", tmp_path)


# Manifests joined


@pytest.fixture
def two(tmp_path):
    """MSR-VTT and MSVD in folders of their own."""
    for name in ("msrvtt", "msvd"):
        WRITERS[name](tmp_path / name)
        build(name, tmp_path / name)
    return [tmp_path / name / f"{name}.csv" for name in ("msrvtt", "msvd")]


def joining(*arguments):
    return CliRunner().invoke(main, ["manifest", "join", *map(str, arguments)])


def test_manifests_are_joined_with_their_captions(two, tmp_path):
    out = tmp_path / "both" / "msrvtt_msvd.csv"
    out.parent.mkdir()
    result = joining(*two, out)
    assert result.exit_code == 0, result.output
    assert result.stdout.split() == [str(out), str(captions_of(out))]
    both, captions = Manifest.read(out), Manifest.read(captions_of(out))
    assert (both.name, both.domains) == ("msrvtt_msvd", ("msrvtt", "msvd"))
    parts = [Manifest.read(path) for path in two]
    assert [clip.identity() for clip in both] == [clip.identity() for part in parts for clip in part]
    assert both.clips[0].source == "../msrvtt/TrainValVideo/video0.mp4"
    assert told(captions) == {k: v for path in two for k, v in told(Manifest.read(captions_of(path))).items()}


def test_clips_that_are_called_alike_are_refused_unless_their_domains_tell_them_apart(two, tmp_path):
    out = tmp_path / "out.csv"
    other = tmp_path / "other.csv"
    other.write_text(two[0].read_text().replace("msrvtt", "another"))
    said = joining(two[0], other, out)
    assert said.exit_code == 1
    assert f"clip 'video0' is in {two[0]} and in {other}; --prefix calls it DOMAIN/CLIP" in said.stderr
    assert not out.exists()
    assert joining(two[0], other, out, "--prefix").exit_code == 0
    assert [clip.clip_id for clip in Manifest.read(out)][2:4] == ["msrvtt/video2", "another/video0"]
    assert set(told(Manifest.read(captions_of(out)))) == {f"msrvtt/video{k}" for k in range(3)}
    for options in ([], ["--prefix"]):
        said = joining(two[0], two[0], tmp_path / "same.csv", *options).stderr.strip()
        assert said.endswith("; name each manifest once")


def test_a_forgotten_out_does_not_cost_a_manifest(two):
    before = two[1].read_bytes()
    said = joining(*two)
    assert said.exit_code == 1
    assert f"{two[1]} exists and differs" in said.stderr
    assert two[1].read_bytes() == before


def test_captions_of_no_clip_and_labels_that_do_not_fit_are_errors(two, tmp_path):
    captions = captions_of(two[0])
    captions.write_text(captions.read_text().replace(",video1\n", ",video9\n"))
    with pytest.raises(ManifestError, match="caption 'video1#0' .*'video9'"):
        join(two, tmp_path / "out.csv")
    for path, column in ((tmp_path / "a.csv", "label"), (tmp_path / "b.csv", "label:verb")):
        write(path, f"clip_id,domain,split,source,{column}", f"{path.stem},d,train,x.mp4,cut")
    with pytest.raises(ManifestError, match="a.csv has .*`label` and .*b.csv .*`label:KIND`; rename"):
        join([tmp_path / "a.csv", tmp_path / "b.csv"], tmp_path / "out.csv")
