"""Plain lines where there is no terminal."""

import time

import pytest

from basics import progress as module
from basics.progress import progress, say


class Clock:
    """A clock that is set by hand."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 100.0
        monkeypatch.setattr(time, "monotonic", lambda: self.now)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    return Clock(monkeypatch)


def test_log_lines_go_to_stderr(capsys: pytest.CaptureFixture[str]) -> None:
    say("hello")
    assert capsys.readouterr() == ("", "hello\n")


def test_lines_come_seldom_and_at_the_end(clock: Clock, capsys: pytest.CaptureFixture[str]) -> None:
    with progress("work", 100, "images") as advance:
        for _ in range(100):
            clock.now += 1
            advance()
    out, err = capsys.readouterr()
    assert out == ""
    lines = err.splitlines()
    assert [line.split()[1] for line in lines] == [
        "15/100",
        "30/100",
        "45/100",
        "60/100",
        "75/100",
        "90/100",
        "100/100",
    ]
    assert module.SECONDS_BETWEEN_LINES == 15
    assert "\r" not in err
    assert "\x1b" not in err


def test_rate_and_remaining_time_ignore_what_was_there(clock: Clock, capsys: pytest.CaptureFixture[str]) -> None:
    with progress("work", 1000, "images", done=900) as advance:
        clock.now += 20
        advance(40, "3/9 shards")
    # 40 in 20 s, and 60 are left: 30 s. Counting the 900 it would say one second.
    assert capsys.readouterr().err == "work: 940/1000 images, 2.0 images/s, 30 s left 3/9 shards\n"
