"""What a refused call says: one line."""

import pytest


def refusal(call, *arguments, kind=ValueError, match=None, most=900, **named):
    """The line with which a call is refused."""
    with pytest.raises(kind, match=match) as error:
        call(*arguments, **named)
    message = str(error.value)
    assert "\n" not in message and len(message) < most, message
    return message
