"""Signals are noted, not obeyed, until the second SIGINT."""

from __future__ import annotations

import os
import signal
import threading

import pytest

from glassgpt.training.interrupt import Interrupt

SIGINT, SIGTERM = signal.SIGINT, signal.SIGTERM


def send(number: int) -> None:
    os.kill(os.getpid(), number)


@pytest.mark.parametrize("number", [SIGINT, SIGTERM])
def test_the_first_signal_is_noted(number: int) -> None:
    with Interrupt() as interrupt:
        assert interrupt.signal is None
        send(number)
        assert interrupt.signal == number


@pytest.mark.parametrize("first", [SIGINT, SIGTERM])
def test_a_sigint_after_another_signal_stops_at_once(first: int) -> None:
    with pytest.raises(KeyboardInterrupt), Interrupt():
        send(first)
        send(SIGINT)


def test_the_signal_is_noted_before_anything_is_done_about_it() -> None:
    """What is done may take long, or fail."""
    seen = []
    with Interrupt(lambda: seen.append(interrupt.signal)) as interrupt:
        send(SIGTERM)
    assert seen == [SIGTERM]


def test_a_second_sigterm_is_patient() -> None:
    with Interrupt() as interrupt:
        send(SIGTERM)
        send(SIGTERM)
    assert interrupt.signal == SIGTERM


def test_the_handlers_before_are_put_back() -> None:
    seen = []
    before = signal.signal(SIGTERM, lambda number, frame: seen.append(number))
    try:
        with pytest.raises(ValueError, match="inside"), Interrupt():
            send(SIGTERM)
            raise ValueError("inside")
        assert seen == []
        send(SIGTERM)
        assert seen == [SIGTERM]
    finally:
        signal.signal(SIGTERM, before)
    assert signal.getsignal(SIGINT) is signal.default_int_handler


def test_outside_the_main_thread_nothing_is_caught() -> None:
    found = []

    def work() -> None:
        with Interrupt() as interrupt:
            found.append((interrupt.signal, signal.getsignal(SIGINT)))

    before = signal.getsignal(SIGINT)
    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert found == [(None, before)]
