"""Everyday words that ask for the same, one group a line; the first of a group stands for all of it.

Written from general knowledge. A group holds only words that may replace each other in most questions: near-synonyms
that differ in degree or kind ("big" and "tall", "kill" and "murder") stay apart. Words are in their base form.
"""

from __future__ import annotations

from inferdock.cache.guard.inflection import base_form

GROUPS = """
best top finest
way method technique
symptom sign
prepare preparation
institute institution
required needed
built constructed
bought purchased
fixed repaired
chosen selected picked
afraid scared frightened
gay homosexual
every all
considered regarded

buy purchase
make create
good nice great decent
career job employment
terrible horrible awful dreadful
huge enormous giant gigantic massive
big large
tiny minuscule
immediately instantly
safe secure
differentiate distinguish
technical tech
strategy approach
get obtain acquire
begin start
end finish
stop quit cease
help assist
fix repair mend
choose select pick
improve enhance better increase raise boost
reduce decrease lessen
remove delete erase
show display
tell inform
allow permit
require need
happen occur
important essential crucial vital
difficult hard tough
easy simple effortless
fast quick rapid quickly rapidly speedy
easily simply
small little
happy joyful glad cheerful
sad unhappy sorrowful
angry furious mad
smart intelligent clever brainy
brave courageous
rich wealthy
poor impoverished
famous renowned
strange weird odd
funny humorous
beautiful gorgeous
pretty attractive
scary frightening
grateful thankful
vocal outspoken
religious devout
certain sure
correct right
wrong incorrect
real actual genuine
main primary principal major core
whole entire
common frequent
rare uncommon
sick ill
child kid
mother mom mum
father dad
man guy
phone telephone
cellphone mobile smartphone
film movie
picture photo photograph
work function
company firm
lawyer attorney
doctor physician
car automobile
bike bicycle
aeroplane airplane
answer reply respond response
ask inquire enquire
error mistake
problem issue trouble
advice tip suggestion recommendation hint
advise suggest recommend
benefit advantage pro upside
disadvantage drawback con downside
effect affect consequence
difference distinction
opinion view
meaning definition
goal aim objective
idea thought
reason cause
mind psyche
vacation holiday
weight mass
money cash
salary wage
price cost
country nation
city town
road street
website site webpage
web internet online
email mail
login signin
signup register
application app
program programme
favorite favourite
organize organise
organized organised
hurt injure
die perish
live reside
speak talk
look appear
understand comprehend
believe think
like enjoy
love adore
hate despise detest
want wish
try attempt
use utilize utilise
find locate
search seek
recover retrieve
restore regain
learn study
earn gain
lose shed
handle manage cope deal
solve resolve
explain describe clarify
compare contrast
build construct
win triumph
hire employ
fire dismiss
join enter
leave exit
overcome conquer
cure heal
treat remedy
avoid evade
prevent avert
cancel annul
close shut
forgive pardon
someone somebody person
anyone anybody
everyone everybody
thing stuff
maybe perhaps
often frequently
almost nearly
approximately roughly
currently presently
now nowadays today
always forever
although though
whether if
when while whilst
among amongst
toward towards
vs versus
until till
in on upon
per each
disease illness
medicine medication
exam examination
student pupil
teacher instructor
apartment flat
shop store
tv television
password passcode
pc computer
colleague coworker
resume cv
skill ability
habit routine
story tale
quote quotation
rule regulation
law legislation
prison jail
anxiety nervousness
boring dull
interesting fascinating
amazing incredible awesome astonishing unbelievable
dangerous hazardous risky
modify alter change
ad advertisement advert
image picture
harmful damaging
helpful useful
healthy wholesome
thin skinny slim
tired exhausted
crazy insane
stupid dumb foolish
loud noisy
dirty filthy
expensive costly pricey
cheap inexpensive affordable
modern contemporary
gradually slowly
regularly routinely
suddenly abruptly
mostly mainly largely
besides moreover
however though
therefore thus hence
destroy ruin
protect guard
attack assault
escape flee
discover uncover
refuse decline
permit let
forbid prohibit ban
gather collect
combine merge
separate split divide
connect link
calculate compute
measure gauge
predict forecast
analyze analyse
evaluate assess
replace substitute
carry transport
pull drag
throw toss
jump leap
eat consume
expand extend
shrink contract
rise climb
continue proceed
remain stay
wait await
hurry rush
celebrate commemorate
thank appreciate
praise compliment
blame accuse
argue quarrel
convince persuade
encourage motivate
annoy irritate bother
scare frighten
surprise astonish
confuse puzzle
marry wed
cheat deceive
regret repent
remember recall
smell sniff
usa america
uk britain
"""


def representatives() -> dict[str, str]:
    """Base form -> the word that stands for its group."""
    return {
        base_form(word): base_form(group[0]) for group in map(str.split, GROUPS.strip().splitlines()) for word in group
    }
