"""What the tests of the package share: the project's files, read the way Debian's tools read them."""

import configparser
import os
import re
import subprocess

PROJECT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
PYTHON = '/usr/bin/python3'
MAINTAINER_SCRIPTS = ('config', 'postinst', 'prerm', 'postrm')
PREFIX = 'debian/python3-multibinder.'


def path(name):
    return os.path.join(PROJECT, name)


def text(name):
    with open(path(name), encoding='utf-8') as stream:
        return stream.read()


def executables():
    return sorted(os.listdir(path('bin')))


def setup_cfg():
    parser = configparser.ConfigParser()
    parser.read(path('setup.cfg'), encoding='utf-8')
    return parser


def control():
    """The paragraphs of debian/control: a list of dicts, a folded field as one string."""
    paragraphs = []
    for block in text('debian/control').strip().split('\n\n'):
        fields, name = {}, None
        for line in block.splitlines():
            if line[0] in ' \t':
                fields[name] += '\n' + line.strip()
            else:
                name, _, value = line.partition(':')
                fields[name] = value.strip()
        paragraphs.append(fields)
    return paragraphs


def relations(field):
    """{package: (operator, version) or None} of a field like Depends; substitution variables left out."""
    found = {}
    for word in field.replace('\n', ' ').split(','):
        match = re.match(r'\s*([a-z0-9][a-z0-9+.-]*)(?:\s*\((\S+)\s*([^)]+)\))?', word)
        if match:
            found[match.group(1)] = (match.group(2), match.group(3)) if match.group(2) else None
    return found


def unit(name):
    """The settings of a unit file: a list of (section, key, value, comments before it)."""
    settings, comments, section = [], [], None
    for line in text('systemd/' + name).splitlines():
        if line.startswith('['):
            section, comments = line, []
        elif line.startswith('#'):
            comments.append(line)
        elif line:
            key, _, value = line.partition('=')
            settings.append((section, key, value, comments))
        else:
            comments = []
    return settings


def run(command, **options):
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, **options)
    out, _ = process.communicate()
    return process.returncode, out.decode('utf-8', 'replace')


def help_of(name, words=()):
    environment = dict(os.environ, PYTHONPATH=PROJECT, PYTHONDONTWRITEBYTECODE='1', COLUMNS='200')
    status, out = run([PYTHON, path('bin/' + name)] + list(words) + ['--help'], env=environment)
    assert status == 0, out
    return out


def verbs_of(name, words=()):
    """The subcommands of an executable, those of subcommands included: a list of lists of words."""
    found = []
    out = help_of(name, words)
    for verb in re.findall(r'^    ([a-z]+)  ', out.partition('\noptions:')[0].partition('positional arguments:')[2],
                           re.MULTILINE):
        found.append(list(words) + [verb])
        found += verbs_of(name, list(words) + [verb])
    return found
