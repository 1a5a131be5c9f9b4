"""What the value of an expression is in the rendered text, for both ways to run a Mako template."""

import re

from multibinder.pattern import Pattern

# What Python shows of an object that has no text of its own, a generator for one.
_NO_TEXT = Pattern(r'<.* at 0x[0-9a-f]+>', re.S)


class NotText(Exception):
    """A value that has no text of its own."""

    def __init__(self, value):
        shown = 'bytes: {!r}'.format(bytes(value[:40])) if isinstance(value, (bytes, bytearray)) else \
            'of type ' + type(value).__name__
        Exception.__init__(self, 'the value is no text but ' + shown)


class _None(str):
    """The text of None: known by its identity wherever it comes out."""


NONE = _None('None')


def text_of(value):
    """Return the text of an expression's value (str; NONE for None, as in Mako). Raises NotText."""
    kind = type(value)
    if kind is str:
        return value
    if kind is int:
        return str(value)
    if value is None:
        return NONE
    if isinstance(value, str):
        return str.__str__(value)
    if isinstance(value, (bytes, bytearray)) or callable(value) and kind.__name__ != 'Undefined':
        raise NotText(value)
    text = str(value)
    if ' at 0x' in text and _NO_TEXT.search(text):
        raise NotText(value)
    return text
