"""One cell of the leaderboard: a recipe fitted once with a seed and a trial on one data version."""

from dataclasses import asdict, dataclass
from typing import Any

TRIAL, TEST, FAILED = "trial", "test", "failed"
SUMMARY, COMPARISON = "summary", "comparison"

Line = dict[str, Any]


@dataclass(frozen=True, kw_only=True, slots=True)
class Cell:
    """Say what is fitted and what may be looked at.

    Attributes:
        kind: `TRIAL` sees the validation split only, `TEST` is scored on the test split.
        recipe: Name of the recipe.
        source: Name of the data source.
        seed: Seed of everything random.
        trial: Position in the recipe's search space.
        data: Version of the data, from `data_version`.
        modules: State of the code, from `modules_hash`.
    """

    kind: str
    recipe: str
    source: str
    seed: int
    trial: int
    data: str
    modules: str

    def __post_init__(self) -> None:
        """Check the kind.

        Raises:
            ValueError: If a cell is neither a trial nor a test.
        """
        if self.kind not in (TRIAL, TEST):
            raise ValueError(f"a cell is a {TRIAL} or a {TEST}, not {self.kind!r}")

    @property
    def fields(self) -> dict[str, Any]:
        """Return the cell as the head of its line in the ledger."""
        return asdict(self)

    @property
    def name(self) -> str:
        """Return a name for files and messages."""
        return f"{self.recipe}-{self.kind}-seed{self.seed}-trial{self.trial}-{self.modules}"

    @classmethod
    def of(cls, line: Line) -> "Cell":
        """Return the cell that a line of a trial, a test or a failure is about."""
        names = ("recipe", "source", "seed", "trial", "data", "modules")
        kind = line["failed_kind"] if line["kind"] == FAILED else line["kind"]
        return cls(kind=kind, **{name: line[name] for name in names})


def line_key(line: Line) -> tuple[Any, ...]:
    """Return what may stand only once in a ledger.

    A test has no trial in its key: the test split is opened once per recipe and seed, whichever
    trial was chosen.
    """
    head = (line["kind"], line["source"], line["data"], line["recipe"], line["modules"])
    if line["kind"] in (SUMMARY, COMPARISON):
        rival = (line["rival"], line["rival_modules"]) if line["kind"] == COMPARISON else ()
        return (*head, *rival, tuple(line["seeds"]))
    if line["kind"] == FAILED:
        return (*head, line["failed_kind"], line["seed"], line["trial"])
    return (*head, line["seed"]) if line["kind"] == TEST else (*head, line["seed"], line["trial"])
