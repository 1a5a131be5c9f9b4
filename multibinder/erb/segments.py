"""Cuts the text of an ERB template into text and tags, as Ruby's ERB::Compiler does.

Responsible for the tags and for what trimming takes away; Ruby inside the tags is the lexer's. Source:
ERB in Ruby's standard library (class documentation), and what Ruby 3.1 was seen to give.

The gem used trim mode nil. A template that uses -%> or <%- around code is no valid one in that mode,
so all of it is read in trim mode '-'; where only comments end in -%> it stays in the gem's mode.
"""

import re

TEXT = 'text'
CODE = 'code'
VALUE = 'value'     # <%= %>

_OPENING = re.compile(r'<%[%=#]?')
_OPENING_TRIM = re.compile(r'<%%|<%=|<%#|<%-|<%')
_CLOSING = re.compile(r'%%?>')
_CLOSING_TRIM = re.compile(r'-%>|%%?>')
_NEWLINE = re.compile(r'\r?\n|\Z')


def split(text):
    """Return the segments of a template: a list of (kind, line from 1, content). The content of a tag
    is what Ruby sees of it; comments are gone. Text pieces next to each other stay as they are: in
    Ruby they are one."""
    if '-%>' in text or '<%-' in text:
        segments, trimmed = _split(text, True)
        if trimmed:
            return segments
    return _split(text, False)[0]


def _split(text, trim):
    """Return (segments, whether a tag other than a comment was trimmed)."""
    opening, closing = (_OPENING_TRIM, _CLOSING_TRIM) if trim else (_OPENING, _CLOSING)
    segments = []
    content = []            # of the text being collected
    begun = [1]             # its line
    trimmed = False
    position = 0
    line = 1
    anchor = 0              # where Ruby's scanner stands: to it that is the beginning of a line
    size = len(text)

    def flush():
        joined = ''.join(content)
        if joined:
            segments.append((TEXT, begun[0], joined))
        del content[:]

    while position < size:
        found = opening.search(text, position)
        before = text[position:found.start() if found else size]
        if not content:
            begun[0] = line
        sign = found.group() if found else None
        if sign == '<%-':
            kept = before.rstrip(' \t')
            at = position + len(kept)
            if at == anchor or text[at - 1:at] == '\n':
                before = kept
        content.append(before)
        line += before.count('\n')
        if not found:
            break
        position = anchor = found.end()
        if sign == '<%%':
            content.append('<%')
            continue
        start = line
        pieces = []
        while True:
            end = closing.search(text, position)
            piece = text[position:end.start() if end else size]
            pieces.append(piece)
            line += piece.count('\n')
            if not end:
                position = size
                break
            position = anchor = end.end()
            if end.group() != '%%>':
                break
            pieces.append('%>')
        code = ''.join(pieces)
        if not end:
            # A tag that does not end loses its mark, and what is in it is text. What was text before
            # it has been put out already, so both are pieces of their own.
            flush()
            begun[0] = start
            content.append(code)
            break
        flush()
        if sign != '<%#':
            trimmed = trimmed or sign == '<%-' or end.group() == '-%>'
            segments.append((VALUE if sign == '<%=' else CODE, start, code))
        if end.group() == '-%>':
            newline = _NEWLINE.match(text, position)
            if newline:
                # Ruby ends its own line here, so that a comment in the tag ends with it.
                segments.append((CODE, line, '\n'))
                line += newline.group().count('\n')
                position = anchor = newline.end()
    flush()
    return segments, trimmed
