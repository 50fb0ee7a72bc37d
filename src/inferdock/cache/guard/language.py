"""Whether the rules know the language: they were written for English."""

from __future__ import annotations

from inferdock.cache.guard.reading import Reading
from inferdock.cache.guard.words import listed

SMALL = listed(
    """
    a about after all also am an and any are as at be been before but by can could did do does for from get
    had has have he her his how i if in into is it its like make many me more most much my no not of on one or
    our out she should so some than that the their them then there these they this to up us use was we were
    what when where which who why will with would you your good best better way people time year day between
    mean difference tell please show give find need want know set play call turn new open help list change
    """
)
_FOREIGN = listed(
    """
    el la los las de que del por para como en un una es y o le les des du et est une pour dans qui der die das
    und ist nicht ein eine wie ich zu mit auf für il di che per non sono da do uma em não os ao het een van
    niet hoe
    """
)


def is_english(reading: Reading) -> bool:
    """Whether all letters are Latin and small English words outnumber small words of other languages."""
    letters = [word for word in reading.spelled if word.isalpha()]
    if not all(word.isascii() for word in letters):
        return False
    english = sum(word in SMALL for word in letters)
    foreign = sum(word in _FOREIGN and word not in SMALL for word in letters)
    return english > foreign and english * 8 >= len(letters)
