"""Pairs that look alike and ask for something else: refused whatever the score says. One table for each kind."""

from __future__ import annotations

import pytest

from inferdock.cache.guard import Guard

PAIRS = """
number     | What is the best laptop under 500 dollars? | What is the best laptop under 600 dollars?
number     | How do I train for the race in 2 months? | How do I train for the race in six months?
number     | Who won the cup in 2014? | Who won the cup in 2018?
number     | What is 5 + 3? | What is 5 - 3?
number     | What is -5 squared? | What is 5 squared?
number     | What is 5! ? | What is 5?
number     | Send $20 to Bob | Send $50 to Bob
number     | Is it 5 km? | Is it 6 km?
negation   | Why is the sky blue? | Why is the sky not blue?
negation   | What should a nurse worry about? | What shouldn't a nurse worry about?
negation   | Is it rude to tip in Japan? | Is it rude not to tip in Japan?
negation   | Can I take aspirin with alcohol? | Can I take aspirin without alcohol?
negation   | No, stop it now | No stop it now
negation   | What do you enjoy eating or not eating? | What do you enjoy eating?
antonym    | How can I become more patient? | How can I become less patient?
antonym    | What is the best phone? | What is the worst phone?
antonym    | How do I buy a house? | How do I sell a house?
antonym    | How do I lock my phone? | How do I unlock my phone?
antonym    | Is this safe to eat? | Is this unsafe to eat?
antonym    | How do I turn on the wifi? | How do I turn off the wifi?
antonym    | Is the glass half full? | Is the glass half empty?
antonym    | Is Ann a nurse or a doctor? | Is Ann a nurse and a doctor?
time       | What was life like before the war? | What was life like after the war?
time       | Who is the president? | Who was the president?
time       | Is Ann a nurse? | Did Ann use to be a nurse?
time       | Is Ann a nurse? | Is Ann becoming a nurse?
time       | Is Ann a nurse? | Will Ann be a nurse?
time       | Should I go? | Can I go?
time       | May I pay? | Must I pay?
question   | When did the ship sink? | Where did the ship sink?
question   | How many people live there? | How much do people pay there?
question   | What does a rotor do? | What is a rotor?
person     | If Tom and Ann wed, would his family be happy? | If Tom and Ann wed, would her family be happy?
person     | What is my name? | What is your name?
person     | How can I make my mother happy? | How can I make your mother happy?
word       | Is Tom Wright a photographer? | Is Tom Wright an accredited photographer?
word       | Is Tom Wright a photographer? | Is Tom Wright a real photographer?
word       | Is Ann Jones Chinese? | Is Ann Smith Chinese?
word       | Is Ann Jones Chinese? | Is Ann Jones Japanese?
word       | I hurt my knee. Is this common? | I hurt my hip. Is this common?
word       | How do I learn C++? | How do I learn C#?
word       | What is the population of Rome? | What is the population of Paris?
word       | Can I feed my dog grapes? | Can I feed my cat grapes?
word       | How do I become a doctor? | How do I become a good doctor?
person     | Is US safe? | Is us safe?
order      | Does Tom love Ann? | Does Ann love Tom?
order      | Is Tom the father of Ann? | Is Ann the father of Tom?
order      | How do I convert miles to km? | How do I convert km to miles?
order      | How do I fly from Paris to Rome? | How do I fly from Rome to Paris?
order      | Is a cat bigger than a dog? | Is a dog bigger than a cat?
order      | Can Tom beat Ann? | Can Tom be beat by Ann?
question   | Does Tom hurt Ann? | Is Tom hurt by Ann?
word       | Did Tom hire Ann? | Did Tom fire Ann?
word       | What is radar used for? | What is radar?
person     | Can you whistle? | Can anyone whistle?
word       | Are there trains in Rome? | Are there trains to Rome?
quote      | What does "begin" mean? | What does "start" mean?
mention    | What does begin mean? | What does start mean?
mention    | Translate I am happy into French | Translate I am glad into French
mention    | Give me a synonym of big | Give me a synonym of large
language   | Wie kann ich abnehmen? | Wie kann ich zunehmen?
language   | ¿Cómo puedo perder peso? | ¿Cómo puedo ganar peso?
language   | 我怎么减肥 | 我怎么增肥
code       | What does x == y do? | What does x != y do?
"""
CASES = [tuple(part.strip() for part in line.split(" | ")) for line in PAIRS.strip().splitlines()]

INSTRUCTION = (
    "You answer for a shop that sells garden tools. Reply to the message below in two sentences, never name a price "
    "and sign as the team. Message: "
)
PAYLOADS = {
    "another question": ("where is my parcel", "when do you open"),
    "other words of one meaning": ("how can I return a spade", "what is the best way to return a spade"),
    "one word": ("my rake is broken", "my hoe is broken"),
    "an article": ("I want a rake", "I want the rake"),
}


@pytest.mark.parametrize(("reason", "asked", "stored"), CASES, ids=[f"{case[0]}: {case[1]}" for case in CASES])
def test_another_meaning_is_refused_at_any_score(reason: str, asked: str, stored: str) -> None:
    verdict = Guard().judge(asked, stored, 1.0, threshold=0.95)

    assert not verdict.served
    assert verdict.reason == reason


@pytest.mark.parametrize(("one", "other"), PAYLOADS.values(), ids=PAYLOADS)
def test_behind_one_instruction_only_the_surface_may_differ(one: str, other: str) -> None:
    assert Guard().judge(INSTRUCTION + one, INSTRUCTION + other, 1.0, threshold=0.95).reason == "template"


def test_in_front_of_one_instruction_as_well() -> None:
    rest = ". Say this in the voice of an old sailor who has never seen a garden: be short and be kind to the reader."

    assert Guard().judge(f"I like rakes{rest}", f"I like hoes{rest}", 1.0, threshold=0.95).reason == "template"


def test_a_model_may_judge_what_no_hard_rule_forbids() -> None:
    guard = Guard()

    assert guard.judge("How do I fix a kite?", "How do I fix a torn kite?", 0.97, threshold=0.95).grey
    assert guard.judge("How do I mend a kite?", "How do I fix a kite?", 0.91, threshold=0.98).grey
    assert not guard.judge("How do I fix 2 kites?", "How do I fix 3 kites?", 0.99, threshold=0.95).grey
    assert not guard.judge("How do I fix a kite?", "Who was Caesar?", 0.1, threshold=0.95).grey


def test_the_detail_names_the_words() -> None:
    verdict = Guard().judge("How do I buy a boat?", "How do I sell a boat?", 0.97, threshold=0.95)

    assert verdict.detail == "buy | sell"
