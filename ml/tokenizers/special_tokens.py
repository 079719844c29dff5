"""Strings that are one token each in every prompt.

The prompts are written elsewhere with the same strings; a contract test compares the two lists.
"""

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
NUM_HOURS = 24
NUM_PERCENTILES = 101  # 0 is an unknown value

HOURS = tuple(f"<ST_hour_{hour}>" for hour in range(NUM_HOURS))
PERCENTILES = tuple(f"<ST_{percentile}>" for percentile in range(NUM_PERCENTILES))

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
    *HOURS,
    *PERCENTILES,
)

PAD = "<ST_pad>"  # the models' own; no prompt is written with it
