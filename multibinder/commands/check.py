"""multibinder-haproxy-check: what haproxy says of a template, before anything depends on it."""

import argparse
import difflib
import os
import shlex
import sys

from multibinder import __version__, log
from multibinder.commands import fail_in_words
from multibinder.defaults import read_defaults
from multibinder.errors import ConfigFileError, TemplateError, UsageError, reason_of
from multibinder.haproxy import check, process
from multibinder.haproxy.command import Command
from multibinder.haproxy.config import MARK, last_line, without_mark
from multibinder.haproxy.instance import RuntimeDirectory, instance_name, no_template, source_named
from multibinder.haproxy.layout import with_addresses
from multibinder.haproxy.rendering import Rendered, render_all
from multibinder.haproxy.state import ADDRESSES_FILE, read_addresses

NAME = 'multibinder-haproxy-check'
RENDER_SECONDS = 20.0


@fail_in_words(NAME)
def main(argv=None):
    """Run the command with `argv` (list of str, sys.argv by default); return the exit status."""
    options = _parser().parse_args(argv)
    process.raise_descriptor_limit()
    status = 0
    for name in options.names:
        if options.show:
            status = _show(name, options) or status
        elif options.diff:
            status = _diff(name, options) or status
        else:
            status = _check(name, options) or status
    return status


def _parser():
    parser = argparse.ArgumentParser(
        prog=NAME, allow_abbrev=False,
        description='Renders a template and lets haproxy check the outcome. Nothing is bound, written or '
                    'signalled, and no binder is needed.',
        epilog='Exit status: 0 done, 1 refused or failed, 2 wrong usage, otherwise haproxy\'s.')
    parser.add_argument('names', metavar='TEMPLATE|NAME', nargs='+',
                        help='a template, or the name of an instance, whose template is in /etc/haproxy')
    what = parser.add_mutually_exclusive_group()
    what.add_argument('--show', action='store_true', help='print the rendered text, addresses in clear')
    what.add_argument('--diff', action='store_true',
                      help='print what a reload would change in the config in force, addresses for descriptors')
    parser.add_argument('--strict', action='store_true', help='a ${name} that the template does not know is an error')
    parser.add_argument('--haproxy', metavar='PROGRAM', help='the haproxy to ask [/usr/sbin/haproxy, or in PATH]')
    parser.add_argument('--version', action='version', version='{} {}'.format(NAME, __version__))
    return parser


def _rendered(name, options, clear=False):
    """Return (Source, text, Rendered); a config that is written by hand is its own text."""
    source = source_named(name)
    if source.template is None:
        if last_line(source.config).startswith(MARK):
            raise TemplateError(no_template(source.config))
        return source, _read(source.config), Rendered([], [], {})
    texts, rendered = render_all([source], instance_name(source), clear=clear, strict=options.strict,
                                 deadline=RENDER_SECONDS)
    for warning in rendered.warnings:
        log.warning(warning)
    return source, texts[0], rendered


def _check(name, options):
    source, text, rendered = _rendered(name, options)
    program = options.haproxy or process.find_program('/usr/sbin/haproxy') or 'haproxy'
    command = Command([program] + _extra_options(source) + ['-f', source.config])
    if source.template is None:
        verdict = check.check(command, [], [], rendered)        # haproxy reads the file itself
    else:
        verdict = check.check(command, [source], [text], rendered)
    words = check.explained(verdict.output, rendered.lines)
    if words:
        _print(words + '\n')
    if verdict.status < 0:
        log.error('{}: haproxy was {}'.format(NAME, process.describe_exit(verdict.status)))
        return 128 - verdict.status
    if verdict.status == 0 and 'onfiguration file is valid' not in words:
        _print('Configuration file is valid\n')     # what haproxy itself says up to 2.7, or with -V
    return verdict.status


def _show(name, options):
    _, text, _ = _rendered(name, options, clear=True)
    _print(text)
    return 0


def _diff(name, options):
    source, text, rendered = _rendered(name, options)
    in_force = without_mark(_read(source.config)) if os.path.lexists(source.config) else ''
    if text and not text.endswith('\n'):
        text += '\n'
    # A number says nothing: what it stands for does, where the instance runs that could tell.
    runtime = RuntimeDirectory(instance_name(source))
    addresses = read_addresses(runtime.file(ADDRESSES_FILE))
    rendered_addresses = [one.haproxy_address() for one in rendered.endpoints]
    if addresses is None:
        addresses = rendered_addresses = []
    lines = difflib.unified_diff(
        with_addresses(in_force, addresses).splitlines(True), with_addresses(text, rendered_addresses).splitlines(True),
        source.config, '{} (rendered)'.format(source.template))
    _print(''.join(line if line.endswith('\n') else line + '\n' for line in lines))
    return 0


def _read(path):
    try:
        with open(path, encoding='utf-8', errors='surrogateescape', newline='') as file:
            return file.read()
    except OSError as error:
        raise ConfigFileError('cannot read {}: {}'.format(path, reason_of(error)))


def _extra_options(source):
    """Return the EXTRAOPTS (list of str) of the instance's unit: they are part of what it runs with."""
    path = os.path.join(os.environ.get('MULTIBINDER_DEFAULTS_DIR', '/etc/default'),
                        'haproxy-' + instance_name(source))
    text = read_defaults(path).get('EXTRAOPTS', '')
    try:
        return shlex.split(text)
    except ValueError as error:
        raise UsageError('EXTRAOPTS in {} cannot be read: {}'.format(path, error))


def _print(text):
    sys.stdout.flush()
    sys.stdout.buffer.write(text.encode('utf-8', 'surrogateescape'))
    sys.stdout.buffer.flush()
