"""Methods of String that look for a pattern, which is a string or a regular expression: split, sub, gsub."""

import re

from multibinder.erb.calls import integer, method, text
from multibinder.erb.refusal import Refusal
from multibinder.erb.string_methods import BLANKS
from multibinder.erb.values import Hash, Regexp, to_s

_REFERENCE = re.compile(r'\\(?:([0-9&])|(\\)|(.))', re.S)


@method(str, 'split', 0, 2)
def _split(program, value, args, block):
    limit = integer(args[1]) if len(args) > 1 else 0
    pattern = args[0] if args else None
    if not value:
        return []
    if limit == 1:
        return [value]
    most = limit - 1 if limit > 0 else 0    # Python's re counts splits, 0 for all
    if pattern is None or pattern == ' ':
        parts = re.split('[ \t\n\v\f\r\0]+', value.lstrip(BLANKS + '\0'), maxsplit=most)
        if parts == ['']:
            return [] if not limit else ['']
    elif isinstance(pattern, Regexp):
        parts = _split_by(value, pattern.compiled, most)
    elif text(pattern):
        parts = value.split(pattern, most or -1)
    else:
        parts = list(value[:most]) + [value[most:]] if most and most < len(value) else \
            list(value) + ([''] if limit else [])
    if not limit:
        while parts and not parts[-1]:
            parts.pop()
    return parts


def _split_by(value, pattern, most):
    """Split as Ruby does by a pattern: an empty match splits between signs, groups are among the parts."""
    parts = []
    start = 0
    for found in pattern.finditer(value):
        if found.end() == found.start() and (found.start() >= len(value) or found.start() == start == 0):
            continue
        if found.end() == found.start() and found.start() == start:
            continue
        if most and len(parts) >= most:
            break
        parts.append(value[start:found.start()])
        parts.extend(group for group in found.groups() if group is not None)
        start = found.end()
    return parts + [value[start:]]


@method(str, 'sub', 1, 2, 'may')
def _sub(program, value, args, block):
    return _replace(value, args, block, 1)


@method(str, 'gsub', 1, 2, 'may')
def _gsub(program, value, args, block):
    return _replace(value, args, block, 0)


def _replace(value, args, block, count):
    pattern = args[0].compiled if isinstance(args[0], Regexp) else re.compile(re.escape(text(args[0])))
    if len(args) == 1:
        if block is None:
            raise Refusal("ruby's .gsub without a replacement is not supported here")
        return pattern.sub(lambda found: to_s(block(found.group())), value, count=count)
    if isinstance(args[1], Hash):
        return pattern.sub(lambda found: to_s(args[1].get(found.group())), value, count=count)
    replacement = text(args[1])
    if '\\' not in replacement:
        return pattern.sub(lambda found: replacement, value, count=count)

    def expanded(found):
        def reference(mark):
            digit, backslash, other = mark.groups()
            if backslash:
                return '\\'
            if digit is not None:
                number = 0 if digit == '&' else int(digit)
                return (found.group(number) or '') if number <= found.re.groups else ''
            if other in "`'+k":
                raise Refusal("ruby's \\{} in a replacement is not supported here".format(other))
            return mark.group()
        return _REFERENCE.sub(reference, replacement)
    return pattern.sub(expanded, value, count=count)
