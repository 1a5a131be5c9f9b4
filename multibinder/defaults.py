"""What the files of /etc/default say. They are parsed and never sourced: they are written for systemd's
EnvironmentFile and for people."""

import os
import re

DEFAULTS_FILE = '/etc/default/multibinder'
_ASSIGNMENT = re.compile(r'^\s*(?:export\s+)?([A-Za-z_][A-Za-z0-9_]*)=(.*)$')


def defaults_file():
    """Return the path (str) of the package's own file: MULTIBINDER_DEFAULTS, or /etc/default/multibinder."""
    return os.environ.get('MULTIBINDER_DEFAULTS') or DEFAULTS_FILE


def read_defaults(path):
    """Return the assignments (dict of str) of a file of /etc/default; none when it cannot be read."""
    found = {}
    try:
        with open(path, encoding='utf-8', errors='surrogateescape') as file:
            for line in file:
                match = _ASSIGNMENT.match(line)
                if match:
                    found[match.group(1)] = _unquoted(match.group(2).strip())
    except OSError:
        pass
    return found


def _unquoted(value):
    if len(value) >= 2 and value[0] == value[-1] and value[0] in '\'"':
        return value[1:-1]
    return value
