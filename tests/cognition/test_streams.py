"""Streams of choices: known bits, fair draws, and independence of everything but seed, unit and salt."""

from __future__ import annotations

from collections import Counter

import pytest

from onereason.cognition.streams import Stream, mix_bits


def test_bits_of_splitmix64():
    # the first three outputs of the published generator from the state 0; its state grows by the golden gamma
    gamma = 0x9E3779B97F4A7C15
    outputs = [mix_bits(step * gamma % 2**64) for step in range(3)]
    assert outputs == [0xE220A8397B1DCDAF, 0x6E789E6AA1B965F4, 0x06C45D188009454F]


def draws(*key: int) -> list[int]:
    stream = Stream(*key)
    return [stream.below(1000) for _ in range(20)]


def test_a_stream_depends_on_its_key_alone():
    assert draws(3, 5) == draws(3, 5) == draws(3, 5, 0)
    assert len({tuple(draws(*key)) for key in ((3, 5), (5, 3), (3, 6), (4, 5), (3, 5, 1), (3, 5, 2))}) == 6
    assert draws(2**63 - 1, 10**9) != draws(2**63 - 2, 10**9)


def test_first_draws_over_units_are_even():
    counts = Counter(Stream(0, unit).below(10) for unit in range(20_000))
    assert set(counts) == set(range(10))
    assert all(1_800 < count < 2_200 for count in counts.values())  # 2000, standard deviation 42


def test_draws_of_a_stream_are_even():
    stream = Stream(1, 1)
    assert all(1_800 < count < 2_200 for count in Counter(stream.below(10) for _ in range(20_000)).values())
    assert {stream.between(3, 5) for _ in range(100)} == {3, 4, 5}
    assert 5_700 < sum(stream.chance(0.3) for _ in range(20_000)) < 6_300  # 6000, standard deviation 65
    assert not any(stream.chance(0.0) for _ in range(1000)) and all(stream.chance(1.0) for _ in range(1000))
    assert {stream.pick("abc") for _ in range(100)} == set("abc")


def test_every_order_is_as_likely():
    counts: Counter[tuple[int, ...]] = Counter()
    for unit in range(12_000):
        values = [0, 1, 2]
        Stream(0, unit).shuffle(values)
        counts[tuple(values)] += 1
    assert len(counts) == 6 and all(1_850 < count < 2_150 for count in counts.values())  # 2000, deviation 41


@pytest.mark.parametrize(("n", "k"), [(5, 5), (6, 3), (100, 4), (1, 1), (3, 0)])
def test_samples_hold_different_numbers(n, k):
    seen: set[int] = set()
    for unit in range(400):
        found = Stream(0, unit).sample(n, k)
        assert len(found) == len(set(found)) == k and all(0 <= number < n for number in found)
        seen.update(found)
    assert seen == (set(range(n)) if k else set())
    with pytest.raises(ValueError, match="cannot take"):
        Stream(0, 0).sample(n, n + 1)
