"""One source of a manifest: its pictures and its sound on one clock, or the reason why they are missing."""

from dataclasses import dataclass
from pathlib import Path

from featcache.endings import VIDEO
from featcache.errors import FeatcacheError, MediaAbsentError, MediaError
from featcache.files import near, regular
from featcache.manifest import Clip
from featcache.media import images, stored_flow, video
from featcache.media.container import AudioTrack, Scan, VideoTrack, scan
from featcache.media.reel import EPSILON, Reel
from featcache.naming import spellings


@dataclass(frozen=True, eq=False)
class Source:
    """Pictures and sound of a source; a missing one is replaced by the error that explains why."""

    path: Path
    reel: Reel | MediaError | MediaAbsentError
    audio: AudioTrack | MediaError | MediaAbsentError
    scan: Scan | None  #: None for images
    only_flow: Reel | None = None  #: the pictures of flow of a folder without frames

    @property
    def pictures(self) -> Reel | None:
        """The pictures that bounds in frames are counted in: those of the source, or else its pictures of flow."""
        return self.reel if isinstance(self.reel, Reel) else self.only_flow

    def flow(self) -> Reel:
        """Return the stored pictures of flow: of the folder, or of the folder of the same name next to a video."""
        if self.only_flow:
            return self.only_flow
        if not isinstance(self.reel, Reel):
            raise self.reel
        return stored_flow.reel(self.path if self.path.is_dir() else self.path.with_suffix(""), None, self.reel)

    @property
    def stop(self) -> float:
        """The second at which the source ends: the end of its pictures, or else of its sound."""
        if self.pictures:
            return self.pictures.stop
        assert isinstance(self.audio, AudioTrack)  # open_source refuses all others
        return self.audio.stop

    def interval(self, clip: Clip) -> tuple[float, float]:
        """Return the clip's [start, stop) in seconds. A stop beyond the end is cut; a start there is an error."""
        start, stop = (self._seconds(bound, clip.unit) for bound in (clip.start or 0.0, clip.stop))
        end = self.stop
        if stop is None or stop > end + EPSILON:
            if self.scan and self.scan.promised:
                raise MediaError(
                    f"{self.path} stops at {end:.2f} s but its header announces {self.scan.promised:.2f} s; "
                    "copy or download it again"
                )
            stop = end
        if start is None or start >= end - EPSILON:
            raise MediaError(
                f"{self.path} lasts {self._length()}, but the clip starts at {clip.start or 0:g} {clip.unit}; "
                "correct start and stop"
            )
        return start, stop

    def _seconds(self, bound: float | None, unit: str) -> float | None:
        """Return a bound in seconds, or None for one beyond the source's end."""
        if bound is None or unit == "seconds":
            return bound
        if not self.pictures:
            raise MediaError(f"{self.path} has no pictures, so bounds cannot be in frames; use start_seconds")
        times = self.pictures.times
        if bound < len(times):
            return float(times[int(bound)])
        return self.pictures.stop if bound == len(times) else None

    def _length(self) -> str:
        frames = f" ({len(self.pictures.times)} frames)" if self.pictures else ""
        return f"{self.stop:.2f} s{frames}"


def open_source(path: Path, fps: float | None = None) -> Source:
    """Open a file or folder without decoding it; MediaError if it is not a source. `fps` is for folders."""
    check_exists(path)
    if path.is_dir():
        return _folder(path, fps)
    if images.is_image(path):
        return Source(path, images.still(path), MediaAbsentError(f"{path} is an image: no sound"), None)
    scanned = scan(path)
    if not scanned.video and not scanned.audio:
        raise MediaError(f"{path} has neither a video nor an audio stream; replace it")
    for fault, other in ((scanned.video, scanned.audio), (scanned.audio, scanned.video)):
        if isinstance(fault, MediaError) and (other is None or isinstance(other, MediaError)):
            raise fault
    reel: Reel | MediaError | MediaAbsentError
    if isinstance(scanned.video, VideoTrack):
        reel = video.reel(scanned, scanned.video)
    elif scanned.video:
        reel = scanned.video
    elif path.suffix.lower() in VIDEO:  # a name that promises pictures
        reel = MediaError(f"{path} has no video stream, only sound; replace it or name it as a sound file")
    else:
        reel = MediaAbsentError(f"{path} is a sound file: no pictures")
    source = Source(path, reel, scanned.audio or MediaAbsentError(f"{path} has no audio track"), scanned)
    if source.stop < EPSILON:
        raise MediaError(f"{path} lasts {source.stop:.2f} s: there is nothing to see or hear; replace it")
    return source


def _folder(path: Path, fps: float | None) -> Source:
    silent, parts = MediaAbsentError(f"{path} is a folder of frames: no sound"), stored_flow.parts(path)
    if parts.frames or not (parts.right or parts.down):
        return Source(path, images.folder(path, parts.frames, fps), silent, None)
    no_frames = MediaAbsentError(
        f"{path} holds pictures of flow and no frames; extractors of flow read them with {stored_flow.SETTING}"
    )
    return Source(path, no_frames, silent, None, stored_flow.reel(path, fps))


def check_exists(path: Path) -> None:
    """Raise MediaError if the path does not exist, or is a pipe or device."""
    if not path.exists():
        hint = near(path) or "; relative sources start at the manifest's folder"
        raise MediaError(f"{path} does not exist{hint}")
    regular(path, MediaError, or_folder=True)


def reported(path: Path, error: Exception) -> FeatcacheError:
    """Turn an error into a reason to record; an expected error keeps its text, to which the file's name is added."""
    if isinstance(error, FeatcacheError):
        named = isinstance(error, MediaAbsentError) or any(text in str(error) for text in spellings(path))
        return error if named else type(error)(f"{path}: {error}")
    return MediaError(f"{path}: unexpected {type(error).__name__}: {' '.join(str(error).split())}; please report it")


@dataclass(frozen=True)
class SourceInfo:
    """The properties of a source. `frames`, `fps`, `width` and `height` are 0 if it has no pictures."""

    kind: str  #: video | sound | image | folder
    duration: float  #: seconds
    frames: int
    fps: float  #: mean over the source, 0 for a still image
    width: int  #: as shown, after rotation
    height: int
    has_audio: bool
    audio_rate: int = 0  #: samples per second
    audio_channels: int = 0


def probe(path: Path, fps: float | None = None) -> SourceInfo:
    """Describe a source; MediaError if it is not a source, or if its first picture cannot be decoded.

    `fps` is for folders of frames.
    """
    try:
        return _probe(path, fps)
    except FeatcacheError:
        raise
    except Exception as error:
        raise reported(path, error) from error


def _probe(path: Path, fps: float | None) -> SourceInfo:
    source = open_source(path, fps)
    if isinstance(source.reel, MediaError):
        raise source.reel
    kind = "folder" if path.is_dir() else "image" if source.scan is None else "video"
    frames, rate, height, width = 0, 0.0, 0, 0
    if source.pictures:
        frames = len(source.pictures.times)
        rate = 0.0 if kind == "image" else frames / source.stop
        _, picture = next(iter(source.pictures.decode([0])))
        height, width, _ = picture.shape
    else:
        kind = "sound"
    audio = source.audio if isinstance(source.audio, AudioTrack) else None
    return SourceInfo(
        kind=kind,
        duration=source.stop,
        frames=frames,
        fps=rate,
        width=width,
        height=height,
        has_audio=audio is not None,
        audio_rate=audio.rate if audio else 0,
        audio_channels=audio.channels if audio else 0,
    )
