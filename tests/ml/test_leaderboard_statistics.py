"""Holm's correction, intervals over users and seeds, and the hash of a recipe's modules."""

from pathlib import Path

import numpy as np
import pytest

from ml.bootstrap import entropy_difference_interval
from ml.ranking.leaderboard.holm import holm
from ml.ranking.leaderboard.intervals import (
    Judged,
    closed_fraction,
    entropy,
    entropy_difference,
)
from ml.ranking.leaderboard.modules import imported_modules, modules_hash

# Two users with one positive and one negative each: any draw of users has the same rates.
ROWS = Judged(users=np.array([1, 1, 2, 2]), labels=np.array([1, 0, 1, 0]))
GOOD = np.array([0.8, 0.2, 0.8, 0.2])
NONE = np.full(4, 0.5)
GOOD_NE = 0.321928  # ln(1 / 0.8) / ln 2


def test_holm_by_hand() -> None:
    # Sorted: .005 x 4, .01 x 3, .03 x 2, then .04 x 1 = .04, not below the .06 before it.
    adjusted = holm({"a": 0.01, "b": 0.04, "c": 0.03, "d": 0.005})
    assert adjusted == pytest.approx({"d": 0.02, "a": 0.03, "c": 0.06, "b": 0.06})
    assert holm({"a": 0.9, "b": 0.8}) == {"b": 1.0, "a": 1.0}
    assert holm({}) == {}
    with pytest.raises(ValueError, match=r"p-value of .a. is 1\.5"):
        holm({"a": 1.5})


def test_the_entropy_over_seeds_is_the_mean_and_its_interval_covers_the_seeds() -> None:
    one = entropy(ROWS, ROWS.losses([GOOD]))
    assert [one.value, one.low, one.high] == pytest.approx([GOOD_NE] * 3, abs=1e-6)
    two = entropy(ROWS, ROWS.losses([GOOD, NONE]))
    expected = [(GOOD_NE + 1) / 2, GOOD_NE, 1.0]  # a quarter of the draws has one seed twice
    assert [two.value, two.low, two.high] == pytest.approx(expected, abs=1e-6)


def test_a_difference_is_paired_by_user_and_zero_of_a_model_with_itself() -> None:
    same = entropy_difference(ROWS, ROWS.losses([GOOD]), ROWS.losses([GOOD]))
    assert (same.value, same.low, same.high, same.p) == (0.0, 0.0, 0.0, 1.0)
    better = entropy_difference(ROWS, ROWS.losses([GOOD]), ROWS.losses([NONE]))
    assert better.value == pytest.approx(GOOD_NE - 1, abs=1e-6)
    assert better.high < 0 and better.p < 1e-6


def test_one_seed_gives_the_interval_of_the_bootstrap_over_users() -> None:
    rng = np.random.default_rng(0)
    users = np.repeat(np.arange(150), 8)
    rate = rng.random(1200)
    labels = (rng.random(1200) < rate).astype(int)
    other = np.clip(rate + rng.normal(0, 0.2, 1200), 0.02, 0.98)
    rows = Judged(users=users, labels=labels)
    ours = entropy_difference(rows, rows.losses([rate]), rows.losses([other]))
    known = entropy_difference_interval(users, labels, rate, other)
    assert ours.value == pytest.approx(known.estimate)
    width = known.high - known.low
    assert [ours.low, ours.high] == pytest.approx([known.low, known.high], abs=0.1 * width)


def test_p_of_no_difference_is_even_and_of_a_real_one_small() -> None:
    rng = np.random.default_rng(1)
    users, labels = np.arange(400), rng.integers(0, 2, 400)
    rows = Judged(users=users, labels=labels)
    noise = [0.5 + rng.normal(0, 0.05, 400) for _ in range(6)]
    alike = entropy_difference(rows, rows.losses(noise[:3]), rows.losses(noise[3:]))
    assert alike.low < 0 < alike.high and alike.p > 0.05
    informed = [p + 0.2 * (labels - 0.5) for p in noise[:3]]
    real = entropy_difference(rows, rows.losses(informed), rows.losses(noise[3:]))
    assert real.high < 0 and real.p < 1e-6


def test_the_closed_fraction_is_none_at_the_base_rate_and_all_at_the_reference() -> None:
    reachable = ROWS.losses([GOOD])
    nothing = closed_fraction(ROWS, ROWS.losses([NONE, NONE]), reachable)
    everything = closed_fraction(ROWS, ROWS.losses([GOOD, GOOD]), reachable)
    half = closed_fraction(ROWS, ROWS.losses([GOOD, NONE]), reachable)
    assert [nothing.value, everything.value, half.value] == pytest.approx([0, 1, 0.5], abs=1e-9)


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """Return a package whose module a imports b in a function, b imports c; d stands alone."""
    package = tmp_path / "pkg" / "deep"
    package.mkdir(parents=True)
    (package.parent / "__init__.py").write_text("")
    (package / "__init__.py").write_text('"""Deep."""\n')
    sources = {
        "a": 'raise RuntimeError("imported")\nimport numpy\ndef f():\n    import pkg.deep.b\n',
        "b": "from pkg.deep import c\n",
        "c": '"""Doc."""\nVALUE = 1  # one\n',
        "d": "VALUE = 2\n",
    }
    for name, text in sources.items():
        (package / f"{name}.py").write_text(text)
    return tmp_path


def _hash(tree: Path, extra: str = "") -> str:
    return modules_hash("pkg.deep.a", root=tree, extra=extra)


def test_modules_are_found_through_functions_and_packages_without_importing(tree: Path) -> None:
    found = set(imported_modules("pkg.deep.a", root=tree))
    assert found == {"pkg.deep", "pkg.deep.a", "pkg.deep.b", "pkg.deep.c"}
    with pytest.raises(ValueError, match=r"no module pkg\.gone"):
        imported_modules("pkg.gone", root=tree)


def test_the_hash_changes_with_a_transitively_imported_module_only(tree: Path) -> None:
    before, deep = _hash(tree), tree / "pkg" / "deep"
    (deep / "d.py").write_text("VALUE = 3\n")
    assert _hash(tree) == before
    (deep / "c.py").write_text('"""Another text."""\n\n# Why.\nVALUE = 1  # uno\n')
    assert _hash(tree) == before
    (deep / "c.py").write_text('"""Doc."""\nVALUE = 5  # one\n')
    assert _hash(tree) != before


def test_the_hash_changes_with_the_recipes_arguments_and_a_text_that_is_used(tree: Path) -> None:
    before = _hash(tree)
    assert _hash(tree, extra="width 64") != before
    (tree / "pkg" / "deep" / "c.py").write_text('VALUE = "#1"\n')
    one = _hash(tree)
    (tree / "pkg" / "deep" / "c.py").write_text('VALUE = "#2"\n')
    assert len({before, one, _hash(tree)}) == 3
