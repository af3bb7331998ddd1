import re
from dataclasses import replace

import av
import numpy as np
import pytest

from featcache import builders
from featcache.builders import kitchens
from featcache.errors import BusyError, ConfigError, FeatcacheError
from featcache.files import claimed
from featcache.kitchens import actions, film, plan
from featcache.kitchens import sound as kitchen_sound
from featcache.kitchens.paint import Canvas, Easel
from featcache.manifest import Manifest
from tests.conftest import ROOT

PLAN = plan.shots(seed=0)
DOMAINS = tuple(plan.KITCHENS)
ACTIONS = tuple(plan.ACTIONS)
CARD = ROOT / "data_manifests" / "kitchens.md"


def shot(clip_id):
    return next(shot for shot in PLAN if shot.clip_id == clip_id)


# The registry


def test_the_folder_is_the_registry():
    assert "kitchens" in builders.names()
    assert not any(name.startswith("_") for name in builders.names())
    assert builders.load("kitchens") is kitchens
    with pytest.raises(ConfigError, match=r"no benchmark 'kitchen'.*kitchens"):
        builders.load("kitchen")


# The plan


def test_the_same_seed_gives_the_same_plan_and_another_seed_another():
    assert plan.shots(seed=0) == PLAN
    other = plan.shots(seed=1)
    assert [shot.clip_id for shot in other] == [shot.clip_id for shot in PLAN]
    assert all(a.seconds != b.seconds or a.phase != b.phase for a, b in zip(PLAN, other, strict=True))


def test_classes_and_splits_are_those_of_the_card():
    """Each line `| action | loft train + test | cottage train + test |` of the card's table."""
    card = {
        line[0]: line[1:]
        for line in re.findall(r"^\| (\w+) \| (\d+) \+ (\d+) \| (\d+) \+ (\d+) \|$", CARD.read_text(), re.M)
    }
    count = {
        action: tuple(
            str(sum((shot.kitchen, shot.action, shot.split) == (domain, action, split) for shot in PLAN))
            for domain in DOMAINS
            for split in ("train", "test")
        )
        for action in ACTIONS
    }
    assert {action: card[action] for action in ACTIONS} == count


def test_captions_are_terse_in_the_loft_and_sentences_in_the_cottage():
    for shot in PLAN:
        assert shot.thing in shot.caption
        if shot.kitchen == "loft":
            assert shot.caption == shot.caption.lower()
            assert not shot.caption.endswith(".")
        else:
            assert re.fullmatch(r"[A-Z].* is .*\.", shot.caption)


def test_beats_are_the_moments_at_which_a_stroke_is_complete():
    cut = shot("loft_cut_000")
    turns = [cut.turns(float(beat)) for beat in cut.beats()]
    assert np.allclose(turns, np.round(turns), atol=0.02)
    assert len(turns) == int(cut.turns(cut.seconds - 0.002)) - int(cut.turns(0))


# The files


@pytest.mark.parametrize("clip_id", ["loft_open_000", "cottage_wash_000"])
def test_a_clip_is_a_file_with_the_promised_pictures_and_sound(tmp_path, clip_id):
    planned = shot(clip_id)
    film.render(planned, tmp_path / "clip.mp4")
    assert [path.name for path in tmp_path.iterdir()] == ["clip.mp4"]
    with av.open(str(tmp_path / "clip.mp4")) as container:
        video, audio = container.streams.video[0], container.streams.audio[0]
        assert (video.codec.name, audio.codec.name) == ("h264", "aac")
        assert video.average_rate == planned.rate
        assert audio.rate == planned.sound_rate
        pictures = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
        container.seek(0)
        heard = np.concatenate([frame.to_ndarray()[0] for frame in container.decode(audio=0)])
    assert len(pictures) == planned.frames
    assert {picture.shape for picture in pictures} == {(planned.size[1], planned.size[0], 3)}
    assert planned.seconds == pytest.approx(float(planned.frames / planned.rate))
    assert 1.95 <= planned.seconds <= 2.65
    assert abs(len(heard) / planned.sound_rate - planned.seconds) < 0.1
    made = next(film.pictures(planned))
    assert np.abs(pictures[0].astype(int) - made).mean() < 8  # lossy, but the colours are right
    sound = kitchen_sound.sound(planned)
    level = np.sqrt((sound**2).mean())
    assert abs(np.sqrt((heard**2).mean()) - level) < 0.2 * level


@pytest.mark.parametrize(
    "action", [pytest.param(action, marks=pytest.mark.slow if k % 4 else ()) for k, action in enumerate(ACTIONS)]
)
def test_pictures_and_sound_follow_from_the_seed(action):
    planned = shot(f"loft_{action}_000")
    first, again = (next(film.pictures(planned)) for _ in range(2))
    other = next(film.pictures(replace(planned, seed=1)))
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)
    heard, again = (kitchen_sound.sound(planned) for _ in range(2))
    assert np.array_equal(heard, again)
    assert not np.array_equal(heard, kitchen_sound.sound(replace(planned, seed=1)))


