"""Whether Ray's head is gone: at once where its processes end here, not at one lost connection."""

from infra.cluster import head_is_alive
from infra.head_watch import Silence


def _told(patience: float, looks: list[tuple[float, bool]]) -> list[bool]:
    silence = Silence(patience)
    return [silence.lasts(has_answered=answered, now=now) for now, answered in looks]


def test_one_look_that_is_not_answered_is_not_the_end() -> None:
    looks = [(0.0, True), (5.0, False), (10.5, True), (30.0, False), (36.0, True)]
    assert _told(20.0, looks) == [False] * 5


def test_several_in_a_row_over_the_whole_patience_are_the_end() -> None:
    looks = [(0.0, False), (5.0, False), (10.0, False), (19.9, False), (20.0, False)]
    assert _told(20.0, looks) == [False, False, False, False, True]


def test_one_answer_between_begins_it_again() -> None:
    looks = [(0.0, False), (10.0, False), (15.0, True), (21.0, False), (26.0, False)]
    assert _told(20.0, looks) == [False] * 5


def test_two_late_looks_are_not_several() -> None:
    assert _told(20.0, [(0.0, False), (25.0, False), (26.0, False)]) == [False, False, True]


def test_a_process_that_ended_here_is_the_end_at_once() -> None:
    assert _told(0.0, [(0.0, True), (0.5, False)]) == [False, True]


def test_no_instance_at_all_is_none_that_lives() -> None:
    assert not head_is_alive()
