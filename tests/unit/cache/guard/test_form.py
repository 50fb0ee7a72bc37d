"""The surface form: what is folded, and what keeps its own form."""

from __future__ import annotations

import pytest

from inferdock.cache.guard import surface_form

SAME = {
    "white space": ("  What is\ttwo  plus \r\n\n two ", "What is two plus\ntwo"),
    "case": ("what is the capital of france?", "What is the capital of France?"),
    "capitals throughout": ("WHERE IS MY W-2", "where is my w-2"),
    "mark at the end": ("What is Docker", "What is Docker?"),
    "space before a mark": ("Why is the sea salty ?", "Why is the sea salty?"),
    "full stop": ("Turn on the light.", "turn on the light"),
    "curly quotes": ("What’s “time”?", 'What\'s "time"?'),
    "wide letters": ("Ｗhat is Ｄocker？", "What is Docker?"),
    "unseen characters": ("What is\u200b Docker\ufeff", "What is Docker"),
    "please at the end": ("What is my limit please", "what is my limit"),
    "please at the beginning": ("Please tell me a joke", "tell me a joke"),
    "a greeting": ("hey, who is your maker", "who is your maker"),
    "a greeting in a template": ('Answer this: "hey, where is it"', 'Answer this: "where is it"'),
    "mark in a quotation": ("Say it as a pirate: 'Where is it?'", "Say it as a pirate: 'where is it'"),
    "spaces in a quotation": ("Reply to this: '  where is it '", "Reply to this: 'where is it'"),
    "please in a template": ("Classify.\nText: my card is lost please", "Classify.\nText: my card is lost"),
    "an acronym among capitals": ("WHO IS IT", "who is it"),
    "mark behind a question about code": ("What is x == y called?", "What is x == y called"),
    "case beside a function's name": ("can a program run without main()", "Can a program run without main()?"),
    "accents written in two ways": ("Qu'est-ce que le caf\u0065\u0301", "Qu'est-ce que le caf\u00e9"),
}
DIFFERENT = {
    "a country and a pronoun": ("Can you help US?", "Can you help us?"),
    "a language and a verb": ("How do I say Polish shoes?", "How do I say polish shoes?"),
    "languages": ("How do I learn C?", "How do I learn C#?"),
    "a sign": ("What is -5 squared?", "What is 5 squared?"),
    "a factorial": ("What is 5!", "What is 5"),
    "a power": ("What is 2²", "What is 22"),
    "a comma": ("No, stop", "No stop"),
    "please as a word": ("How do you say please", "How do you say"),
    "a function's name": ("What does parseAll() do?", "What does parseall() do?"),
    "case in code": ("Explain `Foo.bar()`", "Explain `foo.bar()`"),
    "indentation in code": ("if x:\n    a = 1\n    b = 2", "if x:\n    a = 1\nb = 2"),
    "an operator": ("a == b", "a = b"),
    "paths": ("open C:\\temp", "open c:\\Temp"),
    "one mark and another": ("?", "!"),
    "lines": ("a\nb", "a b"),
}


@pytest.mark.parametrize(("one", "other"), SAME.values(), ids=SAME)
def test_texts_that_differ_on_the_surface_have_one_form(one: str, other: str) -> None:
    assert surface_form(one) == surface_form(other)


@pytest.mark.parametrize(("one", "other"), DIFFERENT.values(), ids=DIFFERENT)
def test_texts_that_may_mean_something_else_keep_their_forms(one: str, other: str) -> None:
    assert surface_form(one) != surface_form(other)


def test_a_text_of_marks_only_is_its_own_form() -> None:
    assert surface_form(" ?! ") == "?!"
    assert surface_form("") == ""


def test_code_never_has_the_form_of_prose() -> None:
    assert surface_form("x == y").startswith("\0")
