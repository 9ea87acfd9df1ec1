"""How connections are shared out, and when failure after failure is the end."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aim_downloader.errors import AllProtocolsFailedError
from aim_downloader.fetching import Failures, share
from aim_downloader.progress import Traffic

HOPELESS = 8


@pytest.mark.parametrize(
    ("connections", "small", "large", "shares"),
    [
        (16, True, True, (4, 12)),
        (16, True, False, (16, 0)),
        (16, False, True, (0, 16)),
        (256, True, True, (64, 192)),
        (8, True, True, (2, 6)),
        (4, True, True, (1, 3)),
        (3, True, True, (1, 2)),
        (2, True, True, (1, 1)),
        (2, True, False, (2, 0)),
        # Both want the only one: they take turns.
        (1, True, True, (1, 1)),
        (1, True, False, (1, 0)),
        (1, False, True, (0, 1)),
    ],
)
def test_share(connections: int, small: bool, large: bool, shares: tuple[int, int]) -> None:
    assert share(connections, small, large) == shares


@given(st.integers(2, 256), st.booleans(), st.booleans())
def test_shares_never_exceed_the_connections(connections: int, small: bool, large: bool) -> None:
    for_small, for_large = share(connections, small, large)
    assert for_small + for_large == connections
    assert for_small > 0 or not small
    assert for_large > 0 or not large


# -- failures --------------------------------------------------------------------------------------


def failed(number: int) -> AllProtocolsFailedError:
    return AllProtocolsFailedError(f"file-{number}", [])


def test_where_nothing_failed_there_is_nothing_to_tell() -> None:
    Failures(Traffic()).tell()


def test_of_several_failures_the_first_is_told() -> None:
    failures = Failures(Traffic())
    for number in range(3):
        failures.add(failed(number))
    with pytest.raises(AllProtocolsFailedError, match="file-0"):
        failures.tell()


def test_so_many_in_a_row_without_a_byte_are_the_end() -> None:
    failures = Failures(Traffic())
    for number in range(HOPELESS - 1):
        failures.add(failed(number))
    with pytest.raises(AllProtocolsFailedError, match="file-0"):
        failures.add(failed(HOPELESS - 1))


def test_bytes_that_came_before_the_first_failure_are_no_hope() -> None:
    traffic = Traffic()
    traffic.add(1_000_000)
    failures = Failures(traffic)
    for number in range(HOPELESS - 1):
        failures.add(failed(number))
    with pytest.raises(AllProtocolsFailedError):
        failures.add(failed(HOPELESS - 1))


@pytest.mark.parametrize("before", range(1, HOPELESS))
def test_one_byte_between_two_failures_is_hope(before: int) -> None:
    traffic = Traffic()
    failures = Failures(traffic)
    for number in range(before):
        failures.add(failed(number))
    traffic.add(1)
    for number in range(HOPELESS - 1):
        failures.add(failed(before + number))
    with pytest.raises(AllProtocolsFailedError):
        failures.add(failed(99))


def test_while_bytes_come_any_number_may_fail() -> None:
    traffic = Traffic()
    failures = Failures(traffic)
    for number in range(5 * HOPELESS):
        traffic.add(1)
        failures.add(failed(number))
    with pytest.raises(AllProtocolsFailedError, match="file-0"):
        failures.tell()
