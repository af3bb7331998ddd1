"""The file of a clip of `kitchens`: the canvas seen by the kitchen's camera, encoded as H.264 with AAC sound."""

import os
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np

from featcache.files import replacing
from featcache.kitchens.actions import DRAW, Stage
from featcache.kitchens.paint import SIZE, Canvas, Image
from featcache.kitchens.plan import KITCHENS, Kitchen, Shot
from featcache.kitchens.sound import sound


def render(shot: Shot, path: Path) -> None:
    """Write one clip; the file gets its name only when it is complete."""
    with replacing(path) as scratch, av.open(os.fspath(scratch), "w", format="mp4") as container:
        video = container.add_stream("libx264", rate=shot.rate)
        video.width, video.height = shot.size
        video.pix_fmt = "yuv420p"
        video.codec_context.thread_count = 1  # the bytes must not depend on the cores; clips are rendered in parallel
        video.options = {"crf": str(KITCHENS[shot.kitchen].crf), "preset": "ultrafast"}
        audio = container.add_stream("aac", rate=shot.sound_rate, layout="mono")
        audio.bit_rate = 64_000
        for picture in pictures(shot):
            planes = cv2.cvtColor(picture, cv2.COLOR_RGB2YUV_I420)  # much faster than the encoder's own conversion
            container.mux(video.encode(av.VideoFrame.from_ndarray(np.asarray(planes, np.uint8), format="yuv420p")))
        container.mux(video.encode())
        container.mux(audio.encode(_audio_frame(shot)))
        container.mux(audio.encode())


def _audio_frame(shot: Shot) -> av.AudioFrame:
    frame = av.AudioFrame.from_ndarray(sound(shot)[None], format="fltp", layout="mono")
    frame.sample_rate, frame.time_base, frame.pts = shot.sound_rate, Fraction(1, shot.sound_rate), 0
    return frame


def pictures(shot: Shot) -> Iterator[Image]:
    """Yield the pictures of a clip from the kitchen's camera, uint8 (height, width, 3) RGB."""
    stage = Stage(shot)
    draw, camera = DRAW[shot.action](stage), Camera(shot, stage.kitchen)
    for number in range(shot.frames):
        t = float(number / shot.rate)
        canvas = Canvas(stage.floor.image.copy(), stage.kitchen.fall, camera.visible)
        draw(canvas, t)
        yield camera.see(canvas.image, t)


class Camera:
    """The camera of a shot: its position, light and sensor noise."""

    def __init__(self, shot: Shot, kitchen: Kitchen) -> None:
        self.shot, self.kitchen, self.rng = shot, kitchen, shot.rng("camera")
        rng, (width, height) = self.rng, shot.size
        zoom, turn = rng.uniform(*kitchen.zoom), np.radians(rng.uniform(*kitchen.turn))
        half = np.sqrt([width / height, height / width]) * 230 / zoom  # wide and tall views show equal areas
        corners = np.array([[-1, -1], [1, -1], [1, 1], [-1, 1]]) * half
        corners[:2, 0] *= 1 + kitchen.tilt  # the far edge shows more of the worktop
        corners[2:, 0] *= 1 - kitchen.tilt
        rotation = np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
        self.corners = corners @ rotation.T + (SIZE[0] / 2 + rng.uniform(-16, 16), SIZE[1] / 2 + rng.uniform(-12, 12))
        if rng.random() < kitchen.left_handed:
            self.corners = self.corners[[1, 0, 3, 2]]
        margin = 2 * kitchen.shake + 2
        low, high = self.corners.min(0) - margin, self.corners.max(0) + margin
        (left, top), (right, bottom) = low.tolist(), high.tolist()
        self.visible = (max(int(left), 0), max(int(top), 0), min(int(right), SIZE[0]), min(int(bottom), SIZE[1]))
        self.frame = np.array([[0, 0], [width, 0], [width, height], [0, height]], np.float32)
        self.gain = self._light()
        noise = rng.standard_normal((height + 64, width + 64, 3), np.float32)
        noise += noise[..., :1]  # mostly brightness, some colour
        self.noise = np.clip(128 + kitchen.noise * noise, 0, 255).astype(np.uint8)

    def see(self, canvas: Image, t: float) -> Image:
        """Take a picture of the canvas at the time t."""
        wave = np.array([np.sin(2.3 * t + 1) + 0.5 * np.sin(6.1 * t), np.cos(1.9 * t) + 0.5 * np.sin(5.3 * t + 2)])
        view = (self.corners + self.kitchen.shake * wave).astype(np.float32)
        matrix = cv2.getPerspectiveTransform(view, self.frame)
        picture = cv2.warpPerspective(canvas, matrix, self.shot.size, borderMode=cv2.BORDER_REFLECT)
        if self.kitchen.blur:
            picture = cv2.GaussianBlur(picture, (0, 0), self.kitchen.blur)
        picture = cv2.multiply(picture, self.gain, scale=1 / 200)
        x, y = self.rng.integers(64, size=2)  # every picture uses another part of one noise field
        noise = self.noise[y : y + picture.shape[0], x : x + picture.shape[1]]
        return np.asarray(cv2.addWeighted(picture, 1, noise, 1, -128), np.uint8)

    def _light(self) -> Image:
        """The gain of every pixel, where 200 is 1: colour of the light, sun through a window, darker corners."""
        kitchen, (width, height) = self.kitchen, self.shot.size
        x, y = np.meshgrid(np.linspace(-1, 1, width), np.linspace(-1, 1, height))
        gain = 1 - kitchen.vignette * (x**2 + y**2) / 2
        at, slope = self.rng.uniform(-0.7, 0.7), self.rng.uniform(-0.5, 0.5)
        for pane in (-0.24, 0.24):
            inside = (np.abs(x + slope * y - at - pane) < 0.2) & (np.abs(np.abs(y + 0.1) - 0.34) < 0.3)
            gain += kitchen.window * cv2.GaussianBlur(inside.astype(np.float64), (0, 0), width / 60)
        gain *= self.rng.uniform(0.72, 1.06)
        colour = np.asarray(kitchen.light) / 255 * 200
        return np.clip(gain[..., None] * colour, 0, 255).astype(np.uint8)
