from tinv.utils import progress as module
from tinv.utils.progress import progress


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
