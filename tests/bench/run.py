"""`make bench`: the figures, with their aims, and the survival table beside Debian's haproxy.service. Markdown.

    run.py [--release NAME ...] [--deb FILE] [--only SECTION ...] [--rounds N] [--output FILE]

Everything is measured on the installed package in a container with systemd. Each figure is a median; what is compared
is measured by turns in one run. A figure that was taken while something else used the machine says little: the load
average before and after each section is printed with it.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time

HERE = os.path.dirname(os.path.abspath(__file__))
TESTS = os.path.dirname(HERE)
sys.path[:0] = [TESTS, os.path.join(TESTS, 'system')]

import build_deb  # noqa: E402
import container  # noqa: E402
import survival  # noqa: E402
from instances import Instance, get, plain, template  # noqa: E402
from traffic import Traffic  # noqa: E402

# Reads the clock right before systemctl starts: what nsenter takes to get in is not the service's.
TIMED = '''\
import subprocess, sys, time
start = time.monotonic()
status = subprocess.call(sys.argv[1:])
print(start, time.monotonic(), status)
'''
OUTPUT = []
# A round whose load generator was later than this was disturbed by something else on the machine.
LATE_MS = 10


def say(text):
    sys.stderr.write('bench: %s\n' % text)
    sys.stderr.flush()


def emit(line=''):
    OUTPUT.append(line)
    print(line)
    sys.stdout.flush()


def table(*rows):
    """A markdown table; the first row is the head."""
    emit('| ' + ' | '.join(str(cell) for cell in rows[0]) + ' |')
    emit('|' + '---|' * len(rows[0]))
    for row in rows[1:]:
        emit('| ' + ' | '.join(str(cell) for cell in row) + ' |')
    emit()


def figure(value, aim, unit):
    """(value, aim) as cells; a missed aim is in bold."""
    shown = '%.3g %s' % (value, unit) if value < 1000 else '%d %s' % (value, unit)
    return (shown if value <= aim else '**%s**' % shown), '<= %g %s' % (aim, unit)


def prepared(machine, deb):
    machine.put_file(deb, '/root/' + os.path.basename(deb))
    machine.run(['dpkg', '-i', '/root/' + os.path.basename(deb)], timeout=120)
    machine.run('systemctl disable --now haproxy')


def timed(machine, *argv):
    """(start, end, status) of a command in the machine; CLOCK_MONOTONIC, seconds."""
    start, end, status = machine.out(['python3', '-c', TIMED] + list(argv)).split()
    return float(start), float(end), int(status)


# -- sections ------------------------------------------------------------------

def binder(options, machine, deb):
    """The binder and the renderer, alone."""
    machine.put_file(os.path.join(HERE, 'inside.py'), '/root/inside.py')
    found = json.loads(machine.out(['python3', '/root/inside.py'], timeout=300))
    rows = [('figure', 'measured', 'aim', 'the Ruby original')]
    for name, key, aim, unit, ruby in (
            ('binder: start to first answered bind', 'start_ms', 60, 'ms', '90 ms'),
            ('binder: memory, idle', 'memory_idle_mb', 12, 'MB', '14.4 MB'),
            ('binder: memory, 5,000 sockets', 'memory_5000_mb', 16, 'MB', '21.8 MB'),
            ('bind on a kept connection, known address, p50', 'kept_us', 40, 'us', '103 us'),
            ('the same with 5,000 sockets held', 'kept_5000_us', 40, 'us', '-'),
            ('bind with a new connection each, p50', 'new_us', 90, 'us', '124 us'),
            ('252 known addresses in one request, per address', 'known_252_us', 15, 'us', '-'),
            ('252 fresh addresses in one request, per address', 'fresh_252_us', 15, 'us', '-'),
            ('render only, whole process, 1 bind', 'render_1_ms', 90, 'ms', '98 ms'),
            ('render only, 100 binds', 'render_100_ms', 100, 'ms', '138 ms'),
            ('render only, 1000 binds', 'render_1000_ms', 170, 'ms', '348 ms')):
        rows.append((name,) + figure(found[key], aim, unit) + (ruby,))
    table(*rows)


def reloads(options, machine, deb):
    """`systemctl reload` to the first answer of the new generation, by turns with haproxy.service."""
    ours, native = Instance(machine, 'bench'), Instance(machine)
    rows = [('binds', 'multibinder', 'haproxy.service', 'ratio', 'aim', 'wrapper memory (aim <= 12 MB)')]
    for count in (1, 100, 1000):
        say('reloads with %d binds' % count)
        extra = [("127.0.0.1", 20000 + number) for number in range(count - 1)]
        ours.write(template([('127.0.0.1', 8100)] + extra))
        native.write(plain([('127.0.0.1', 8200)] + [(address, port + 10000) for address, port in extra]))
        ours.systemctl('restart')
        native.systemctl('restart')
        taken = {'ours': [], 'native': []}
        with Traffic(machine, {'ours': ('127.0.0.1', 8100, 500), 'native': ('127.0.0.1', 8200, 500)}) as traffic:
            traffic.wait_new('ours', ())
            traffic.wait_new('native', ())
            for _ in range(options.rounds):
                for name, one in (('ours', ours), ('native', native)):
                    known = set(traffic.seen(name))
                    start, _, status = timed(machine, 'systemctl', 'reload', one.unit)
                    assert status == 0, one.unit
                    taken[name].append(1000 * (traffic.wait_new(name, known)[1] - start))
        status = machine.get('/proc/%d/status' % ours.main_pid())
        memory = next(int(line.split()[1]) for line in status.splitlines() if line.startswith('VmRSS:')) / 1024.0
        mine, theirs = statistics.median(taken['ours']), statistics.median(taken['native'])
        rows.append((count, '%.0f ms' % mine, '%.0f ms' % theirs,
                     ('%.2f' if mine <= 0.9 * theirs else '**%.2f**') % (mine / theirs), '<= 0.9',
                     ('%.1f MB' if memory <= 12 else '**%.1f MB**') % memory))
        ours.systemctl('stop')
        native.systemctl('stop')
    ours.remove()
    table(*rows)


AIMS = {
    'reload': 15, 'twenty reloads in a row': 15, 'restart': 250, 'kill -9 of the worker': 500,
    'kill -9 of all its haproxy': 750, 'binder: reload': 30, 'binder: SIGUSR1': 30, 'binder: restart': 30,
    'binder: kill -9': 30,
}


def survive(options, machine, deb):
    """Every row of "What survives what", with a template, with a plain config, and on haproxy.service, in one run."""
    outcomes = {}
    with tempfile.TemporaryDirectory() as directory:
        for kind in ('template', 'plain', 'native'):
            with survival.Arena(machine, deb, directory, native=kind == 'native', plain=kind == 'plain', slow=40) as arena:
                for row in survival.ROWS:
                    if not getattr(row, kind, True) or options.row and not any(word in row.name for word in options.row):
                        continue
                    outcomes[(row.name, kind)] = _rounds(arena, row, options.survival_rounds)
    rows = [('event', 'asked', 'failed', 'cut in flight', 'longest gap (aim)', 'p99.9', 'exit', 'serves afterwards',
             'plain config: asked', 'failed', 'cut in flight', 'longest gap',
             'haproxy.service: asked', 'failed', 'cut in flight', 'longest gap')]
    for row in survival.ROWS:
        mine = outcomes.get((row.name, 'template'))
        if mine is None:
            continue
        cells = [row.name] + _summary(mine)
        aim = AIMS.get(row.name)
        if aim is not None:
            gap = _median_gap(mine)
            cells[4] = ('%.0f ms (%d)' if gap <= aim else '**%.0f ms** (%d)') % (gap, aim)
        beside = [outcomes.get((row.name, kind)) for kind in ('plain', 'native')]
        rows.append(cells + [_statuses(mine), _served(mine)] + [
            cell for others in beside for cell in (_summary(others)[:4] if others else ['-'] * 4)])
    table(*rows)
    late = sum(not _quiet(outcome) for some in outcomes.values() for outcome in some)
    emit('Asked, failed and cut: all rounds together. Gaps and p99.9: the median of the rounds in which the load generator '
         'itself was late by no more than %d ms; %d rounds of %d were not like that, since something else used the machine.'
         % (LATE_MS, late, sum(len(some) for some in outcomes.values())))
    emit()


def _rounds(arena, row, wanted):
    """Outcomes of a row: until `wanted` rounds were quiet, three times as many at most."""
    found = []
    while len(found) < 3 * wanted and sum(_quiet(outcome) for outcome in found) < wanted:
        say('%s: %s' % ('haproxy.service' if arena.native else 'plain config' if arena.plain else 'multibinder', row.name))
        found.append(arena.run(row))
        if not arena.native and found[-1].problems():
            say('PROBLEM: %s\n%s' % (found[-1].problems(), found[-1].describe()))
        if row.once:
            break
    return found


def _quiet(outcome):
    return outcome.own_delay() <= LATE_MS


def _median_gap(outcomes):
    return statistics.median([outcome.gap() for outcome in outcomes if _quiet(outcome)] or
                             [outcome.gap() for outcome in outcomes])


def _summary(outcomes):
    kinds = {}
    for outcome in outcomes:
        for kind, count in outcome.kinds().items():
            kinds[kind] = kinds.get(kind, 0) + count
    failed = sum(kinds.values())
    words = '%d' % failed
    if failed:
        words += ' (%s)' % ', '.join('%d %s' % (count, kind) for kind, count in sorted(kinds.items()))
    quiet = [outcome for outcome in outcomes if _quiet(outcome)] or outcomes
    return [sum(outcome.total('asked') for outcome in outcomes), words,
            sum(outcome.slow('cut') for outcome in outcomes), '%.0f ms' % _median_gap(outcomes),
            '%.0f ms' % statistics.median(outcome.p999() for outcome in quiet)]


def _statuses(outcomes):
    return ', '.join(sorted(set('-' if outcome.status is None else str(outcome.status) for outcome in outcomes)))


def _served(outcomes):
    return 'new' if all(outcome.generations for outcome in outcomes) else \
        'the same' if not any(outcome.generations for outcome in outcomes) else 'differs'


def many(options, machine, deb):
    """100 instances on one host, each reloaded at once."""
    count = 100
    some = [Instance(machine, 'many%d' % number) for number in range(count)]
    say('starting %d instances' % count)
    for number, one in enumerate(some):
        one.write(template([('127.0.0.1', 21000 + number)]))
    units = [one.unit for one in some]
    start, end, status = timed(machine, 'systemctl', 'start', *units)
    assert status == 0, 'not all instances start'
    began = end - start
    before = [get(machine, 'http://127.0.0.1:%d/' % (21000 + number)) for number in range(count)]
    say('reloading %d instances' % count)
    start, end, status = timed(machine, 'systemctl', 'reload', *units)
    after = [get(machine, 'http://127.0.0.1:%d/' % (21000 + number)) for number in range(count)]
    new = sum(one != other for one, other in zip(before, after))
    memory = sum(int(line) for line in machine.out('ps -C multibinder-haproxy-wrapper,multibinder-hap -o rss= || true').split())
    table(('figure', 'measured', 'aim'),
          ('instances that reload when all are told at once', '%d of %d, exit status %d' % (new, count, status), 'all succeed'),
          ('start of all', '%.1f s' % began, '-'), ('reload of all', '%.1f s' % (end - start), '-'),
          ('memory of all wrappers together', '%d MB' % (memory // 1024), '-'))
    machine.run(['systemctl', 'stop'] + units, timeout=120)


SECTIONS = (('binder', binder), ('reloads', reloads), ('many', many), ('survival', survive))


def main():
    parser = argparse.ArgumentParser(description=__doc__.split('\n')[0])
    parser.add_argument('--release', action='append', default=[])
    parser.add_argument('--deb', help='the package to measure; built from this tree by default')
    parser.add_argument('--only', action='append', choices=[name for name, _ in SECTIONS], default=[])
    parser.add_argument('--rounds', type=int, default=15, help='reloads measured for each of the two by turns')
    parser.add_argument('--survival-rounds', type=int, default=3)
    parser.add_argument('--row', action='append', default=[], help='survival: only rows with this in their name')
    parser.add_argument('--output', help='file to write the markdown to, besides standard output')
    options = parser.parse_args()
    reason = container.why_not()
    if reason:
        sys.exit('bench: ' + reason)
    with tempfile.TemporaryDirectory(prefix='multibinder-bench.') as directory:
        deb = options.deb
        if deb is None:
            say('building the package')
            deb = build_deb.build(directory)
        for release in options.release or [container.host_release() or 'bookworm']:
            for name, section in SECTIONS:
                if options.only and name not in options.only:
                    continue
                with container.Container(release, limit=3000) as machine:
                    prepared(machine, deb)
                    emit('### %s (%s, %s)' % (section.__doc__.split('\n')[0].rstrip('.'), release,
                                              machine.out('haproxy -v | head -1').split(' 20')[0]))
                    emit()
                    before = os.getloadavg()[0]
                    began = time.monotonic()
                    section(options, machine, deb)
                    emit('`%s`, %d s, %d cores, load average before %.1f, after %.1f' % (
                        'make bench' if not options.only else 'tests/bench/run.py --only ' + name,
                        time.monotonic() - began, os.cpu_count(), before, os.getloadavg()[0]))
                    emit()
    if options.output:
        with open(options.output, 'w') as stream:
            stream.write('\n'.join(OUTPUT) + '\n')


if __name__ == '__main__':
    try:
        main()
    except (container.ContainerError, build_deb.BuildError, AssertionError, OSError, subprocess.SubprocessError) as error:
        sys.exit('bench: %s' % error)