# Building


@pytest.fixture
def few(monkeypatch):
    """A benchmark of three short clips."""
    names = ("loft_pour_000", "loft_stir_001", "cottage_open_000")
    monkeypatch.setattr(
        kitchens,
        "shots",
        lambda seed: [replace(one, seconds=float(6 / one.rate)) for one in plan.shots(seed) if one.clip_id in names],
    )
    return names


def test_an_interrupted_build_goes_on_where_it_stopped(tmp_path, few):
    calls = []
    manifest = kitchens.build(tmp_path, workers=1, progress=lambda done, total: calls.append((done, total)))
    assert calls == [(0, 3), (1, 3), (2, 3), (3, 3)]
    files = [manifest.path(clip) for clip in manifest]
    before = [path.read_bytes() for path in files]
    files[1].unlink()
    left = files[1].with_name(f".{files[1].name}.7-0a.partial")  # by a process that was killed
    left.mkdir()
    (left / files[1].name).write_bytes(before[1][:1000])
    kept = files[0].stat().st_mtime_ns

    calls.clear()
    assert kitchens.build(tmp_path, workers=1, progress=lambda done, total: calls.append((done, total))) == manifest
    assert calls == [(2, 3), (3, 3)]
    assert not left.exists()
    assert [path.read_bytes() for path in files] == before
    assert files[0].stat().st_mtime_ns == kept
    assert not list(tmp_path.glob("*/*.partial"))


def test_a_part_of_the_plan_has_the_same_clips(tmp_path, few):
    part = kitchens.build(tmp_path, workers=1, every=2)
    assert [clip.clip_id for clip in part] == list(few[::2])
    kept = [part.path(clip).stat().st_mtime_ns for clip in part]
    assert [clip.clip_id for clip in kitchens.build(tmp_path, workers=1)] == list(few)
    assert [part.path(clip).stat().st_mtime_ns for clip in part] == kept


def test_another_seed_replaces_the_clips_and_nothing_else(tmp_path, few):
    manifest = kitchens.build(tmp_path, workers=1)
    before = [manifest.path(clip).read_bytes() for clip in manifest]
    (tmp_path / "loft" / "holiday.mp4").write_bytes(b"mine")
    other = kitchens.build(tmp_path, workers=1, seed=1)
    assert all(other.path(clip).read_bytes() != old for clip, old in zip(other, before, strict=True))
    assert (tmp_path / "loft" / "holiday.mp4").read_bytes() == b"mine"


@pytest.mark.slow
def test_the_number_of_processes_changes_no_byte(tmp_path, few):
    one, two = (kitchens.build(tmp_path / str(n), workers=n) for n in (1, 2))
    assert one.clips == two.clips
    for clip in one:
        assert one.path(clip).read_bytes() == two.path(clip).read_bytes()


def test_the_manifest_is_written_and_reads_back(tmp_path, few):
    built = kitchens.build(tmp_path, workers=1)
    read = Manifest.read(tmp_path / "kitchens.csv")
    assert read == built
    assert [clip.clip_id for clip in read] == list(few)
    assert read.domains == tuple(sorted(DOMAINS))
    assert set(read.classes["label"]) == {"open", "pour", "stir"}
    assert all(read.path(clip).is_file() and clip.caption for clip in read)


def test_a_folder_that_cannot_be_written_is_a_plain_error(tmp_path, few):
    (tmp_path / "taken").write_text("a file, not a folder")
    with pytest.raises(FeatcacheError, match=r"cannot write the clips of kitchens to .*taken"):
        kitchens.build(tmp_path / "taken", workers=1)


def test_a_folder_in_which_another_process_builds_is_refused(tmp_path, few):
    with claimed(tmp_path / "kitchens.csv"), pytest.raises(BusyError, match="kitchens.csv.*process [0-9]+"):
        kitchens.build(tmp_path, workers=1)
    assert list(tmp_path.iterdir()) == []


# What the domains share, and in what they differ


@pytest.mark.slow
def test_the_loft_is_brighter_colder_and_louder():
    brightness, warmth, loudness = ({domain: [] for domain in DOMAINS} for _ in range(3))
    for planned in (shot(f"{domain}_{action}_000") for domain in DOMAINS for action in ACTIONS[::2]):
        picture = next(film.pictures(planned)).astype(float)
        brightness[planned.kitchen].append(picture.mean())
        warmth[planned.kitchen].append(picture[..., 0].mean() / picture[..., 2].mean())
        loudness[planned.kitchen].append(np.log10((kitchen_sound.sound(planned) ** 2).mean()))
    assert np.mean(brightness["loft"]) > 1.4 * np.mean(brightness["cottage"])
    assert np.mean(warmth["cottage"]) > 1.3 * np.mean(warmth["loft"])
    assert np.mean(loudness["loft"]) > np.mean(loudness["cottage"]) + 0.3  # 3 dB


