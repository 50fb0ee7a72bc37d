"""Ways of saying the same in several words. Left of "=" alternatives in brackets; right what stands for all; "" drops.

Articles have been dropped and contractions written out before. Longer matches win.
"""

from __future__ import annotations

import itertools
import re

TABLE = """
how (do|can|could|should|would|will|might|must|may) (one|someone|somebody|people|anyone|person) = howto
how one can = howto
how one should = howto
how to = howto
how can = howto
what (should|can) do to = howto
how (do|can|should) one go about = howto
what (is|would be|will be) (way|method|process|procedure) (to|of|for|for one to) = howto
what (are|would be) (some|some of|any|possible|different|) (ways|methods) (to|of|for) = howto
what (is|are|would be) (best|good|right|proper|better) (way|ways|method|methods) (to|of|for|for one to|one can) = howto
what (is|are|would be) (best|good) (possible way|possible ways|approach) (to|of|for) = howto
what is one of best ways to = howto
what are (some|some of|any) (best|good|better|effective) (ways|methods) (to|of|for) = howto
what (can|should|do|could|must) one do to = howto
what (can|should|do|could|must) one do in order to = howto
what do one (have|need) to do to = howto
what does one (have|need) to do to = howto
what (are|is) (steps|procedure|process) (to|for|of) = howto
(best|good) (way|ways) to = howto
(way|ways) to = howto
how is it possible to = howto
(is|are) there (any|some|) (way|ways|method) (to|of|for|for one to|one can|that one can) = howto
is it possible to = isway
is it possible for one to = isway
is it possible that one can = isway
any way to = howto
what (is|would be) (easiest|simplest|most effective|most efficient|most practical) (way|method) (to|of|for) = howto
what is (best and easiest|easiest and best) way (to|of|for) = howto
what are (easiest|simplest|most effective|most efficient) (ways|methods) (to|of|for) = howto
what are (some|any|best|good|some good|some of best|) (tips|tricks|tips and tricks) (to|for|on) = howto
what (does|would|will) it take to (be|become) = howto become
what does it take to = howto
what steps (should|can|do|must) one take to = howto
what (do|does) one do to = howto
what is (needed|required) to = howto
what (things|) should one do to = howto
how does one = howto
how to best = howto
how can one best = howto
how much time = howlong
what amount of time = howlong
how many times = howoften
what is age of = howold be
what is height of = howtall be
what (happens|will happen|would happen) (if|when) = what happen if
what (happens|will happen|would happen) to (if|when) = what happen to if
for free = free
free of (cost|charge) = free
difference (among|amongst|in|of) = difference between
differences (among|amongst|in|of) = difference between
how come = why
what (is|are|was|were) (main|) (reason|reasons) (for|behind|of|that|why) = why
for what reason = why
what do you guys = what do you
what do you think (about|of|on) = opinion
what do you think (is|are) = what be
according to you =
according to me =
what (is|are) your (opinion|opinions|view|views|thoughts|take|thought) (about|of|on|regarding) = opinion
(what|how) is it like (to be|being|to|) = feel
what is like (to be|being|to) = feel
(what|how) does it feel (like|) (to be|being|to) = feel
how is it (to be|being) = feel
what (is|are) meant by = meaning of
what is meaning of = meaning of
what is definition of = meaning of
define = meaning of
how (much|) does it cost to = cost to
how (much|) would it cost to = cost to
what is (cost|price) of = costof
what time = when
what would be = what be
what do you mean by = meaning of
deal with = handle
cope with = handle
similar to = like
(every|each) day = daily
(a|per) day = daily
everyday = daily
learn how to = learn to
tell (if|whether) = know if
know whether = know if
used to = formerly
use to be = formerly
in (fact|actual fact|reality) =
as (matter of fact) =
of course =
to be honest =
of all time =
of all times =
ever made = ever
these days = now
right now = now
at (moment|present) = now
at this time = now
as of (now|today) = now
nowadays = now
currently = now
presently = now
today = now
in order to = to
so as to = to
(whether|if) or not = whether
(some|any|all|most) of = some
is one of = be
are some of = be
such as = like
due to = because
because of = because
as well as = and
along with = and
as well = also
instead of = instead
rather than = instead
in world = inworld
(lot|lots|plenty|number) of = many
so much = much
lot = much
more than = over
less than = under
at least = atleast
at most = atmost
no longer = formerly
in spite of = despite
next to = beside
in front of = infront
get rid of = remove
(get|gets|getting|be|being) married = marry
(get|getting|be|being|become|becoming) better = become better
in (my|your|our|one) life = inlife
in life = inlife
(has|have) got = have
get started (with|in|on) = begin
log (in|into|on) = login
log in to = login
login (to|into) = login
sign (in|into) = login
sign in to = login
sign up = signup
set up = setup
log out = logout
turn on = enable
switch on = enable
turn off = disable
switch off = disable
give up = giveup
find out = discover
look for = find
search for = find
looks like = resemble
look like = resemble
has to = must
have to = must
need to = must
needs to = must
ought to = should
had better = should
(be|is|are|am) able to = can
going to = will
about to = will
would like to = want
want to = want
wants to = want
wanna = want
earn money = make money
get over = overcome
thank you =
thanks =
how (often|frequently) = howoften
how long = howlong
how many = howmany
how much = howmuch
how far = howfar
how old = howold
how big = howbig
how tall = howtall
united states of america = usa
united states = usa
united kingdom = uk
great britain = uk
web site = website
web page = webpage
e mail = email
wi fi = wifi
cell phone = mobilephone
cellphone = mobilephone
mobile phone = mobilephone
smart phone = smartphone
you have ever = you
you ever = you
have you ever = haveyouever
known as = called
according to = accordingto
pros and cons = advantage and disadvantage
(kind|kinds|sort|sorts|type|types) of = type
each other = eachother
one another = eachother
some one = someone
any one = anyone
every one = everyone
any more = anymore
some times = sometimes
"""


_ALTERNATIVES = re.compile(r"\(([^)]*)\)")

Phrases = dict[tuple[str, ...], tuple[str, ...]]


def phrases() -> Phrases:
    """Whole phrase -> what stands for it."""
    table: Phrases = {}
    for line in TABLE.strip().splitlines():
        left, _, right = line.partition("=")
        parts = [part.split("|") if place % 2 else [part] for place, part in enumerate(_ALTERNATIVES.split(left))]
        for choice in itertools.product(*parts):
            table.setdefault(tuple(" ".join(choice).split()), tuple(right.split()))
    return table


def lengths(table: Phrases) -> dict[str, tuple[int, ...]]:
    """First word -> how many words its phrases have, the longest first."""
    found: dict[str, set[int]] = {}
    for phrase in table:
        found.setdefault(phrase[0], set()).add(len(phrase))
    return {first: tuple(sorted(sizes, reverse=True)) for first, sizes in found.items()}
