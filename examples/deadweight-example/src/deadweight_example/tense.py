"""A small classification task: is a sentence about the past or the future?"""

from deadweight.prompting import Task
from deadweight.prompting.tasks import Item

PAST = """The baker sold the last loaf before noon.
We missed the train by half a minute.
My aunt painted this fence green years ago.
Nobody answered when she knocked.
The storm tore two tiles from the roof.
He forgot his umbrella at the library."""
FUTURE = """The baker will close early tomorrow.
We are going to take the night train.
My aunt will visit us in spring.
Somebody is going to answer the door soon.
The storm will reach the coast by evening.
He is about to leave for the library."""


def tense() -> Task:
    """Built when it is asked for: ``embedded:tense``."""
    items = [Item({"text": line}, "past") for line in PAST.splitlines()]
    items += [Item({"text": line}, "future") for line in FUTURE.splitlines()]
    return Task("tense", items, {"past": "past", "future": "future"}, "Sentence: {text}\nTense:")
