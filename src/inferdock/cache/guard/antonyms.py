"""Words of opposite meaning: they name the reason when one of a pair stands where the other stood.

Any other word would have refused as well; the table only says why, and keeps the pairs out of the synonyms.
"""

from __future__ import annotations

from inferdock.cache.guard.inflection import base_form
from inferdock.cache.guard.synonyms import representatives

PAIRS = """
good bad
good evil
best worst
better worse
more less
most least
more fewer
many few
big small
long short
tall short
high low
fast slow
early late
first last
before after
hot cold
warm cool
old new
old young
rich poor
strong weak
easy difficult
happy sad
open close
open closed
start stop
begin end
on off
in out
up down
left right
right wrong
correct wrong
true false
true fake
real fake
legal illegal
safe dangerous
safe unsafe
healthy unhealthy
possible impossible
positive negative
optimistic pessimistic
active passive
active inactive
visible invisible
increase reduce
gain lose
win lose
buy sell
borrow lend
give take
give receive
send receive
push pull
enable disable
allow forbid
allow block
block unblock
lock unlock
install uninstall
follow unfollow
add remove
include exclude
accept reject
accept refuse
love hate
like dislike
live die
born die
import export
upload download
login logout
connect disconnect
attach detach
encrypt decrypt
male female
man woman
boy girl
he she
him her
his her
husband wife
father mother
son daughter
brother sister
king queen
boyfriend girlfriend
uncle aunt
day night
morning evening
summer winter
north south
east west
inside outside
above below
over under
maximum minimum
public private
internal external
single married
single double
rise fall
hard soft
light dark
light heavy
wet dry
full empty
cheap expensive
free paid
same different
similar different
always never
with without
for against
from to
advantage disadvantage
benefit disadvantage
success failure
succeed fail
pass fail
friend enemy
question answer
cause effect
cause prevent
minimum maximum
yesterday tomorrow
past future
all none
everyone nobody
everything nothing
and or
can cannot
should must
today tomorrow
today yesterday
credit debit
input output
parent child
teacher student
employer employee
buyer seller
lender borrower
single plural
vertical horizontal
ancient modern
simple complex
major minor
natural artificial
domestic foreign
local global
liberal conservative
introvert extrovert
introverted extroverted
"""


def opposites() -> frozenset[tuple[str, str]]:
    """Pairs of base forms, both ways round."""
    pairs = [line.split() for line in PAIRS.strip().splitlines()]
    same = representatives()
    found = {(same.get(base_form(a), base_form(a)), same.get(base_form(b), base_form(b))) for a, b in pairs}
    return frozenset(found | {(b, a) for a, b in found})
