"""Keeps the garbage collector from stopping a process for longer than a reader would notice."""

import gc
from typing import Final

# How many more objects there must be until the young ones are looked at, and after how many looks the older ones are.
YOUNG: Final = 5_000
MIDDLE: Final = 10
OLD: Final = 20


def keep_pauses_short() -> None:
    """Call once everything is loaded: modules and models live as long as the process and need no second look.

    The defaults look at every object of the process whenever their number has grown by a quarter, which stops an event
    loop for tens of milliseconds. Most of our objects are gone before a look, by their reference counts.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(YOUNG, MIDDLE, OLD)
