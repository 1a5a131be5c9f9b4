"""multibinderctl: looks into a binder, and acts on it."""

import argparse
import json
import os
import sys
import time

from multibinder import __version__, client, report
from multibinder.commands import ctl_adopt, fail_in_words
from multibinder.endpoint import Endpoint
from multibinder.errors import BinderAway, Error, reason_of
from multibinder.haproxy.instance import CONFIG_DIRECTORY
from multibinder.haproxy.state import read_states
from multibinder.metrics import exposition

TIMEOUT = 10.0
REEXEC_TIMEOUT = 45.0   # seconds; the trial start of the new code has its own, shorter deadline


def parser():
    """Return the command's argument parser."""
    result = argparse.ArgumentParser(prog='multibinderctl', description='Look into a binder, and act on it.',
                                     epilog='See multibinderctl(8).')
    result.add_argument('--socket', metavar='PATH',
                        help='the control socket (default: MULTIBINDER_SOCK, or that of /etc/default/multibinder)')
    result.add_argument('--version', action='version', version='multibinderctl ' + __version__)
    verbs = result.add_subparsers(dest='verb', metavar='VERB')
    verbs.required = True
    one = verbs.add_parser('list', help='show each listener, who claims it, and its queue')
    one.add_argument('--json', action='store_true', help='as JSON')
    one.set_defaults(run=_list)
    one = verbs.add_parser('status', help='show the binder and the instances, what is wrong and what to do')
    one.add_argument('--json', action='store_true', help='as JSON')
    one.set_defaults(run=_status, alone=True)
    one = verbs.add_parser('release', help='end the claim for good on an endpoint, and close it if nobody leases it')
    one.add_argument('endpoint', nargs='+', metavar='ENDPOINT', help="as `list` prints it, or ADDRESS:PORT, or a path")
    one.set_defaults(run=_release)
    one = verbs.add_parser('reexec', help='let the binder re-execute itself in place, and wait until it has')
    one.set_defaults(run=_reexec)
    one = verbs.add_parser('metrics', help="print the figures in Prometheus' text format")
    one.add_argument('--output', metavar='FILE', help='replace FILE by them, for the textfile collector')
    one.set_defaults(run=_metrics, alone=True)
    ctl_adopt.add_verbs(verbs)
    return result


@fail_in_words('multibinderctl')
def main(argv=None):
    arguments = parser().parse_args(sys.argv[1:] if argv is None else argv)
    if getattr(arguments, 'alone', False):      # has something to say without a binder, too
        status = arguments.run(arguments)
    else:
        timeout = REEXEC_TIMEOUT if arguments.verb == 'reexec' else TIMEOUT
        with client.Client(arguments.socket, timeout) as binder:
            status = arguments.run(binder, arguments)
    sys.stdout.flush()
    return status


def _list(binder, arguments):
    listeners = sorted(binder.call('list'), key=lambda one: one['endpoint'])
    if arguments.json:
        print(json.dumps(listeners, indent=2, sort_keys=True))
        return 0
    rows = [('ENDPOINT', 'STATE', 'QUEUE', 'AGE', 'CLAIMS')]
    for one in listeners:
        queue = '-' if one['queue'] is None else '{}/{}'.format(one['queue'], one['backlog'])
        claims = ', '.join(report.claimant(claim) for claim in one['claims'])
        if one['idle'] is not None:
            claims = 'none for {}'.format(report.seconds(one['idle']))
        rows.append((one['endpoint'], one['state'], queue, report.seconds(one['age']), claims))
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    for row in rows:
        print('  '.join(cell.ljust(width) for cell, width in zip(row, widths)).rstrip())
    for state in read_states():
        for sentence in state.get('unheld', ()) if state['alive'] else ():
            print('not held, {}: {}'.format(state['name'], sentence))
    return 0


def _look(arguments):
    """Return (the binder's status, its list, why it is away): None, [] and a sentence when it is."""
    try:
        with client.Client(arguments.socket, TIMEOUT) as binder:
            return binder.call('status'), binder.call('list'), None
    except BinderAway as error:
        return None, [], str(error)


def _status(arguments):
    status, listeners, away = _look(arguments)
    instances = read_states()
    if arguments.json:
        print(json.dumps({'binder': status, 'away': away, 'instances': instances}, indent=2, sort_keys=True))
        return 1 if away else 0
    idle = report.templates_without([one['name'] for one in instances], CONFIG_DIRECTORY)
    path = client.socket_path() if arguments.socket is None else arguments.socket
    lines, troubles = report.screen(path, status, away, listeners, instances, idle, time.time())
    print('\n'.join(lines))
    for trouble, advice in troubles:
        print('\n! {}\n  -> {}'.format(trouble, advice))
    return 1 if away else 0


def _metrics(arguments):
    status, listeners, _ = _look(arguments)
    text = exposition(status, sorted(listeners, key=lambda one: one['endpoint']), read_states(), time.time())
    if arguments.output is None:
        sys.stdout.write(text)
        return 0
    # The collector may read at any moment: it finds the old file or the new one, whole.
    fresh = '{}.{}.new'.format(arguments.output, os.getpid())
    try:
        with open(fresh, 'w') as file:
            file.write(text)
        os.rename(fresh, arguments.output)
    except OSError as error:
        raise Error('cannot write the metrics to {}: {}'.format(arguments.output, reason_of(error))) from None
    return 0


def _release(binder, arguments):
    endpoints = [Endpoint.parse(text) for text in _joined(arguments.endpoint)]
    failed = []
    for endpoint, outcome in zip(endpoints, binder.release(endpoints, lease=False)):
        if outcome == 'unknown':
            failed.append('cannot release {}: the binder does not hold it'.format(endpoint))
        elif outcome == 'claimed':
            failed.append('cannot close {}: it is still leased; stop what "multibinderctl list" shows beside it'.format(
                endpoint))
        else:
            print('{} released'.format(endpoint))
    if failed:
        raise Error('\n'.join(failed))
    return 0


def _joined(words):
    """Return the endpoints among the words: the printed form has a space, and may come unquoted."""
    texts = []
    for word in words:
        if texts and (texts[-1] in ('tcp', 'unix') or word.startswith('interface=')):
            texts[-1] += ' ' + word
        else:
            texts.append(word)
    return texts


def _reexec(binder, arguments):
    binder.call('reexec')
    status = binder.call('status')
    print('the binder (pid {}) runs version {}, with {} listeners'.format(
        status['pid'], status['version'], status['listeners']))
    return 0
