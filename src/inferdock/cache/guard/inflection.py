"""The base form of an English word: plural and "-ing" are taken off, tenses stay (they ask for something else)."""

from __future__ import annotations

import re
from functools import lru_cache

from inferdock.cache.guard.words import listed

_IRREGULAR = {
    "men": "man", "women": "woman", "children": "child", "kids": "child", "people": "people", "feet": "foot",
    "teeth": "tooth", "mice": "mouse", "wives": "wife", "lives": "life", "knives": "knife", "leaves": "leave",
    "has": "have", "having": "have", "does": "do", "doing": "do", "goes": "go", "going": "go", "dying": "die",
    "lying": "lie", "tying": "tie", "being": "be", "is": "be", "are": "be", "am": "be", "been": "be",
    "thing": "thing", "things": "thing", "something": "something", "anything": "anything", "nothing": "nothing",
    "everything": "everything", "using": "use", "used": "used", "analyses": "analysis", "data": "data",
    "news": "news", "series": "series", "species": "species", "physics": "physics", "mathematics": "math",
    "maths": "math", "this": "this", "these": "this", "those": "that", "movies": "movie", "cookies": "cookie",
    "selfies": "selfie", "shoes": "shoe", "heroes": "hero", "potatoes": "potato", "tomatoes": "tomato",
    "spring": "spring", "string": "string", "king": "king", "ring": "ring", "during": "during", "evening": "evening",
    "morning": "morning", "ceiling": "ceiling", "building": "building", "meaning": "meaning", "wedding": "wedding",
    "feeling": "feeling", "interesting": "interesting", "boring": "boring", "its": "its",
    "his": "his", "hers": "hers", "us": "us", "as": "as", "gas": "gas", "yes": "yes", "bus": "bus", "plus": "plus",
    "thus": "thus", "always": "always", "perhaps": "perhaps", "besides": "besides", "towards": "toward",
    "afterwards": "afterward", "sometimes": "sometimes", "analysis": "analysis", "basis": "basis", "crisis": "crisis",
}  # fmt: skip
_KEPT_S = ("ss", "us", "is", "ics", "ous")
_VOWEL = re.compile(r"[aeiouy]")
_SPELLING = re.compile(r"(?<=[a-z]{3})is(e|ed|es|er|ers|ing|ation|ations)$")
_NOT_IZE = listed(
    """
    advise arise comprise compromise cruise devise disguise enterprise excise exercise expertise franchise
    improvise merchandise noise otherwise paradise praise precise premise promise raise revise rise supervise
    surprise televise bruise concise demise likewise poise cerise raiser riser wise
    """
)

_OUR = re.compile(
    r"^(behavi|col|fav|flav|hon|hum|lab|neighb|rum|harb|val|vap|arm|parl|sav|glam|end)our(?=s?$|ed$|ing$|ite|ful|hood|able)"
)
_SPELT = {
    "centre": "center", "theatre": "theater", "metre": "meter", "litre": "liter", "grey": "gray", "tyre": "tire",
    "defence": "defense", "licence": "license", "programme": "program", "cheque": "check", "travelling": "traveling",
    "traveller": "traveler", "cancelled": "canceled", "aluminium": "aluminum", "catalogue": "catalog", "maths": "math",
    "learnt": "learned", "ageing": "aging", "pyjamas": "pajamas", "judgement": "judgment", "enrol": "enroll",
}  # fmt: skip


def respelt(word: str) -> str:
    """British spelling as American."""
    if word in _SPELT:
        return _SPELT[word]
    if "our" in word:
        word = _OUR.sub(r"\1or", word)
    found = _SPELLING.search(word)
    if found and word[: found.start()] + "ise" not in _NOT_IZE:
        return f"{word[: found.start()]}iz{found[1]}"
    return word


