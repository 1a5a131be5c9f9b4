"""The code blocks of README.md, as printed: what is documented is what is tested."""

import os
import re

README = os.path.join(os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__)))), 'README.md')


def block(heading, language):
    """The first fenced block of a language in the section with that heading."""
    with open(README, encoding='utf-8') as stream:
        text = stream.read()
    for section in re.split(r'^## +', text, flags=re.MULTILINE):
        if section.startswith(heading + '\n'):
            found = re.search(r'^```%s\n(.*?)^```$' % language, section, re.MULTILINE | re.DOTALL)
            if found:
                return found.group(1)
    raise AssertionError('README.md has no block %r in a section %r' % (language, heading))
