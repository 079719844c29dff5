"""The list of suppressed users holds no id, and is of no use without its key."""

import json
from datetime import date
from pathlib import Path

import pytest

from infra.errors import UserError
from infra.settings import Settings
from infra.suppression import ASKED, ERASED, ERASING, load_list, open_list

DAY = date(2026, 5, 1)
USER = "ann-7f3a"


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    """Return settings whose key lies beside the data home."""
    return Settings.from_env(
        {
            "RANKLAKE_HOME": str(tmp_path / "home"),
            "RANKLAKE_SUPPRESSION_KEY": str(tmp_path / "keys" / "suppression.key"),
        }
    )


def test_list_knows_its_users_again_and_names_none(settings: Settings) -> None:
    users = open_list(settings)
    users.add([USER, "bob"], today=DAY)
    users.mark([USER], ERASING)
    users.mark(["bob"], ERASED)
    again = load_list(settings)
    assert again is not None
    assert [again.state(name) for name in (USER, "bob", "ann-7f3", "eve")] == [
        *(ERASING, ERASED),
        *(None, None),
    ]
    assert (len(again), again.unfinished) == (2, 1)
    text = settings.suppressed_users_file.read_text()
    assert USER not in text and "bob" not in text
    again.add(["bob", USER], today=DAY)  # asked for once more, and resumed
    assert (again.state("bob"), again.state(USER)) == (ASKED, ERASING)


def test_key_is_made_once_for_its_owner_alone(settings: Settings) -> None:
    assert load_list(settings) is None and not settings.suppression_key_file.exists()
    open_list(settings).add([USER], today=DAY)
    key = settings.suppression_key_file
    assert key.stat().st_mode & 0o777 == 0o600
    made = key.read_text()
    open_list(settings).add(["bob"], today=DAY)
    assert key.read_text() == made and len(bytes.fromhex(made)) == 32


def test_two_keys_give_two_hashes(settings: Settings) -> None:
    hashes = []
    for _ in range(2):
        open_list(settings).add([USER], today=DAY)
        record = json.loads(settings.suppressed_users_file.read_text())
        hashes.append(record["users"][0]["user"])
        settings.suppressed_users_file.unlink()
        settings.suppression_key_file.unlink()
    assert len(set(hashes)) == 2


def test_missing_or_wrong_key_and_torn_list_are_named(settings: Settings) -> None:
    open_list(settings).add([USER], today=DAY)
    key, path = settings.suppression_key_file, settings.suppressed_users_file
    right = key.read_text()
    key.write_text("00" * 32)
    with pytest.raises(UserError, match=r"is not the key .* RANKLAKE_SUPPRESSION_KEY"):
        load_list(settings)
    key.write_text("00")
    with pytest.raises(UserError, match="has 1 bytes instead of 32"):
        open_list(settings)
    key.unlink()
    with pytest.raises(UserError, match=r"1 users are suppressed in .* key .* is missing; put"):
        open_list(settings)
    key.write_text(right)
    path.write_text("{")
    with pytest.raises(UserError, match=r"cannot be read .* backup"):
        load_list(settings)


def test_key_in_the_data_home_is_refused(tmp_path: Path) -> None:
    environ = {"RANKLAKE_HOME": str(tmp_path), "RANKLAKE_SUPPRESSION_KEY": str(tmp_path / "key")}
    with pytest.raises(UserError, match="must not lie in the data home"):
        open_list(Settings.from_env(environ))


def test_key_is_looked_for_in_the_folder_of_configurations(tmp_path: Path) -> None:
    environ = {"RANKLAKE_HOME": "/home", "XDG_CONFIG_HOME": str(tmp_path)}
    file = Settings.from_env(environ).suppression_key_file
    assert file == tmp_path / "ranklake" / "suppression.key"
