"""Small words of English: which of them carry no meaning, and which carry all of it."""

from __future__ import annotations


def listed(text: str) -> frozenset[str]:
    """The words of a table."""
    return frozenset(text.split())


ARTICLES = frozenset({"a", "an", "the"})
JOINTS = frozenset({"and", "or", "vs", "versus", "to", "is", "in", "of"})
OWN = frozenset({"my", "your", "our"})

PREPOSITIONS = listed(
    """
    in at of for to from with by about as during after before without under over between through
    """
)

NEGATIONS = listed(
    """
    not no never none nobody nothing nowhere neither nor cannot without non hardly barely don't stop
    """
)

FILLERS = listed(
    """
    please any really actually exactly truly indeed basically literally simply somehow honestly kindly ever
    just some
    """
)
"""Leave the answer as it is."""

ADVERBS = listed("please really actually exactly truly indeed basically literally simply somehow honestly kindly just")
"""Those of the fillers that may stand within a phrase."""

LIGHT = listed(
    """
    be do in at of for to about as that it there so this also now own very inworld one andwhy
    """
)
"""May be missing on one side, or stand for each other. The last three are words of the phrase table."""

LIGHT_IN_LISTS = listed(
    """
    main possible various several few key can available exist
    """
)
"""May also be missing where both ask what things there are."""

NEAR = listed(
    """
    from by during available existing considered called such sometimes usually generally typically especially
    particularly specifically mainly whole else completely absolutely inlife totally thing
    """
)
"""May be missing on one side, if the score is a little higher."""

NEAR_IN_QUESTIONS = listed(
    """
    with and have get up around here other another every learn begin find stay follow perform place form level
    category section style  rate area field purpose case process account world
    """
)
"""As NEAR, where both are open questions ("how", "what")."""

NEAR_IN_LISTS = frozenset({"best", "most", "example", "type"})
"""As NEAR, where both ask what things there are."""

MODALS = frozenset({"can", "should"})
"""As NEAR, where both ask what, where, when or how: "what can cause it" and "what causes it"."""

GENERIC = listed(
    """
    country city state town language system service center company brand product item object tool material
    device machine application website user term name list part idea concept topic subject matter situation
    problem question answer activity action role function feature quality skill ability experience option
    choice opportunity career work source resource method advice trick step plan project business sector
    organization department institute team event series dish book article text message number amount quantity
    value size color structure condition status kind sort issue result factor aspect element detail
    information data science study model exercise treatment degree course effectively efficiently properly
    correctly well fully probably likely constantly successfully personally seriously overall general basic
    common different several few complete finish done visit see go come make take give do need start keep feel
    """
)
"""Mostly name the kind of what stands beside them, or its manner: "UV light", "the pH level". One or two
may be missing on one side of an open question, if the score is nearly the threshold."""

QUESTIONS = listed(
    """
    what who whose why when where how howto isway howmany howmuch howlong howoften howfar howold howbig
    howtall
    """
)

TIMES = listed(
    """
    was were did had will would could might may should must can formerly become already yet still again until
    since before after during while tomorrow yesterday tonight past
    """
)
"""When, and whether at all."""

PERSONS = listed(
    """
    i me my mine myself you your yours yourself he him his himself she her hers herself it its itself we us
    our ours they them their theirs one
    """
)

ALIKE = {
    "abt": "about", "bcoz": "because", "coz": "because", "cuz": "because", "thru": "through", "tho": "though",
    "ok": "okay", "nd": "and", "wat": "what", "wht": "what", "whom": "who", "which": "what", "could": "can",
    "shall": "will", "zero": "0", "two": "2", "three": "3", "four": "4", "five": "5", "six": "6", "seven": "7",
    "eight": "8", "nine": "9", "ten": "10", "eleven": "11", "twelve": "12", "twenty": "20", "thirty": "30",
    "forty": "40", "fifty": "50", "hundred": "100", "thousand": "1000", "percent": "%", "1st": "first",
    "2nd": "second", "3rd": "third", "US": "usa", "rs": "₹", "inr": "₹", "rupees": "₹", "pic": "picture",
    "pics": "pictures", "v": "vs", "versus": "vs", "btw": "between",
}  # fmt: skip
"""Words, and abbreviations, that stand for one another in what a text means; not where it is about words."""

_WHOLE = {
    "can't": "can not", "cannot": "can not", "won't": "will not", "shan't": "shall not", "ain't": "is not",
    "let's": "let us", "i'm": "i am", "y'all": "you", "whats": "what is", "hows": "how is", "whos": "who is",
    "wheres": "where is", "thats": "that is", "dont": "do not", "doesnt": "does not", "didnt": "did not",
    "isnt": "is not", "arent": "are not", "wasnt": "was not", "cant": "can not", "wont": "will not",
    "couldnt": "could not", "shouldnt": "should not", "wouldnt": "would not", "havent": "have not",
    "hasnt": "has not", "im": "i am", "ive": "i have", "youre": "you are", "u": "you", "ur": "your", "r": "are",
    "pls": "please", "plz": "please", "gonna": "going to", "gotta": "have to", "n": "and", "&": "and",
}  # fmt: skip
_TAILS = {"'re": "are", "'ve": "have", "'ll": "will", "'d": "would", "'m": "am"}
_IS = frozenset({"what", "who", "where", "when", "why", "how", "it", "that", "there", "he", "she", "here", "this"})


def written_out(word: str) -> list[str]:
    """A contraction as its words; the possessive "'s" is taken off."""
    if word in _WHOLE:
        return _WHOLE[word].split()
    if "'" not in word:
        return [word]
    head, _, tail = word.partition("'")
    if word.endswith("n't"):
        return [word[:-3], "not"]
    if f"'{tail}" in _TAILS:
        return [head, _TAILS[f"'{tail}"]]
    if tail == "s":
        return [head, "is"] if head in _IS else [head]
    return [head, tail] if head and tail else [head or tail]
