"""Core paths use what Spark Connect has: no JVM, no SparkContext, no interface of Delta's own."""

import ast
from pathlib import Path

_ROOMS = ("pipelines", "infra", "assets", "jobs")
_CLASSIC = {"_jvm", "_jsc", "_jdf", "_sc", "_jsparkSession", "sparkContext", "rdd"}
# What only this process's own driver has, each behind a question for the kind of session.
_ALLOWED = {
    ("infra/commit_lock.py", "jvm_lock"),
    ("infra/failed_write.py", "wait_for_tasks"),
    ("infra/lease_holder.py", "jvm_pid"),
    ("infra/store_session.py", "reach_lake"),
}


def test_only_the_named_places_need_a_classic_session(checkout: Path) -> None:
    found = set()
    for room in _ROOMS:
        for path in sorted((checkout / room).rglob("*.py")):
            name = str(path.relative_to(checkout))
            found |= {(name, place) for place in classic_places(path.read_text())}
    assert found == _ALLOWED


def test_what_is_looked_for_is_found() -> None:
    source = (
        "from delta.tables import DeltaTable\n"
        "def one(spark):\n    return spark.sparkContext\n"
        "def two(spark):\n    return getattr(spark, '_jvm')\n"
        "def three(spark):\n    return spark.sql('')\n"
    )
    assert classic_places(source) == {"<module>", "one", "two"}


def classic_places(source: str) -> set[str]:
    """Return the functions of a module that touch what a Connect session lacks."""
    places: set[str] = set()

    def visit(node: ast.AST, place: str) -> None:
        if isinstance(node, ast.FunctionDef):
            place = node.name
        if _is_classic(node):
            places.add(place)
        for child in ast.iter_child_nodes(node):
            visit(child, place)

    visit(ast.parse(source), "<module>")
    return places


def _is_classic(node: ast.AST) -> bool:
    if isinstance(node, ast.Attribute):
        return node.attr in _CLASSIC
    if isinstance(node, ast.Constant):
        return node.value in _CLASSIC
    if isinstance(node, ast.ImportFrom):
        return (node.module or "").split(".")[0] == "delta" or node.module == "pyspark.core.context"
    return isinstance(node, ast.Import) and any(
        name.name.split(".")[0] == "delta" for name in node.names
    )
