"""Words agree with their number."""

import pytest

from jseg.counting import counted


@pytest.mark.parametrize(
    "count, words, said",
    (
        (0, "image[s]", "0 images"),
        (1, "image[s]", "1 image"),
        (2, "image[s]", "2 images"),
        (1, "process[es]", "1 process"),
        (2, "process[es]", "2 processes"),
        (1, "result[s] [was|were] changed", "1 result was changed"),
        (3, "result[s] [was|were] changed", "3 results were changed"),
        (1, "image[s] of [0, 1] and []", "1 image of [0, 1] and []"),
    ),
)
def test_words_agree_with_their_number(count, words, said):
    assert counted(count, words) == said
