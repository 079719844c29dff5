"""Quantised prompts: the special tokens, the cleaning of foreign text, and shared wording.

Every special string is one token of the models' vocabulary. All of them are written between angle
brackets, and no angle bracket survives `clean_user_text`, so foreign text can never spell one.

This module does not know the models' tokenizer: lengths are counted in words.

Source: spec llm-dual-encoder-retrieval, section 5.3.
"""

from pyspark.sql import Column
from pyspark.sql import functions as F

MEMBER_TASK = "<ST_M0>"
MEMBER_PROFILE = "<ST_M1>"
MEMBER_MOMENT = "<ST_M2>"
HISTORY = "<ST_history>"
HISTORY_POST = "<ST_history_post>"
ITEM_TAGS = "<ST_P1>"
ITEM_WORDS = "<ST_P2>"
ITEM_POPULARITY = "<ST_P3>"
ITEM_RATE = "<ST_P4>"
ITEM_AGE = "<ST_P5>"
PERCENTILE_OPEN = "<ST_pct>"
PERCENTILE_CLOSE = "<ST_/pct>"
QUESTION = "<ST_question>"
ANSWER = "<ST_answer>"
YES = "<ST_yes>"
NO = "<ST_no>"

SPECIAL_TOKENS: tuple[str, ...] = (
    MEMBER_TASK,
    MEMBER_PROFILE,
    MEMBER_MOMENT,
    HISTORY,
    HISTORY_POST,
    ITEM_TAGS,
    ITEM_WORDS,
    ITEM_POPULARITY,
    ITEM_RATE,
    ITEM_AGE,
    PERCENTILE_OPEN,
    PERCENTILE_CLOSE,
    QUESTION,
    ANSWER,
    YES,
    NO,
    *(f"<ST_hour_{hour}>" for hour in range(24)),
    *(f"<ST_{percentile}>" for percentile in range(101)),  # <ST_0> is an unknown value
)

# Angle brackets and the characters that compatibility normalisation turns into one.
_ANGLE_BRACKETS = "[<>\uff1c\uff1e\ufe64\ufe65]"
_CHARACTERS_PER_WORD = 12


def clean_user_text(text: Column) -> Column:
    """Neutralise anything in foreign text that could read as a special token.

    Angle brackets become spaces, so the outcome holds no special string in any letter case and
    however constructions are nested; white space and control characters collapse to one space.
    Cleaning twice equals cleaning once. Null stays null.

    Args:
        text: A string column that came from outside.

    Returns:
        The cleaned string column.
    """
    no_brackets = F.regexp_replace(text, _ANGLE_BRACKETS, " ")
    return F.trim(F.regexp_replace(no_brackets, r"[\s\p{Z}\p{Cc}]+", " "))


def first_words(text: Column, *, num_words: int) -> Column:
    """Cut a cleaned text to its first words.

    Scripts that write no spaces would slip through a count of words, so the outcome is cut at
    twelve characters per allowed word as well.

    Args:
        text: A string column, words separated by single spaces.
        num_words: Words to keep.

    Returns:
        The shortened string column; null stays null.
    """
    words = F.slice(F.split(text, " "), 1, num_words)
    return F.trim(F.substring(F.array_join(words, " "), 1, _CHARACTERS_PER_WORD * num_words))


def percentile_text(percentile: Column) -> Column:
    """Write a percentile as one token between its token pair; null counts as unknown (0).

    Args:
        percentile: Integer column, 0 unknown, else 1..100.

    Returns:
        A string column such as `<ST_pct> <ST_71> <ST_/pct>`.
    """
    number = F.coalesce(percentile, F.lit(0)).cast("string")
    return F.concat(F.lit(f"{PERCENTILE_OPEN} <ST_"), number, F.lit(f"> {PERCENTILE_CLOSE}"))


def tags_text(tags: Column, *, num_tags: int) -> Column:
    """Write the first tags as cleaned words; a numeric tag reads `tag 39`.

    Args:
        tags: Array-of-strings column; null counts as empty.
        num_tags: Tags to keep.

    Returns:
        A string column, empty where there is no tag.
    """

    def one_tag(tag: Column) -> Column:
        cleaned = clean_user_text(F.regexp_replace(tag, "_", " "))
        return F.when(cleaned.rlike(r"^\d+$"), F.concat(F.lit("tag "), cleaned)).otherwise(cleaned)

    present = F.filter(F.coalesce(tags, F.array().cast("array<string>")), lambda tag: tag != "")
    return F.array_join(F.transform(F.slice(present, 1, num_tags), one_tag), " ")


def join_nonempty(parts: list[Column]) -> Column:
    """Join string columns by one space, leaving out null and empty ones.

    Args:
        parts: String columns.

    Returns:
        One string column, never null.
    """
    return F.array_join(F.filter(F.array(*parts), lambda part: part != ""), " ")


def own_tags(*, num_tags: int) -> Column:
    """Write an item's tags, where its text does not begin with them already.

    Reads `tags` of an item's version and `origin` as of item_text: text that was made of features
    starts with the tags, so they are not written twice.

    Args:
        num_tags: Tags to keep.

    Returns:
        A string column, null or empty where there is nothing to write.
    """
    return F.when(F.col("origin") == "text", tags_text(F.col("tags"), num_tags=num_tags))


def own_words(*, num_words: int) -> Column:
    """Write the first words of `text` as of item_text, cleaned.

    Args:
        num_words: Words to keep.

    Returns:
        A string column; null where the text is.
    """
    return first_words(clean_user_text(F.col("text")), num_words=num_words)
