"""What extraction holds in memory does not grow with the length of a video or with the number of its clips."""

import json
import subprocess
import sys

import pytest

from pipelines.bench.extraction import FILM_WINDOWS, REAL, write_film
from pipelines.extraction.engine import BOUND
from tests.conftest import ROOT

WINDOW = 16 * 224 * 224 * 3  #: bytes of a prepared window of i3d-rgb
LIMIT = 2 << 30

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def film(tmp_path_factory):
    path = tmp_path_factory.mktemp("film") / "film.mp4"
    write_film(path, 7200, rate=5, keyframes=10, size=(160, 120))
    return path


@pytest.mark.parametrize("segments", [FILM_WINDOWS, 1])
def test_two_hours_of_video_fit_into_two_gib(segments, film):
    """As 2,000 segments or as one clip of 2,000 windows, while a slow network makes decoding wait."""
    assert FILM_WINDOWS * WINDOW > 2 * LIMIT  # all windows at once would not fit
    code = "import sys; from pipelines.bench.extraction import *; extract_film(Path(sys.argv[1]), int(sys.argv[2]))"
    run = subprocess.run(
        [sys.executable, "-c", code, str(film), str(segments)], cwd=ROOT, capture_output=True, check=True, text=True
    )
    printed = json.loads(run.stdout)
    assert (printed["clips"], printed["windows"], printed["computed"]) == (segments, FILM_WINDOWS, REAL)
    assert 0 < printed["ahead"] <= BOUND + 20  # decoding ran ahead, and stopped
    assert printed["peak_bytes"] < LIMIT
