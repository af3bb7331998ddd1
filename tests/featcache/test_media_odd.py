"""Files of cameras, cutters and joiners: which picture and which sound they show, told from the numbers in them."""

from fractions import Fraction

import av
import numpy as np
import pytest
from av.stream import Disposition

from featcache.errors import MediaError
from featcache.media import Piece, probe, windows_of
from featcache.media.container import scan
from featcache.media.source import open_source
from featcache.windows import Plan
from tests.featcache.test_media_matrix import check_tones, heard, tones
from tests.helpers.media import Listener, Watcher, clip, number_of, numbered, take, write_sound, write_video

OPEN = {"codec": "mpeg2video", "b_frames": 2, "options": {"g": "12", "q": "2"}}


def remux(source, path, *, first=0, change=None, back=0):
    """The pictures of a file from packet `first` on, changed by `change(number, data)`, `back` ticks earlier."""
    with av.open(str(source)) as old, av.open(str(path), "w") as new:
        stream = new.add_stream_from_template(old.streams.video[0])
        packets = [packet for packet in old.demux(video=0) if packet.size][first:]
        for number, packet in enumerate(packets):
            copy = av.Packet(change(number, bytes(packet)) if change else bytes(packet))
            copy.stream, copy.time_base, copy.duration = stream, packet.time_base, packet.duration or 1
            copy.is_keyframe = packet.is_keyframe
            shift = packets[0].dts if first and not back else back
            copy.dts = packet.dts - shift
            copy.pts = None if packet.pts is None else packet.pts - shift
            new.mux(copy)
    return path


def numbers(path, wanted=None):
    """The numbers on all pictures, decoded together and, which must be the same, each by itself."""
    reel = open_source(path).reel
    wanted = range(len(reel.times)) if wanted is None else wanted
    together = [number_of(picture) for _, picture in reel.decode(list(wanted))]
    assert together == [number_of(picture) for number in wanted for _, picture in reel.decode([number])]
    return together


@pytest.mark.parametrize("name", ["v.avi", "v.nut"])
def test_a_palette_that_only_the_first_packet_carries_serves_all_pictures(tmp_path, name):
    palette = np.repeat(np.arange(256, dtype=np.uint8)[:, None], 4, axis=1)
    palette[:, 0] = 255  # opaque
    with av.open(str(tmp_path / name), "w") as container:
        stream = container.add_stream("rawvideo", rate=25)
        stream.width, stream.height, stream.pix_fmt = 128, 64, "pal8"
        for n in range(50):
            frame = av.VideoFrame.from_ndarray((numbered(n)[..., 0].copy(), palette), format="pal8")
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    assert numbers(tmp_path / name) == list(range(50))


def test_tables_that_only_the_first_packet_carries_serve_all_pictures(tmp_path):
    """Motion JPEG as some cameras write it: quantisation and Huffman tables come once."""

    def bare(number, data):
        place, kept = 2, data[:2]
        while number and data[place + 1] != 0xDA:  # up to the scan itself
            end = place + 2 + int.from_bytes(data[place + 2 : place + 4], "big")
            kept += b"" if data[place + 1] in (0xDB, 0xC4) else data[place:end]
            place = end
        return kept + data[place:] if number else data

    whole = write_video(tmp_path / "a.avi", codec="mjpeg", pixels="yuvj420p")
    assert numbers(remux(whole, tmp_path / "b.avi", change=bare)) == list(range(50))


@pytest.mark.parametrize("options", [{"b_frames": 2}, {"b_frames": 0}])
def test_an_avi_that_begins_inside_a_group_of_pictures_shows_each_in_its_place(tmp_path, options):
    """Pictures before the first keyframe show the keyframe: what they depend on was cut off."""
    whole = write_video(tmp_path / "a.avi", frames=60, codec="mpeg4", options={"g": "24", "q": "2"}, **options)
    shown = numbers(remux(whole, tmp_path / "b.avi", first=10))
    key = next(n for n, number in enumerate(shown) if number != shown[0]) - 1
    assert len(shown) == 50
    assert shown[key:] == list(range(key + 10, 60))
    assert shown[0] == key + 10 >= 24