_WITH_E = listed(
    """
    make take give use live move change write like love hate create become come achieve acquire adore advise
    age agree announce apologize apply approve arrange argue arise arrive assume bake bathe bite blame breathe
    bribe browse cause celebrate charge chase choose close combine communicate compare compete complete
    compose compute conclude confuse continue contribute convince cope cure dance date debate decide declare
    decline decorate define delete demonstrate describe deserve desire determine die disable divide divorce
    donate drive dine educate eliminate encourage engage enable ensure escape estimate evaluate examine
    exchange exercise explore expose face fake file fire force forgive generate graduate guarantee guide
    handle hide hike hire hope ignore illustrate imagine improve include increase influence inspire integrate
    introduce invade investigate invite involve isolate joke judge juggle leave lie locate lose manage measure
    memorize merge migrate misuse motivate name note notice observe operate organize oppose overcome
    participate paste persuade phone place please practice prepare preserve prove provide pursue quote race
    raise realize receive recognize recommence recycle reduce refuse regulate relate release remove replace
    require rescue reserve resolve retire retrieve reverse ride rise ruin rule save score separate serve
    settle shake share shave shine smile smoke solve squeeze stare store struggle suppose surprise survive
    taste trade translate tie tune type unite update upgrade urinate vote wake waste welcome whistle wipe wire
    """
)

_NOUNS = listed(
    """
    accounting advertising banking blogging boxing branding building cleaning clothing coding consulting
    cooking counseling counselling dating drawing engineering farming fencing filming financing fishing
    funding gaming hacking hosting housing hunting landing lighting listing manufacturing marketing marking
    meeting mining nursing opening outsourcing packaging painting parking planning pricing printing processing
    programming publishing racing rating recording rendering sailing saving screening setting shipping
    shopping sibling singing skating skiing sling spelling standing streaming styling surfing testing timing
    trading trafficking training turing typing understanding viking wedding welding wrestling wording crossing
    awning calling casting ending founding heading hearing lining loading networking nesting passing pending
    posting ranking ruling rising seeing sting thinking warning willing amazing exciting outstanding charming
    disgusting embarrassing annoying depressing existing inspiring surprising terrifying touching upcoming
    missing bring cling fling swing wring beijing darling pudding stocking earring sterling herring lemming
    bing boeing ming xing ping
    """
)

"""In "-ing" and not the same as their verb: trades, things, and adjectives."""


@lru_cache(maxsize=16_384)
def base_form(word: str) -> str:
    """Base form of a lower-case word; words of up to three letters, and those with other characters, are kept."""
    word = respelt(word)
    if word in _IRREGULAR:
        return _IRREGULAR[word]
    if len(word) < 4 or not word.isalpha():
        return word
    if word.endswith("s"):
        return _singular(word)
    if word.endswith("ing") and len(word) > 5 and word not in _NOUNS and _VOWEL.search(word[:-3]):
        return _without_ing(word[:-3])
    return word


def _singular(word: str) -> str:
    if word.endswith(_KEPT_S):
        return word
    if word.endswith("ies") and len(word) > 4:
        return word[:-3] + "y"
    if word.endswith("oes"):
        return word[:-2]
    if word.endswith(("sses", "ches", "shes", "xes", "zzes")):
        return word[:-2]
    return word[:-1]


def _without_ing(stem: str) -> str:
    if stem + "e" in _WITH_E or stem.endswith(("iz", "yz", "v", "uc", "nc")):
        return stem + "e"
    if len(stem) > 2 and stem[-1] == stem[-2] and stem[-1] not in "lsz":
        return stem[:-1]
    return stem


_NOT_EST = listed(
    """
    interest honest request suggest forest harvest protest contest invest latest digest modest tempest arrest
    nearest manifest conquest everest budapest nest pest rest lest chest quest guest crest west test best vest
    zest infest midwest northwest southwest detest bequest unrest dishonest inquest headrest ingest congest
    """
)

_ADJECTIVES_E = listed(
    """
    strange large nice safe rare simple wise cute late close brave gentle humble fine pure true wide polite
    severe little able crude dense fierce free gross insane lame loose mature pale remote ripe rude sane
    scarce secure sincere sparse stable tame vague white extreme noble subtle huge intense tense coarse hoarse
    false obscure
    """
)


def superlative(word: str) -> str | None:
    """Base form of an adjective in "-est"; None for any other word."""
    if len(word) < 6 or not word.endswith("est") or word in _NOT_EST:
        return None
    stem = word[:-3]
    if stem + "e" in _ADJECTIVES_E:
        return stem + "e"
    if stem.endswith("i"):
        return stem[:-1] + "y"
    if stem[-1] == stem[-2] and stem[-1] not in "lsz":
        return stem[:-1]
    return stem
