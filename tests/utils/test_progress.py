import pytest

from tinv.utils import progress as module
from tinv.utils.progress import PartsProgress, progress


def test_a_log_file_gets_a_line_when_the_pause_is_over(monkeypatch, capsys):
    clock = iter([0.0, 10.0, 60.0, 60.0, 80.0])  # start; first item; second, and when it was said; third
    monkeypatch.setattr(module.time, "monotonic", lambda: next(clock))
    assert list(progress("abc", "reading", 3)) == ["a", "b", "c"]
    assert capsys.readouterr().err == "reading: 1 of 3\n"


def test_no_bar_is_drawn_into_what_is_no_terminal_though_colors_are_forced(monkeypatch, capsys):
    monkeypatch.setenv("FORCE_COLOR", "1")  # as the kernel of a notebook does for commands
    assert list(progress("abc", "reading", 3)) == ["a", "b", "c"]
    assert capsys.readouterr() == ("", "")


def test_short_work_is_silent_in_a_log_file(capsys):
    assert list(progress(range(1000), "reading", 1000)) == list(range(1000))
    assert capsys.readouterr() == ("", "")


@pytest.fixture
def clock(monkeypatch):
    """The seconds that have passed, as a list of one number."""
    now = [0.0]
    monkeypatch.setattr(module.time, "monotonic", lambda: now[0])
    return now


def test_a_log_file_hears_of_the_time_left_of_all_parts(clock, capsys):
    with PartsProgress({"measuring": 30, "gallery": 10}) as work:
        clock[0] = 30
        work.at("measuring", 0.5)  # too early
        clock[0] = 120
        work.at("gallery", 0.0)
    # 30 of 40 took two minutes
    assert capsys.readouterr().err == "gallery: 75% of all, about 1 min left\n"


def test_nothing_is_said_of_time_where_a_cost_is_not_known(clock, capsys):
    with PartsProgress({"measuring": None, "gallery": 10}) as work:
        clock[0] = 61
        work.at("gallery", 0.5)
    assert capsys.readouterr().err == "gallery\n"


def test_a_terminal_gets_one_bar_for_all_parts(monkeypatch):
    monkeypatch.setattr(module, "at_terminal", lambda: True)
    with PartsProgress({"measuring": 30, "gallery": 10}) as work:
        work.at("gallery", 0.5)
        assert [(task.description, task.completed, task.total) for task in work.bar.tasks] == [("gallery", 35, 40)]
