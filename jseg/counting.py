"""A number with its words, which agree with it."""

from __future__ import annotations

import re

FORMS = re.compile(r"\[([a-z ]+)(?:\|([a-z ]*))?\]")  # [s], [is|are]


def counted(count: int, words: str) -> str:
    """The number with those of the words' forms that go with it.

    `words` has them in brackets: of "image[s] [is|are] left out", 1 gives "1 image is left out" and
    2 "2 images are left out".
    """
    return f"{count} {agreeing(count, words)}"


def agreeing(count: int, words: str) -> str:
    """`counted` without the number."""

    def form(match) -> str:
        one, several = match.groups()
        if several is None:
            return "" if count == 1 else one
        return one if count == 1 else several

    return FORMS.sub(form, words)