def test_the_cook_of_the_loft_is_faster():
    for action in ("cut", "stir", "whisk"):
        strokes = {domain: [s.strokes for s in PLAN if (s.kitchen, s.action) == (domain, action)] for domain in DOMAINS}
        assert np.mean(strokes["loft"]) > 1.15 * np.mean(strokes["cottage"])


@pytest.mark.parametrize("domain", DOMAINS)
@pytest.mark.parametrize("action", ["cut", "peel", "whisk"])
def test_the_sound_of_an_action_repeats_with_its_strokes(domain, action):
    planned = shot(f"{domain}_{action}_000")
    wave = kitchen_sound.SOUND[action](kitchen_sound.Room(planned))
    step = planned.sound_rate // 100
    energy = (wave[: len(wave) // step * step].reshape(-1, step) ** 2).mean(1)
    spectrum = np.abs(np.fft.rfft(np.sqrt(energy) - np.sqrt(energy).mean(), 4096))
    frequency = np.fft.rfftfreq(4096, 0.01)
    slow = frequency < 1.5 * planned.strokes  # the overtones of sharp beats lie above
    assert abs(frequency[slow][spectrum[slow].argmax()] - planned.strokes) < 0.5


@pytest.mark.parametrize("domain", DOMAINS)
@pytest.mark.parametrize("action", ["knead", "stir", "wash", "whisk"])
def test_the_movement_of_an_action_repeats_with_its_strokes(domain, action):
    """After a whole stroke the hands are back where they were, after half a stroke they are not."""
    planned = shot(f"{domain}_{action}_000")
    start, half, whole = _worktop(planned, [0.1, 0.1 + 0.5 / planned.strokes, 0.1 + 1 / planned.strokes])
    assert np.abs(start - whole).mean() < 0.75 * np.abs(start - half).mean()


@pytest.mark.parametrize("domain", DOMAINS)
@pytest.mark.parametrize("action", ["open", "pour"])
def test_a_single_movement_begins_and_ends(domain, action):
    planned = shot(f"{domain}_{action}_000")
    middle = (planned.begin + planned.end) / 2
    a, b, c, d = _worktop(planned, [0.02, 0.12, middle - 0.05, middle + 0.05])
    assert np.abs(a - b).mean() < 0.5 * np.abs(c - d).mean()
    assert [planned.done(t) for t in (0.0, middle, planned.end)] == pytest.approx([0, 0.5, 1])


def _worktop(planned, times):
    """The worktop at these times as no camera sees it: without shake, light and noise."""
    stage = actions.Stage(planned)
    draw = actions.DRAW[planned.action](stage)
    for t in times:
        canvas = Canvas(stage.floor.image.copy(), stage.kitchen.fall)
        draw(canvas, t)
        yield canvas.image.astype(float)


# Painting


def test_a_sprite_covers_what_lies_below_and_shades_what_lies_beside():
    easel = Easel(40, 40)
    disc = easel.flat(easel.ellipse((20, 20), (15, 15)), (200, 0, 0)).sprite((20, 20))
    canvas = Canvas(np.full((600, 800, 3), 100, np.uint8), fall=(1.0, 0.0))
    canvas.put(disc, (300, 200), lift=10)
    assert canvas.image[200, 300].tolist() == [200, 0, 0]
    assert (canvas.image[200, 320] < 90).all()  # its shadow falls to the right
    assert canvas.image[200, 260].tolist() == [100, 100, 100]
    assert canvas.image[400, 300].tolist() == [100, 100, 100]


def test_a_sprite_outside_of_what_is_seen_changes_nothing():
    easel = Easel(20, 20)
    box = easel.flat(easel.box((0, 0), (20, 20), 3), (255, 255, 255)).sprite((10, 10))
    canvas = Canvas(np.zeros((600, 800, 3), np.uint8), visible=(100, 100, 200, 200))
    canvas.put(box, (300, 150), angle=30)
    canvas.put(box, (150, 150), below=190)
    assert not canvas.image.any()


def test_a_mirrored_sprite_is_the_mirror_image_about_its_pivot():
    easel = Easel(31, 20)
    sprite = easel.flat(easel.polygon([(0, 0), (30, 10), (0, 20)]), (9, 90, 200)).sprite((10, 10))
    images = []
    for one in (sprite, sprite.mirrored()):
        canvas = Canvas(np.zeros((100, 101, 3), np.uint8), visible=(0, 0, 101, 100))
        canvas.put(one, (50, 50), lift=0)
        images.append(canvas.image)
    assert images[0].any()
    assert np.array_equal(images[0][:, 5:95], images[1][:, ::-1][:, 6:96])