@pytest.mark.parametrize("name", ["c.ts", "c.mpg", "c.mkv"])
def test_a_cut_at_an_open_group_of_pictures_is_no_damage(tmp_path, name):
    """The first pictures depend on those before the cut; they are left out, as FFmpeg does."""
    whole = write_video(tmp_path / "a.ts", frames=60, **OPEN)
    with av.open(str(whole)) as container:
        keys = [number for number, packet in enumerate(container.demux(video=0)) if packet.is_keyframe]
    shown = numbers(remux(whole, tmp_path / name, first=keys[2]))
    assert shown == list(range(shown[0], 60))
    assert shown[0] in range(keys[2], keys[2] + 3)


def test_pictures_that_an_edit_list_keeps_only_to_decode_others_are_not_shown(tmp_path):
    whole = write_video(tmp_path / "a.mp4", frames=60, options={"g": "24", "bf": "2"})
    with av.open(str(whole)) as container:
        tick = container.streams.video[0].duration // 60
    cut = remux(whole, tmp_path / "b.mp4", back=10 * tick)
    assert numbers(cut) == list(range(10, 60))


def test_a_picture_that_is_not_coded_shows_the_one_before(tmp_path):
    def emptied(number, data):
        if number not in (20, 21, 22):
            return data
        head = data.index(b"\0\0\1\xb6") + 4
        bits = "".join(f"{byte:08b}" for byte in data[head : head + 8])
        bits = bits[: bits.index("0", 2) + 8] + "0"  # type, seconds, marker, time (5 bits), marker, then: not coded
        bits += "0" + "1" * (-len(bits) % 8 - 1)
        return data[:head] + int(bits, 2).to_bytes(len(bits) // 8, "big")

    whole = write_video(tmp_path / "a.avi", codec="mpeg4", b_frames=0, options={"g": "50", "q": "2"})
    shown = [*range(20), 19, 19, 19, *range(23, 50)]
    assert numbers(remux(whole, tmp_path / "b.mp4", change=emptied))[:20] == shown[:20]
    assert numbers(tmp_path / "b.mp4", range(18, 24))[:5] == shown[18:23]


def test_times_that_contradict_the_decoder_give_way_to_it(tmp_path):
    """An AVI with B-frames, copied into MP4: packets have ascending times, in the order of decoding."""

    def copied(path):
        with av.open(str(whole)) as old, av.open(str(path), "w") as new:
            stream = new.add_stream_from_template(old.streams.video[0])
            for packet in old.demux(video=0):
                if packet.size:
                    packet.pts, packet.stream = packet.dts, stream
                    new.mux(packet)
        return path

    whole = write_video(tmp_path / "a.avi", codec="mpeg4", b_frames=2, options={"g": "24", "q": "2"})
    assert numbers(copied(tmp_path / "b.mp4")) == list(range(50))
    assert numbers(copied(tmp_path / "b.mov"), [7, 30, 49]) == [7, 30, 49]


@pytest.mark.parametrize(("name", "codec"), [("v.ts", "libx264"), ("v.mpg", "mpeg2video")])
def test_recordings_laid_end_to_end_keep_all_their_pictures_and_sound(tmp_path, name, codec):
    sound = {"sound": tones(48000), "sound_rate": 48000, "sound_codec": "mp2"}
    options = {"codec": codec, "b_frames": 2, "options": {"g": "12", "q": "2"}, **sound}
    parts = [
        write_video(tmp_path / f"{n}{name}", pictures=[numbered(k) for k in range(n, n + 75)], **options).read_bytes()
        for n in (0, 75)
    ]
    path = tmp_path / name
    path.write_bytes(b"".join(parts))
    assert probe(path).frames == 150
    assert numbers(path, range(0, 150, 7)) == list(range(0, 150, 7))
    assert numbers(path, [1, 77, 140]) == [1, 77, 140]
    for second in (0.5, 2.0, 3.5, 5.0):
        window = take(path, Listener(0.25), clip(second + 0.125, second + 0.375)).windows[0]
        assert heard(window) == second * 2 % 6
    np.testing.assert_array_equal(take(path, Watcher(3, 25.0), clip(100, 103, "frames")).windows[0], range(100, 103))


def test_a_clock_that_goes_back_elsewhere_is_an_error_that_says_so(tmp_path):
    """FFmpeg's own program loses half of such a file when it converts it, unless it counts the pictures."""
    path = write_video(tmp_path / "v.mkv", frames=75, sound=tones(48000), sound_codec="flac")
    path.write_bytes(path.read_bytes() * 2)
    with pytest.raises(MediaError, match=r"v\.mkv: the clock of its pictures goes back after 2\.\d\d s; .*setpts=N"):
        take(path, Watcher())
    sound = write_sound(tmp_path / "s.mka", tones(16000), 16000, codec="flac")
    sound.write_bytes(sound.read_bytes() * 2)
    with pytest.raises(MediaError, match=r"s\.mka: the clock of its sound goes back after 2\.\d\d s"):
        take(sound, Listener())


def test_a_wave_file_whose_header_has_a_wrong_byte_rate_is_read_in_place(tmp_path):
    path = write_sound(tmp_path / "s.wav", tones(16000), 16000)
    data = bytearray(path.read_bytes())
    data[28:32] = (9000).to_bytes(4, "little")
    path.write_bytes(data)
    check_tones(path)


@pytest.mark.parametrize("name", ["v.mkv", "v.mp4"])
def test_the_default_streams_are_taken(tmp_path, name):
    """The first ones are a preview in white and silence; players take those that are marked as default."""
    path = tmp_path / name
    with av.open(str(path), "w") as container:
        films = [container.add_stream("mpeg4", rate=25, options={"q": "2"}) for _ in range(2)]
        sounds = [container.add_stream("aac", rate=16000, layout="mono") for _ in range(2)]
        for stream in (films[0], sounds[0]):
            stream.disposition = Disposition(0)
        for stream in (films[1], sounds[1]):
            stream.disposition = Disposition.default
        for film in films:
            film.width, film.height, film.pix_fmt = 128, 64, "yuv420p"
        for film, paint in zip(films, (lambda n: 255, lambda n: n), strict=True):
            for n in range(75):
                container.mux(film.encode(av.VideoFrame.from_ndarray(numbered(paint(n)), format="rgb24")))
            container.mux(film.encode())
        for stream, loudness in zip(sounds, (0, 1), strict=True):
            samples = tones(16000) * np.float32(loudness)
            for begin in range(0, len(samples), 1024):
                frame = av.AudioFrame.from_ndarray(samples[None, begin : begin + 1024].copy(), "fltp", "mono")
                frame.rate, frame.pts = 16000, begin
                container.mux(stream.encode(frame))
            container.mux(stream.encode())
    assert numbers(path, range(0, 75, 9)) == list(range(0, 75, 9))
    check_tones(path)
    notes = {
        piece.extractor: piece.note
        for piece in windows_of(path, clip(), Plan("segments", 1), [Watcher(), Listener()])
        if isinstance(piece, Piece)
    }
    assert notes == {
        "watcher": "the source has video streams 0, 1; 1 is taken, the default",
        "listener": "the source has audio streams 2, 3; 3 is taken, the default",
    }


@pytest.mark.parametrize("name", ["v.mp4", "v.mkv"])
def test_chapters_are_no_promise_of_pictures(tmp_path, name):
    whole = write_video(tmp_path / "a.mp4")
    with av.open(str(whole)) as old, av.open(str(tmp_path / name), "w") as new:
        whole_minute = {"id": 1, "start": 0, "end": 60000, "time_base": Fraction(1, 1000), "metadata": {"title": "a"}}
        new.set_chapters([whole_minute])
        stream = new.add_stream_from_template(old.streams.video[0])
        for packet in old.demux(video=0):
            if packet.size:
                packet.stream = stream
                new.mux(packet)
    assert scan(tmp_path / name).promised is None
    assert numbers(tmp_path / name, [0, 49]) == [0, 49]


def test_an_avi_that_was_written_to_a_pipe_promises_nothing(tmp_path):
    class Pipe:
        """Can be written to, and nothing else."""

        def __init__(self):
            self.data = bytearray()

        def write(self, data):
            self.data += data
            return len(data)

    pipe = Pipe()
    with av.open(pipe, "w", format="avi") as container:
        stream = container.add_stream("mpeg4", rate=25, options={"q": "2"})
        stream.width, stream.height, stream.pix_fmt = 128, 64, "yuv420p"
        for n in range(50):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(numbered(n), format="rgb24")))
        container.mux(stream.encode())
    path = tmp_path / "v.avi"
    path.write_bytes(pipe.data)
    assert scan(path).promised is None
    assert numbers(path, [0, 25, 49]) == [0, 25, 49]
