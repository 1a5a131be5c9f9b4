"""multibinderctl: looks into a binder, and acts on it."""

import argparse
import json
import sys
import time

from multibinder import __version__, client
from multibinder.commands import fail_in_words
from multibinder.endpoint import Endpoint
from multibinder.errors import Error

REEXEC_TIMEOUT = 45.0   # seconds; the trial start of the new code has its own, shorter deadline


def parser():
    """Return the command's argument parser."""
    result = argparse.ArgumentParser(prog='multibinderctl', description='Look into a binder, and act on it.',
                                     epilog='See multibinderctl(8).')
    result.add_argument('--socket', metavar='PATH',
                        help='the control socket (default: MULTIBINDER_SOCK, or {})'.format(client.DEFAULT_SOCKET))
    result.add_argument('--version', action='version', version='multibinderctl ' + __version__)
    verbs = result.add_subparsers(dest='verb', metavar='VERB')
    verbs.required = True
    one = verbs.add_parser('list', help='show each listener, who claims it, and its queue')
    one.add_argument('--json', action='store_true', help='as JSON')
    one.set_defaults(run=_list)
    one = verbs.add_parser('status', help='show the binder')
    one.add_argument('--json', action='store_true', help='as JSON')
    one.set_defaults(run=_status)
    one = verbs.add_parser('release', help='end the claim for good on an endpoint, and close it if nobody leases it')
    one.add_argument('endpoint', nargs='+', metavar='ENDPOINT', help="as `list` prints it, or ADDRESS:PORT, or a path")
    one.set_defaults(run=_release)
    one = verbs.add_parser('reexec', help='let the binder re-execute itself in place, and wait until it has')
    one.set_defaults(run=_reexec)
    return result


@fail_in_words('multibinderctl')
def main(argv=None):
    arguments = parser().parse_args(sys.argv[1:] if argv is None else argv)
    timeout = REEXEC_TIMEOUT if arguments.verb == 'reexec' else 10.0
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
        claims = ', '.join(_claim(claim) for claim in one['claims'])
        if one['idle'] is not None:
            claims = 'none for {}'.format(_seconds(one['idle']))
        rows.append((one['endpoint'], one['state'], queue, _seconds(one['age']), claims))
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    for row in rows:
        print('  '.join(cell.ljust(width) for cell, width in zip(row, widths)).rstrip())
    return 0


def _claim(claim):
    who = claim['unit'] or ('pid {}'.format(claim['pid']) if claim['pid'] else 'of before a restart')
    if claim['unit'] and claim['pid']:
        who += ' (pid {})'.format(claim['pid'])
    return '{} {}'.format(claim['kind'], who)


def _status(binder, arguments):
    status = binder.call('status')
    if arguments.json:
        print(json.dumps(status, indent=2, sort_keys=True))
        return 0
    counters = status['counters']
    print('binder {} on {}, pid {}, for {}'.format(
        status['version'], binder.path, status['pid'], _seconds(time.time() - status['started'])))
    print('{} listeners, {} of them claimed; an unclaimed one is kept for {:g} s'.format(
        status['listeners'], status['claimed'], status['linger']))
    print('{} connections; {} descriptors at most; fd store {}'.format(
        status['connections'], status['descriptors'], 'in use' if status['store'] else 'not there'))
    print(', '.join('{} {}'.format(name.replace('_', ' '), counters[name]) for name in sorted(counters)))
    return 0


def _release(binder, arguments):
    endpoints = [Endpoint.parse(text) for text in _joined(arguments.endpoint)]
    failed = []
    for endpoint, outcome in zip(endpoints, binder.release(endpoints, lease=False)):
        if outcome == 'unknown':
            failed.append('cannot release {}: the binder does not hold it'.format(endpoint))
        elif outcome == 'claimed':
            failed.append('cannot close {}: it is still leased, see multibinderctl list'.format(endpoint))
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


def _seconds(seconds):
    """Return a time span as people read it: 12.3s, 4m05s, 3h12m, 5d02h."""
    if seconds < 60:
        return '{:.1f}s'.format(seconds)
    minutes, rest = divmod(int(seconds), 60)
    if minutes < 60:
        return '{}m{:02d}s'.format(minutes, rest)
    hours, minutes = divmod(minutes, 60)
    if hours < 24:
        return '{}h{:02d}m'.format(hours, minutes)
    return '{}d{:02d}h'.format(*divmod(hours, 24))
