"""Groups come whole out of a stream of batches, however it is cut."""

import itertools
import random

import pyarrow as pa
import pytest

from pipelines.arrow_groups import clustered, whole_groups


def _batches(keys: str, *cuts: int) -> list[pa.RecordBatch]:
    whole = pa.record_batch({"key": list(keys), "place": list(range(len(keys)))})
    edges = [0, *cuts, len(keys)]
    return [whole.slice(a, b - a) for a, b in itertools.pairwise(edges)]


def _groups(batches: list[pa.RecordBatch]) -> list[str]:
    return ["".join(table["key"].to_pylist()) for table in whole_groups(batches, key="key")]


@pytest.mark.parametrize(
    ("keys", "cuts", "expected"),
    [
        ("aabbb", (), ["aa", "bbb"]),
        ("aabbb", (1,), ["aa", "bbb"]),
        ("aabbb", (2,), ["aa", "bbb"]),
        ("aabbb", (3, 4), ["aa", "bbb"]),
        ("aaaa", (1, 2, 3), ["aaaa"]),
        ("abc", (1, 2), ["a", "b", "c"]),
        ("abcc", (3, 3), ["ab", "cc"]),
        ("", (), []),
    ],
)
def test_no_group_is_cut_in_two(keys: str, cuts: tuple[int, ...], expected: list[str]) -> None:
    assert _groups(_batches(keys, *cuts)) == expected


def test_every_row_comes_once_and_in_order() -> None:
    chance = random.Random(4)
    keys = "".join(letter * chance.randint(1, 6) for letter in "abcdefghij")
    for _ in range(50):
        cuts = sorted(chance.sample(range(len(keys)), chance.randint(0, 6)))
        tables = list(whole_groups(_batches(keys, *cuts), key="key"))
        assert [n for table in tables for n in table["place"].to_pylist()] == list(range(len(keys)))
        ends = [(table["key"][0].as_py(), table["key"][-1].as_py()) for table in tables]
        assert all(end < start for (_, end), (start, _) in itertools.pairwise(ends))


def _clustered(keys: str, hashes: list[int]) -> pa.Table:
    rows = pa.table({"key": list(keys), "hash": hashes, "place": list(range(len(keys)))})
    return clustered(rows, key="key", hashed="hash")


def test_rows_of_keys_with_hashes_of_their_own_stay_as_they_are() -> None:
    assert _clustered("bbac", [1, 1, 5, 9]).to_pydict() == {
        "key": ["b", "b", "a", "c"],
        "place": [0, 1, 2, 3],
    }


def test_two_keys_of_one_hash_are_told_apart() -> None:
    found = _clustered("abacc", [3, 3, 3, 7, 7])
    assert "".join(found["key"].to_pylist()) == "aabcc"
    assert sorted(found["place"].to_pylist()) == [0, 1, 2, 3, 4]
