"""Words of a connection, beside the frames of its session: "I live", and at the end why it ends.

A word is a frame's header without a payload: step LAST_STEP, which no frame has; the word in the
clock's place; a number that goes with it in the length's. So it costs the receiver no memory, and
between two frames it may stand anywhere. Words are of no session's plan and counted apart.

The words are few and fixed: an end of a session explains itself and tells nothing else.
"""

import enum

LAST_STEP = (1 << 32) - 1
LANE_SHIFT = 30  # a frame's step has its lane above and its number in the lane below
LANE_STEPS = (1 << LANE_SHIFT) - 1
WORD_BYTES = 16
ALIVE_S = 5.0  # who has written nothing for so long says that it lives
MOST_MISSED = 4  # so many times; then it is gone
PARTING_S = 1.0  # the last word may take so long, with all that is queued before it


class Word(enum.IntEnum):
    """What one end of a connection tells the other; all but the first end the session."""

    ALIVE = 0
    IDLE = 1  # its number: the limit in ms
    CLOSING = 2
    SLOW = 3  # its number: the deadline in ms
    DRIFT = 4
    FAULT = 5
    REFUSED = 6
    INTERRUPTED = 7
    LEFT = 8
    FULL = 9
    DONE = 10
    SPENT = 11
    YIELD = 12


_OWN = {
    Word.CLOSING: "the server is closing",
    Word.REFUSED: "this side refused what the other party offered",
    Word.INTERRUPTED: "interrupted on this side",
    Word.LEFT: "ended on this side",
    Word.DONE: "closed on this side",
    Word.FULL: "dropped for want of room",
    Word.FAULT: "internal error on this side",
    Word.SPENT: "the client has had all answers that it may have in a day",
    Word.YIELD: "a client in the background gave way to another",
    Word.DRIFT: "the other party asked for what the plan does not have",
}
_HEARD = {
    Word.IDLE: "it was idle for {:g} s, the most the other party allows",
    Word.CLOSING: "the server is closing",
    Word.SLOW: "this side was silent or too slow for the other party's deadline of {:g} s",
    Word.DRIFT: "a frame from this side was not the one that the other party's plan has here",
    Word.FAULT: "an internal error of the other party",
    Word.REFUSED: "the other party refused the plan or the greeting",
    Word.INTERRUPTED: "the other party was interrupted",
    Word.LEFT: "the other party left before the session was over",
    Word.DONE: "the other party has all that it wanted",
    Word.SPENT: "this client has had all answers that the server gives it in a day; try again tomorrow",
    Word.YIELD: "the server has another client to serve; what this one does in the background can go on "
    "later",
    Word.FULL: "the server has no room for more connections; try again later",
}


def own_reason(word: Word) -> str:
    """Why a session ended, to the side that says so."""
    return _OWN[word]


def heard_reason(code: int, number: int) -> tuple[str, str]:
    """Why a session ended, to the side that is told: the word's name, and a sentence."""
    if code not in _HEARD:
        return "unknown", f"the other party gave a reason unknown here ({code})"
    word = Word(code)
    return word.name.lower(), _HEARD[word].format(number / 1e3)
