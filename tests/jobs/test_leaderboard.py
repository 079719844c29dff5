"""The leaderboard's command: what it is told, and which feed and data home it takes."""

from pathlib import Path

import pytest

from infra.errors import UserError
from infra.settings import Settings
from jobs.leaderboard import own_feed, read_arguments

_VARIABLES = ("RANKLAKE_FEED_USERS", "RANKLAKE_JARS", "RANKLAKE_HOME")


def test_empty_arguments_bound_nothing_and_mean_every_recipe() -> None:
    assert read_arguments(["", "", ""]) == read_arguments([]) == {"retry": False}


def test_arguments_are_minutes_recipes_retry_and_a_folder() -> None:
    assert read_arguments(["2.5", "popularity, lightgbm,", "1", "/ledgers"]) == {
        "budget_minutes": 2.5,
        "recipes": ["popularity", "lightgbm"],
        "retry": True,
        "ledgers": "/ledgers",
    }


@pytest.mark.parametrize("text", ["soon", "-1", "nan", "inf"])
def test_a_budget_that_is_no_time_is_refused(text: str) -> None:
    with pytest.raises(UserError, match="BUDGET_MINUTES must be a number of minutes"):
        read_arguments([text])


def test_the_default_feed_has_its_stated_size_and_a_home_of_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in _VARIABLES:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("RANKLAKE_PROFILE", "default")
    monkeypatch.setenv("RANKLAKE_HOME", str(tmp_path))
    before = Settings.from_env()
    after = own_feed(before)
    assert after.feed_users == 3_000
    assert after.home == tmp_path / "leaderboard"
    assert after.jar_cache == before.jar_cache
    assert own_feed(after) is after


def test_a_stated_feed_and_other_sources_stay_where_they_are(tmp_path: Path) -> None:
    stated = Settings(home=tmp_path, feed_users=500)
    other = Settings(home=tmp_path, source="movielens", data=str(tmp_path))
    assert own_feed(stated) is stated
    assert own_feed(other) is other
