"""A user's own log that is not what the mapping says: one line that names it and the remedy."""

from pathlib import Path

import pytest
from pyspark.sql import SparkSession

from pipelines.sources import mapped
from pipelines.sources.errors import SourceError

LABELLED = """
log = "labelled"
primary_action = "click"
[columns]
user = "user"
item = "item"
[time]
column = "at"
unit = "s"
[action.columns]
click = "clicked"
"""
NAMED = """
log = "impressions"
primary_action = "click"
[columns]
user = "user"
item = "item"
[time]
column = "at"
unit = "s"
[action]
column = "clicked"
"""
ARRIVALS = """
log = "positives_only"
primary_action = "click"
[columns]
user = "user"
item = "item"
[time]
column = "at"
unit = "s"
[arrival]
column = "clicked"
unit = "s"
"""
HEADER = "user,item,at,clicked\n"
ROWS = "ann,i1,1774740600,1\nbob,i2,1774750600,0\n"
VIEWS = "ann,i1,1774740600,impression\nbob,i2,1774750600,tap\n"


@pytest.mark.parametrize(
    ("mapping", "log", "message"),
    [
        (
            LABELLED.replace('"user"', '"usr"'),
            HEADER + ROWS,
            (r"columns\.user names the column 'usr', which .*log\.csv lacks "
            r"\(did you mean 'user'\?\); its columns are: user, item, at, clicked"),
        ),
        (
            LABELLED.replace('"clicked"', '"liked"'),
            HEADER + ROWS,
            r"action\.columns\.click names the column 'liked'",
        ),
        (LABELLED, "", r"log\.csv is empty; it should start with a line of column names"),
        (LABELLED, HEADER, r"the log .*log\.csv has no rows; pass DATA="),
        (LABELLED, "user,user,at\n", r"names the column 'user' twice"),
        (
            LABELLED.replace('"s"', '"ms"'),
            HEADER + ROWS,
            r"column 'at' of .* read as 'ms' gives times around 1970-01-21; set time\.unit = 's'",
        ),
        (
            LABELLED,
            HEADER + ROWS.replace("00,", "00000,"),
            (r"no time in column 'at' .* in the unit 's', for example '1774740600000'; "
            r"set time\.unit = 'ms'"),
        ),
        (
            LABELLED.replace('unit = "s"', 'format = "yyyy-MM-dd"'),
            HEADER + ROWS,
            (r"no time in column 'at' .* in the format 'yyyy-MM-dd', for example '1774740600'; "
            r"set time\.unit = 's'"),
        ),
        (
            LABELLED.replace('unit = "s"', 'format = "bogus jj"'),
            HEADER + ROWS,
            r"cannot read .*log\.csv",
        ),
        (
            LABELLED.replace('unit = "s"', ""),
            HEADER + ROWS,
            r"the time column 'at' holds text or numbers; add unit = 's', 'ms' or 'us'",
        ),
        (
            ARRIVALS.replace('"s"', '"ms"', 2).replace('"ms"', '"s"', 1),
            HEADER + ROWS.replace(",1\n", ",1774740605\n"),
            r"column 'clicked' of .* reads as arrivals up to 1970-01-21 .* correct \[arrival\]",
        ),
        (
            ARRIVALS,
            HEADER + ROWS.replace(",1\n", ",1774740605000\n").replace(",0\n", ",\n"),
            (r"no arrival in column 'clicked' of .* in the unit 's', for example '1774740605000'; "
            r"set arrival\.unit = 'ms'"),
        ),
        (
            ARRIVALS.replace('"clicked"', '"came"'),
            HEADER + ROWS,
            r"arrival\.column names the column 'came', which .*log\.csv lacks",
        ),
        (NAMED, HEADER + ROWS, r"column 'clicked' of .* has no value 'impression'; its .* 0, 1;"),
        (NAMED, HEADER + VIEWS, r"primary_action 'click' is not in column 'clicked'"),
        (
            NAMED.replace('"impressions"', '"positives_only"'),
            HEADER + VIEWS.replace("tap", "click"),
            "has impressions; declare log = 'impressions'",
        ),
        (
            NAMED,
            HEADER
            + VIEWS.replace("tap", "click")
            + "".join(f"u,i,17747406{n:02d},a{n}\n" for n in range(40)),
            "column 'clicked' of .* has more than 30 values",
        ),
        (
            LABELLED + '[item]\nfile = "items.csv"\ntext = "title"\n',
            HEADER + ROWS,
            r"item\.file names .*items\.csv, which does not exist; write it relative",
        ),
    ],
)  # fmt: skip
def test_names_the_mistake(
    spark: SparkSession, tmp_path: Path, mapping: str, log: str, message: str
) -> None:
    (tmp_path / "mapping.toml").write_text(mapping)
    (tmp_path / "log.csv").write_text(log)
    path, options = str(tmp_path / "log.csv"), {"mapping": str(tmp_path / "mapping.toml")}
    with pytest.raises(SourceError, match=message) as caught:
        manifest = mapped.describe(spark, path, options)
        mapped.items(spark, path, manifest, options)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({"a.xml": b"<x/>"}, r"no log files in .*; their names should end in one of \.csv"),
        ({"a.csv": HEADER.encode(), "b.jsonl": b"{}"}, "mixes csv and jsonl files; keep one"),
        ({"a.csv": b"\xff\xfe\x00\x81"}, r"a\.csv is not a text file in UTF-8"),
        ({"a.csv.gz": b"plain"}, r"cannot read .*a\.csv\.gz: Not a gzipped file"),
        ({"a.parquet": b"plain"}, r"cannot read .*parquet.*check that the file is whole"),
        ({"a.jsonl": b""}, r"a\.jsonl is empty"),
        ({"a.jsonl": b"user,item\n"}, r"a\.jsonl holds no JSON objects"),
        ({"a.jsonl": b'{"user": 1, "item": 2, "at": 3}\n'}, "names the column 'clicked'"),
    ],
)
def test_names_unreadable_files(
    spark: SparkSession, tmp_path: Path, files: dict[str, bytes], message: str
) -> None:
    data = tmp_path / "data"
    data.mkdir()
    for name, content in files.items():
        (data / name).write_bytes(content)
    (tmp_path / "mapping.toml").write_text(LABELLED)
    with pytest.raises(SourceError, match=message) as caught:
        mapped.describe(spark, str(data), {"mapping": str(tmp_path / "mapping.toml")})
    assert "\n" not in str(caught.value)


def test_names_a_missing_log(spark: SparkSession, tmp_path: Path) -> None:
    (tmp_path / "mapping.toml").write_text(LABELLED)
    options = {"mapping": str(tmp_path / "mapping.toml")}
    with pytest.raises(SourceError, match=r"no such path: /no/such\.csv; pass DATA="):
        mapped.describe(spark, "/no/such.csv", options)
    with pytest.raises(SourceError, match="source mapped needs its files: pass DATA="):
        mapped.describe(spark, None, options)
    with pytest.raises(SourceError, match="source mapped needs a mapping: pass MAPPING="):
        mapped.describe(spark, "/no/such.csv", {})
