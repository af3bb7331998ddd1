"""Bars of progress=True, and the one form of the argument."""

import pytest

from featcache.progress import Bars, bars, reporting


def test_a_bar_of_unknown_total_moves_and_is_closed():
    with reporting(True, "fetch x", "B") as report:
        for done in (0, 100, 200):
            report(done, 0)
        assert (report.bar.n, report.bar.total, report.bar.disable) == (200, None, False)
    assert report.bar.disable


def test_a_bar_is_closed_after_an_error():
    reports = []

    def fail():
        with reporting(True, "pack x", "block") as report:
            reports.append(report)
            report(1, 2)
            raise OSError("full")

    with pytest.raises(OSError, match="full"):
        fail()
    assert reports[0].bar.disable


@pytest.mark.parametrize("progress", [True, False])
def test_work_without_a_report_shows_no_bar(progress, capsys):
    with reporting(progress, "check x", "part"):
        pass
    assert capsys.readouterr().err == ""


def test_a_callback_gets_the_reports_of_all_bars():
    counts = []
    for part in ("train", "evaluate"):
        with bars(lambda done, total: counts.append((done, total)))(part, "run") as report:
            report(1, 2)
    assert counts == [(1, 2), (1, 2)]


def test_a_command_opens_bars_of_its_own():
    opened = []

    def opens(title, unit):
        opened.append((title, unit))
        return reporting(False, title, unit)

    with bars(Bars(opens))("train", "step") as report:
        report(1, 2)
    assert opened == [("train", "step")]
