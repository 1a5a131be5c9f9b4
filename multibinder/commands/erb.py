"""multibinder-haproxy-erb: render, claim, and become haproxy."""

import argparse
import os
import sys

from multibinder import __version__, log
from multibinder.client import Client, socket_path
from multibinder.commands import fail_in_words
from multibinder.errors import HaproxyError, TemplateError, reason_of
from multibinder.haproxy import check, process
from multibinder.haproxy.attempt import sources_of
from multibinder.haproxy.command import Command
from multibinder.haproxy.config import RenderedConfig
from multibinder.haproxy.instance import instance_name, no_template
from multibinder.haproxy.rendering import render_all
from multibinder.process import place, reset_signals

NAME = 'multibinder-haproxy-erb'
WRITE_ONLY = '--erb-write-only'
CLEAR = ('MULTIBINDER_SOCK is set to the empty string: the addresses are written in clear and haproxy binds them '
         'itself')


@fail_in_words(NAME)
def main(argv=None):
    """Run the command with `argv` (list of str, sys.argv by default); return the exit status. It returns
    only when haproxy was not to be run."""
    words = sys.argv[1:] if argv is None else list(argv)
    if not words or words[0].startswith('-') and WRITE_ONLY not in words:
        _parser().parse_args(words)
    write_only = WRITE_ONLY in words
    command = Command([word for word in words if word != WRITE_ONLY], need_program=not write_only)
    sources = sources_of(command)
    if sources[0].template is None:
        raise TemplateError(no_template(sources[0].config))
    process.raise_descriptor_limit()
    clear = socket_path() == ''
    texts, rendered = render_all(sources, instance_name(sources[0]), clear=clear)
    for warning in rendered.warnings:
        log.warning(warning)
    if clear and rendered.endpoints:
        log.warning(CLEAR)
    configs = [RenderedConfig(source.config, source.template) for source in sources]
    if write_only:
        return _write(configs, texts)
    if any(option == '-c' for option, _ in command.options):
        # Old units check this way before a reload: that must not touch the config in force.
        verdict = check.check(command, sources, texts, rendered)
        log.info(check.explained(verdict.output, rendered.lines) or 'Configuration file is valid')
        return verdict.status if verdict.status >= 0 else 128 - verdict.status
    sockets = [] if clear else _claim(rendered.endpoints)
    _write(configs, texts)
    replaced = {path: source.config for source in sources for path in (source.template, source.config)}
    return _become(command.unchanged(replaced), rendered.layout.place([sock.fileno() for sock in sockets]))


def _parser():
    parser = argparse.ArgumentParser(
        prog=NAME, allow_abbrev=False,
        usage='{0} HAPROXY [OPTION...] -f TEMPLATE [OPTION...]\n       {0} {1} -f TEMPLATE'.format(NAME, WRITE_ONLY),
        description='Renders TEMPLATE (NAME.cfg.tmpl, NAME.cfg.erb or NAME.cfg.mb) to NAME.cfg beside it, claims its '
                    'listeners from the binder and runs haproxy in its own place, with -f NAME.cfg.',
        epilog='MULTIBINDER_SOCK names the control socket of the binder; set and empty, the addresses are written in '
               'clear. Exit status: 0 done, 1 refused or failed, 2 wrong usage, otherwise haproxy\'s.')
    parser.add_argument(WRITE_ONLY, action='store_true', help='render and stop: claim nothing, run nothing')
    parser.add_argument('--version', action='version', version='{} {}'.format(NAME, __version__))
    parser.add_argument('command', metavar='HAPROXY', nargs=argparse.REMAINDER, help='haproxy and its options')
    return parser


def _claim(endpoints):
    """Return the sockets of the endpoints, claimed for good: haproxy keeps no connection to the binder."""
    if not endpoints:
        return []
    wanted = list({endpoint: endpoint for endpoint in endpoints}.values())
    with Client() as client:
        sockets = dict(zip(wanted, client.bind_all(wanted)))
    return [sockets[endpoint] for endpoint in endpoints]


def _write(configs, texts):
    written = []
    try:
        for config, text in zip(configs, texts):
            config.write(text)
            written.append(config)
        for config in configs:
            config.install()
            config.keep()
    finally:
        for config in written:
            config.discard()


def _become(words, fds):
    """Run `words` in this process, with the descriptors `fds` (see Child.become) and no others."""
    place(fds)
    process.restore_descriptor_limit()
    reset_signals()
    try:
        os.execvp(words[0], words)
    except OSError as error:
        raise HaproxyError('cannot run {}: {}'.format(words[0], reason_of(error)))
