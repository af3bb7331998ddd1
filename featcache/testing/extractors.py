"""The contract of an extractor file, as a class of tests."""

import dataclasses
import inspect
import json
import threading
from pathlib import Path
from types import ModuleType
from typing import Any, ClassVar

import numpy as np
import pytest
from numpy.typing import NDArray

from featcache.errors import ConfigError
from featcache.extractors import UNTRAINED, Extractor, Runtime
from featcache.kitchens.film import render
from featcache.kitchens.plan import shots
from featcache.manifest import Clip
from featcache.media import Take, read_clip
from featcache.media.skeleton import Skeleton
from featcache.windows import WHOLE, Flow, Joints, Numbers, Pictures, Plan, Sound, Window

MANY = 33  #: windows of a large batch: one more than the blocks in which libraries multiply
OUTSIDE = (0, -1, float("nan"), float("inf"), -float("inf"))  #: numbers that few parameters allow


def raw_window(window: Window, seed: int) -> Any:
    """Make a window as a decoder returns it: texture, flow, a tone with noise, a sentence, bodies or numbers."""
    rng = np.random.default_rng(seed)
    if isinstance(window, Flow):
        coarse = rng.normal(0, 3, (window.count, 8, 8, 2)).astype(np.float32)
        return list(coarse.repeat(window.crop // 8, 1).repeat(window.crop // 8, 2))
    if isinstance(window, Pictures) and window.crop:
        texture = rng.integers(0, 256, (window.count, 8, 8, 3), dtype=np.uint8)
        return list(texture.repeat(window.crop // 8, 1).repeat(window.crop // 8, 2))
    if isinstance(window, Joints):
        return Skeleton(rng.normal((0, 0, 3), 0.3, (2, 60, 25, 3)).astype(np.float32), 30.0)
    if isinstance(window, Numbers):
        return rng.normal(0, 1, (1, 6))
    if isinstance(window, Pictures):
        strip = rng.integers(0, 256, (9, 14 + window.count, 3), dtype=np.uint8).repeat(8, 0).repeat(8, 1)
        return [np.ascontiguousarray(strip[:, 3 * k : 3 * k + 96]) for k in range(window.count)]
    if isinstance(window, Sound):
        times = np.arange(round(window.seconds * window.rate)) / window.rate
        sound = 0.3 * np.sin(2 * np.pi * rng.uniform(100, 3000) * times) + rng.normal(0, 0.05, len(times))
        return sound.astype(np.float32)
    return f"someone cuts the {rng.choice(['bread', 'carrot', 'onion'])} number {seed}"


def is_network(extractor: Extractor) -> bool:
    """Return whether rows come from a network: a call takes a second, and its untrained weights fix no scale."""
    return extractor.weights_sha256 != "none"


class ExtractorTests:
    """The contract of an extractor: a file with `Params` and `EXTRACTOR`.

    A network runs with untrained weights; choose `params` with which it is quick.
    """

    module: ClassVar[ModuleType]  #: the file under test, with `Params` and `EXTRACTOR`
    params: ClassVar[Any] = None  #: its parameters in the tests; None: the defaults

    @classmethod
    def build(cls) -> Extractor:
        """Make the extractor, ready to be called. Override this for one that needs more than `module` and `params`."""
        params = cls.module.Params() if cls.params is None else cls.params
        extractor: Extractor = cls.module.EXTRACTOR(params).ready(Runtime(UNTRAINED))
        return extractor

    @classmethod
    def raw_window(cls, window: Window, seed: int) -> Any:
        """Make a window as a decoder returns it. Override this for tables or bodies of another shape."""
        return raw_window(window, seed)

    @classmethod
    def prepare(cls, extractor: Extractor, seed: int) -> NDArray[Any]:
        """Prepare the window of this seed."""
        return extractor.prepare(cls.raw_window(extractor.window, seed))

    @pytest.fixture(scope="class")
    @classmethod
    def extractor(cls) -> Extractor:
        """The extractor of all tests."""
        return cls.build()

    @pytest.fixture(scope="class")
    @classmethod
    def prepared(cls, extractor: Extractor) -> NDArray[Any]:
        """Prepared windows of the seeds 0, 1, ...: two for a network, else seven."""
        return np.stack([cls.prepare(extractor, seed) for seed in range(2 if is_network(extractor) else 7)])

    @pytest.fixture(scope="class")
    @classmethod
    def rows(cls, extractor: Extractor, prepared: NDArray[Any]) -> NDArray[Any]:
        """Rows of the prepared windows."""
        return extractor(prepared)

    @pytest.fixture(scope="class")
    @classmethod
    def film(cls, tmp_path_factory: pytest.TempPathFactory) -> Path:
        """A video of two seconds with sound."""
        path = tmp_path_factory.mktemp("film") / "film.mp4"
        render(shots(0)[0], path)
        return path

    @pytest.fixture
    def one_by_one(self, extractor: Extractor, monkeypatch: pytest.MonkeyPatch) -> None:
        """A forward pass of a network takes one window instead of several."""
        monkeypatch.setattr(extractor, "size", 1, raising=False)

    def check_works(self, other: Extractor, network: bool) -> None:
        """Check that rows are finite with other parameters. A network only prepares: they are about its windows."""
        window = self.prepare(other, 0)
        if not network:
            row = other(window[None])
            assert row.shape == (1, *other.row_shape)
            assert np.isfinite(row).all(), f"rows are not finite with {other.params}"

    def test_name_is_that_of_the_file(self, extractor: Extractor) -> None:
        """The file `mean_colour.py` holds the extractor `mean-colour`."""
        file = type(extractor).__module__.rpartition(".")[2]
        assert extractor.name == file.replace("_", "-"), f"the file {file}.py holds the extractor {extractor.name!r}"
        assert extractor.modality
        assert isinstance(extractor.window, (Pictures, Sound, *WHOLE)), "`window` is of no kind in featcache.windows"

    def test_rows_are_finite_float32_of_the_promised_shape(
        self, extractor: Extractor, prepared: NDArray[Any], rows: NDArray[Any]
    ) -> None:
        """Rows are float32 (n, *row_shape), without NaN or infinity."""
        assert rows.shape == (len(prepared), *extractor.row_shape)
        assert rows.dtype == np.float32
        assert np.isfinite(rows).all()

    def test_rows_are_of_order_one_and_tell_windows_apart(self, extractor: Extractor, rows: NDArray[Any]) -> None:
        """Heads train on rows as they are. The bounds are wide for a network without its training."""
        assert 0.01 < np.abs(rows).mean() < (500 if is_network(extractor) else 5)
        assert np.abs(rows).max() < (5000 if is_network(extractor) else 50)
        assert np.abs(rows[0] - rows[1]).max() > 1e-3, "two different windows have the same row"

    def test_rows_do_not_depend_on_the_batch(
        self, extractor: Extractor, prepared: NDArray[Any], rows: NDArray[Any]
    ) -> None:
        """A row is equal to the bit in a batch of another size, with other windows and in another place."""
        order = [1, 1] if is_network(extractor) else [*range(len(prepared))][::-1]
        np.testing.assert_array_equal(extractor(prepared[order]), rows[order], "a row depends on its batch")
        if not is_network(extractor):
            alone = np.concatenate([extractor(prepared[k : k + 1]) for k in range(len(prepared))])
            np.testing.assert_array_equal(rows, alone, "a row differs in a batch of one")
            many = [k % len(prepared) for k in range(MANY)]
            np.testing.assert_array_equal(extractor(prepared[many]), rows[many], f"a row differs in a batch of {MANY}")

    def test_the_same_window_gives_the_same_row_again(self, extractor: Extractor) -> None:
        """Neither `prepare` nor a call keeps state or draws random numbers."""
        first, second = (self.prepare(extractor, 3) for _ in range(2))
        np.testing.assert_array_equal(first, second)
        if not is_network(extractor):  # for which the test of batches calls it twice
            np.testing.assert_array_equal(extractor(first[None]), extractor(second[None]))

    def test_an_extractor_does_not_change_its_window(self, extractor: Extractor) -> None:
        """Windows are shared between extractors."""
        window, untouched = (self.raw_window(extractor.window, 4) for _ in range(2))
        prepared = extractor.prepare(window)[None]
        if not is_network(extractor):
            extractor(prepared)
        if isinstance(window, Skeleton):
            window, untouched = window.joints, untouched.joints
        np.testing.assert_array_equal(window, untouched)

    def test_prepare_is_reentrant(self, extractor: Extractor, prepared: NDArray[Any]) -> None:
        """Two threads that prepare at the same time get the same as one."""
        results: list[Any] = [None] * len(prepared)

        def work(first: int) -> None:
            for k in range(first, len(prepared), 2):
                results[k] = self.prepare(extractor, k)

        threads = [threading.Thread(target=work, args=(first,)) for first in (0, 1)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        np.testing.assert_array_equal(results, prepared)

    def test_prepared_windows_stack_whatever_the_size_of_the_pictures(self, extractor: Extractor) -> None:
        """Pictures of any size, one pixel included, become arrays of one shape."""
        if not isinstance(extractor.window, Pictures) or extractor.window.crop:
            pytest.skip("takes no pictures, or all of its pictures are cropped to one size before")
        shapes = [(96, 256), (128, 192), (480, 1280), (2, 4), (26, 800)]
        pictures = [np.full((*shape, 3), 220, np.uint8) for shape in shapes]
        windows = [extractor.prepare([picture] * extractor.window.count) for picture in pictures]
        assert np.isfinite(extractor(np.stack(windows))).all()

    def test_silence_and_black_are_finite(self, extractor: Extractor, one_by_one: None) -> None:
        """A window of zeros has a finite row."""
        window: Any
        if isinstance(extractor.window, WHOLE):
            pytest.skip("takes neither sound nor pictures")
        if isinstance(extractor.window, Flow):
            window = [np.zeros((224, 224, 2), np.float32)] * extractor.window.count
        elif isinstance(extractor.window, Pictures):
            shape = (extractor.window.crop,) * 2 if extractor.window.crop else (48, 64)
            window = [np.zeros((*shape, 3), np.uint8)] * extractor.window.count
        else:
            window = np.zeros(round(extractor.window.seconds * extractor.window.rate), np.float32)
        assert np.isfinite(extractor(extractor.prepare(window)[None])).all()

    def test_the_recipe_is_json_and_names_every_parameter(self, extractor: Extractor) -> None:
        """Two recipes can be compared as text, and a changed parameter changes the recipe."""
        recipe = json.loads(json.dumps(extractor.recipe))
        assert recipe["extractor"] == extractor.name
        params = dataclasses.fields(extractor.params)
        later = {field.name for field in params if "later" in field.metadata}
        assert set(recipe["params"]) | later == {field.name for field in params}
        assert recipe["window"]["kind"] == type(extractor.window).__name__.lower()

    def test_facts_are_text_that_no_recipe_has(self, extractor: Extractor) -> None:
        """Facts name the licence; what is in the recipe is not repeated in them."""
        facts = json.loads(json.dumps(extractor.facts))
        assert facts["licence"]
        assert all(isinstance(fact, str) for fact in facts.values())
        assert not set(facts) & set(extractor.recipe)

    def test_parameters_are_frozen_and_documented(self, extractor: Extractor) -> None:
        """`Params` is a frozen dataclass, and each of its fields has a comment on its line."""
        params = type(extractor.params)
        assert params.__dataclass_params__.frozen, "Params is not frozen; write @dataclass(frozen=True)"
        lines = [line for kind in params.__mro__[:-1] for line in inspect.getsource(kind).splitlines()]
        for field in dataclasses.fields(params):
            line = next(line for line in lines if line.strip().startswith(f"{field.name}:"))
            assert "#: " in line, f"{extractor.name}.Params.{field.name} has no comment; describe it after #:"

    @pytest.mark.parametrize("value", OUTSIDE)
    def test_a_number_is_refused_by_name_or_works(self, extractor: Extractor, value: float) -> None:
        """Every number gives finite rows or a ConfigError: no crash and no warning."""
        params = extractor.params
        for field in dataclasses.fields(params):
            if type(getattr(params, field.name)) not in (int, float):
                continue
            try:
                other = type(extractor)(dataclasses.replace(params, **{field.name: value}))
            except ConfigError as error:
                message = str(error)
            else:
                self.check_works(other, is_network(extractor))
                continue
            assert f"{extractor.name}.{field.name} is {value:g}; allowed: " in message

    def test_every_number_has_bounds_and_works_at_them_or_is_refused(self, extractor: Extractor) -> None:
        """Numbers are declared with `bounded`, and the least one works unless it does not fit another parameter."""
        params = extractor.params
        for field in dataclasses.fields(params):
            default = getattr(params, field.name)
            if type(default) not in (int, float):
                continue
            name = f"{extractor.name}.{field.name}"
            assert field.metadata.keys() >= {"low", "high"}, f"{name} has no bounds; declare it with bounded(...)"
            low, high = field.metadata["low"], field.metadata["high"]
            assert low <= default <= high, name
            for edge in (low, high):
                try:
                    other = type(extractor)(dataclasses.replace(params, **{field.name: type(default)(edge)}))
                except ConfigError:
                    continue  # another parameter does not fit it
                if edge == low:  # the high ones may need much memory
                    self.check_works(other, is_network(extractor))

    def test_a_whole_number_is_not_a_fraction(self, extractor: Extractor) -> None:
        """A parameter with a whole default refuses fractions."""
        for field in dataclasses.fields(extractor.params):
            if isinstance(field.default, int) and not isinstance(field.default, bool):
                with pytest.raises(ConfigError, match=rf"{field.name} is .*\.5; allowed: whole numbers from"):
                    type(extractor)(dataclasses.replace(extractor.params, **{field.name: field.default + 0.5}))

    def test_a_real_file_goes_all_the_way(self, extractor: Extractor, one_by_one: None, film: Path) -> None:
        """Windows of a video, its sound or its caption are read, prepared and become finite rows."""
        if isinstance(extractor.window, Joints | Numbers):
            pytest.skip("takes no video: test it on a file of its own")
        clip, plan = Clip("c", "d", "train", film.name, caption="someone counts"), Plan("segments", 3)
        taken = read_clip(film, clip, plan, [extractor])[extractor.name]
        assert isinstance(taken, Take), f"the video was not read: {taken}"
        assert len(taken.windows) == (1 if isinstance(extractor.window, WHOLE) else 3)
        assert np.isfinite(extractor(taken.windows[:1])).all()
