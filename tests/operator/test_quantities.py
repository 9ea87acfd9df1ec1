"""Sizes: what a claim asks for, and how they are read and shown."""

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from operator_shim.quantities import claim_size, display_size, parse_quantity

KI, MI, GI, TI = (1024**power for power in range(1, 5))


@pytest.mark.parametrize(
    ("text", "bytes_"),
    [
        (42, 42),
        ("42", 42),
        ("+1", 1),
        ("5Gi", 5 * GI),
        ("1.5Gi", 3 * GI // 2),
        (".5Gi", GI // 2),
        ("5.Gi", 5 * GI),
        ("100M", 100_000_000),
        ("1k", 1000),
        ("2E", 2 * 10**18),
        ("1Ei", 2**60),
        ("2e9", 2 * 10**9),
        ("1.5E3", 1500),
        ("1500e-1", 150),
        ("1m", 1),
        ("1001m", 2),
        ("1n", 1),
        ("0", 0),
        ("0.1", 1),
    ],
)
def test_a_quantity_is_read_as_kubernetes_does_and_rounded_up(text: str | int, bytes_: int) -> None:
    assert parse_quantity(text) == bytes_


@pytest.mark.parametrize(
    "text",
    [
        *("", " ", "Gi", "1 Gi", "1gi", "1K", "1KB", "1.2.3", "-1", -1, "1e", "1eGi", "0x10"),
        *("\u0661", "1e99", "9" * 50, "1e1000000000", "9223372036854775808", "8Ei", "NaN", "1_000"),
    ],
)
def test_what_is_no_size_is_refused(text: str | int) -> None:
    with pytest.raises(ValueError, match=r"size|volume"):
        parse_quantity(text)


@pytest.mark.parametrize(
    ("bytes_", "headroom", "size"),
    [
        (9_094_593_249, 10, "10Gi"),
        (100 * MI, 10, "1Gi"),
        (5 * GI, 10, "6Gi"),
        (5 * GI, 15, "6Gi"),
        (10 * GI, 10, "11Gi"),
        (10 * GI, 0, "10Gi"),
        (10 * GI + 1, 0, "11Gi"),
        (1, 0, "1Gi"),
        (100 * GI, 200, "300Gi"),
        (2**50, 10, "1153434Gi"),
    ],
)
def test_a_claim_has_room_for_the_model_and_the_headroom(
    bytes_: int, headroom: int, size: str
) -> None:
    assert claim_size(bytes_, headroom) == size


@given(st.integers(1, 2**50), st.integers(0, 1000))
def test_a_claim_is_never_too_small_and_never_a_gi_too_large(bytes_: int, headroom: int) -> None:
    got = parse_quantity(claim_size(bytes_, headroom))
    needed = Fraction(bytes_ * (100 + headroom), 100)
    assert got >= bytes_
    assert needed - 1 < got < max(needed, GI) + GI


@given(st.integers(0, 2**63 - 1))
def test_a_whole_number_is_read_as_it_is(bytes_: int) -> None:
    assert parse_quantity(bytes_) == parse_quantity(str(bytes_)) == bytes_


@pytest.mark.parametrize(
    ("bytes_", "shown"),
    [
        (0, "0 B"),
        (1, "1 B"),
        (1023, "1023 B"),
        (1024, "1 KiB"),
        (1536, "1.5 KiB"),
        (42 * GI, "42 GiB"),
        (3 * GI // 2, "1.5 GiB"),
        (150 * GI, "150 GiB"),
        (150 * GI + GI // 2, "151 GiB"),
        (150 * GI + GI * 2 // 5, "150 GiB"),
        (1023 * KI + KI // 2, "1 MiB"),
        (1023 * KI + KI * 2 // 5, "1023 KiB"),
        (9_094_593_249, "8.5 GiB"),
        (GI - 1, "1 GiB"),
        (1023 * MI, "1023 MiB"),
        (TI, "1 TiB"),
        (2**50, "1 PiB"),
        (2**63 - 1, "8 EiB"),
    ],
)
def test_a_size_is_shown_as_in_the_column_of_kubectl_get(bytes_: int, shown: str) -> None:
    assert display_size(bytes_) == shown


@given(st.integers(0, 2**63 - 1))
def test_what_is_shown_is_close_and_short(bytes_: int) -> None:
    number, unit = display_size(bytes_).split()
    read = float(number) * 1024 ** ("B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB").index(unit)
    assert abs(read - bytes_) <= bytes_ * 0.051
    assert len(number) <= 4
