"""The rows of "What survives what": each an event, done to a service under load, and what must then be true.

Responsible for the events, for the load around them, and for the judgement. test_survival.py asserts it for
multibinder; tests/bench prints it, with haproxy.service beside it.
"""

import os
import shutil
import tempfile

import build_deb
import container
from instances import Instance, files, get, plain, refused, template
from traffic import Traffic

BACKEND = 18080
OTHER_SOCKET = '/run/multibinder-other.sock'


class Row:
    """One event.

    event       function of an Arena; gives the exit status of what the operator would have typed, or None
    fails       that status is expected to be another than 0, and the same generation to serve on
    new         a new generation is expected to serve afterwards
    kills       processes are killed in the middle of answers: these answers, and only these, may be lost
    native      whether haproxy.service can go through it
    plain       whether it is tried with a plain config, too
    once        cannot be repeated on one machine
    """

    def __init__(self, name, event, fails=False, new=True, kills=False, native=False, plain=True, once=False):
        self.name = name
        self.event = event
        self.fails = fails
        self.new = new and not fails
        self.kills = kills
        self.native = native
        self.plain = plain
        self.once = once


class Outcome:
    """What clients saw of a row."""

    # Answers that one haproxy has under way at one moment, at this rate: accepted and not yet answered.
    UNDER_WAY = 20

    def __init__(self, row, report, status, generations, served):
        self.row = row
        self.report = report
        self.status = status
        self.generations = generations
        self.served = served

    def total(self, key):
        return sum(target[key] for target in self.report.values())

    def slow(self, key):
        return sum(target['slow'][key] for target in self.report.values())

    def kinds(self):
        found = {}
        for target in self.report.values():
            for kind, count in target['kinds'].items():
                found[kind] = found.get(kind, 0) + count
        return found

    def gap(self):
        return max(target['gap_ms'] for target in self.report.values())

    def p999(self):
        return max(target['p999_ms'] or 0 for target in self.report.values())

    def own_delay(self):
        return max(target['own_delay_ms'] for target in self.report.values())

    def problems(self):
        """What is not as it has to be for multibinder (list of str)."""
        found = []
        kinds = self.kinds()
        if self.row.kills:
            # In flight inside the killed process: the kernel resets or ends these connections.
            lost = sum(kinds.pop(kind, 0) for kind in ('reset', 'cut')) + self.slow('lost')
            if lost > self.UNDER_WAY:
                found.append('%d answers lost by a kill, more than were under way' % lost)
        else:
            if self.slow('cut'):
                found.append('%d answers in flight were cut' % self.slow('cut'))
            if self.slow('lost'):
                found.append('%d slow requests were accepted and lost' % self.slow('lost'))
        if self.slow('failed'):
            found.append('%d slow requests failed' % self.slow('failed'))
        if kinds:
            found.append('failed: %s' % kinds)
        if self.status is not None and (self.status != 0) != self.row.fails:
            found.append('exit status %d' % self.status)
        if self.row.new and not self.generations:
            found.append('no new generation serves')
        if self.row.fails and self.generations:
            found.append('another generation serves: %s' % self.generations)
        for name, target in self.report.items():
            if target['asked'] < 50:
                found.append('only %d requests on %s' % (target['asked'], name))
        return found

    def describe(self):
        lines = []
        for name, target in sorted(self.report.items()):
            lines.append('%s: %s' % (name, target))
        return '\n'.join(lines)


class Arena:
    """A service under load, through which rows are sent one after the other.

    machine     a container with the package installed
    deb         the package, for its upgrade
    native      whether the service is Debian's haproxy.service, else an instance
    plain       whether that instance has a hand-written config and no template
    rate        new connections a second, IPv4 and IPv6 together
    """

    def __init__(self, machine, deb, directory, native=False, plain=False, rate=1000, slow=20, slow_seconds=2.0, seconds=0.5):
        self.machine = machine
        self.native = native
        self.plain = plain
        self.instance = Instance(machine, None if native else 'plainarena' if plain else 'arena')
        if plain:
            self.instance.source = self.instance.config
        self.port = 8200 if native else 8300 if plain else 8100
        self.traffic = None
        self._deb = deb
        self._directory = directory
        self._rate = rate
        self._slow = slow
        self._slow_seconds = slow_seconds
        self._seconds = seconds
        self._generation = 0

    def __enter__(self):
        self.write()
        self.instance.systemctl('restart' if self.native else 'start')
        self.traffic = Traffic(self.machine, {
            'IPv4': ('127.0.0.1', self.port, self._rate / 2), 'IPv6': ('::1', self.port, self._rate / 2),
        }, slow=self._slow // 2, slow_seconds=self._slow_seconds, backend=BACKEND)
        self.traffic.__enter__()
        self.traffic.wait_new('IPv4', ())
        self.traffic.wait_new('IPv6', ())
        return self

    def __exit__(self, kind, value, trace):
        self.traffic.__exit__(kind, value, trace)
        self.instance.systemctl('stop', check=False)
        if not self.native:
            self.instance.remove()

    def run(self, row):
        """Does a row; gives its Outcome. The service is as before afterwards."""
        known = self.known()
        self.traffic.segment(row.name)
        # Some load before, so that the moment of the event lies inside of what is counted.
        self.go_on(0.2)
        status = row.event(self)
        if row.new:
            for target in self.traffic.targets:
                self.traffic.wait_new(target, known[target], 60)
            # It answers a moment before systemd hears of it, and the next row may be a reload.
            self.machine.until('systemctl --quiet is-active ' + self.instance.unit, why='systemd knows that it serves')
        self.go_on(self._seconds)
        report = self.traffic.report()
        served = self.known()
        generations = sorted(set.union(*(served[target] - known[target] for target in served)))
        return Outcome(row, report, status, generations, served)

    # -- what events are made of ------------------------------------------------

    def known(self):
        """The answers seen so far, by target."""
        return {target: set(self.traffic.seen(target)) for target in self.traffic.targets}

    def go_on(self, seconds):
        """Lets the load run: time in which requests are due, not a wait for something."""
        self.machine.run(['sleep', str(seconds)])

    def config(self, ports=(), **options):
        """The service's config, with more ports than the one under load."""
        ports = (self.port,) + tuple(ports)
        if self.plain:
            # haproxy since 2.3 finds no listener on a specific IPv6 address again unless it is v6only.
            return template(['    bind %s' % bind for port in ports for bind in (
                '127.0.0.1:%d' % port, '::1:%d v6only' % port)], backend=BACKEND, **options)
        binds = [(address, port) for port in ports for address in ('127.0.0.1', '::1')]
        return (plain if self.native else template)(binds, backend=BACKEND, **options)

    def write(self, text=None):
        self.instance.write(self.config() if text is None else text)

    def systemctl(self, *words):
        return self.machine.run(['systemctl'] + list(words), check=False).status

    def reload(self):
        return self.instance.reload(check=False).status

    def wait_new(self, known):
        for target in self.traffic.targets:
            self.traffic.wait_new(target, known[target], 60)

    def reload_fails(self, text):
        """A reload with another source: its status. The good source is back afterwards, and a reload with it
        works at once; that one is checked here, since the row is about the generation before it."""
        before = None if self.native or self.plain else files(self.machine)[self.instance.name + '.cfg']
        self.write(text)
        known = self.known()
        result = self.instance.reload(check=False)
        self.go_on(0.2)
        assert self.known() == known, 'another generation serves: %s' % self.known()
        if not self.native and not self.plain:
            assert files(self.machine)[self.instance.name + '.cfg'] == before
        self.write()
        return result.status

    def inodes(self):
        """The inode of every listener of the service: what is behind its descriptors."""
        found = []
        for line in self.machine.out('ss -Hltne "sport = :%d"' % self.port).splitlines():
            found.append(next(word for word in line.split() if word.startswith('ino:')))
        return sorted(found)


# -- events ------------------------------------------------------------------

def reload(arena):
    return arena.reload()


def twenty_reloads(arena):
    statuses = []
    for _ in range(20):
        known = arena.known()
        statuses.append(arena.reload())
        arena.wait_new(known)
    return max(statuses)


def reloads_at_once(arena):
    """Five by signal and three by systemctl, all at the same time."""
    main = arena.instance.main_pid()
    waiting = [arena.machine.popen(['systemctl', 'reload', arena.instance.unit]) for _ in range(3)]
    for _ in range(5):
        arena.machine.run(['kill', '-USR2', str(main)])
    statuses = [process.wait(60) for process in waiting]
    # The last signal may have come after the last of these: its reload must not reach into the next row.
    statuses.append(arena.machine.run(['multibinder-haproxy-wrapper', '--wait-reload', arena.instance.name],
                                      check=False).status)
    return max(statuses)


def broken_template(arena):
    return arena.reload_fails(arena.config() + '\n${1 +}\n')


def refused_config(arena):
    return arena.reload_fails(arena.config(extra='    blance roundrobin\n'))


def dies_at_start(arena):
    # haproxy's check does not bind, so it does not see that the slow server listens there.
    return arena.reload_fails(arena.config().replace(
        'frontend all\n', 'frontend all\n    bind 127.0.0.1:%d\n' % BACKEND, 1))


def endpoint_in_use(arena):
    return arena.reload_fails(arena.config(ports=()).replace(
        'frontend all\n', "frontend all\n    bind ${bind_tcp('127.0.0.1', %d)}\n" % BACKEND, 1))


def good_after_broken(arena):
    arena.reload_fails(arena.config() + '\n${1 +}\n')
    return arena.reload()


def restart(arena):
    return arena.systemctl('restart', arena.instance.unit)


def upgrade_haproxy(arena):
    with tempfile.TemporaryDirectory() as directory:
        deb = os.path.join(directory, 'haproxy.deb')
        shutil.copy(container.root_of(arena.machine.release) + container.HAPROXY_DEB, deb)
        arena.machine.put_file(build_deb.newer(deb, directory), '/root/haproxy.deb')
    known = arena.known()
    result = arena.machine.run(['dpkg', '-i', '--force-confold', '/root/haproxy.deb'], check=False, timeout=120)
    arena.wait_new(known)
    return result.status


def kill_worker(arena):
    arena.instance.kill(arena.instance.newest()[1])


def kill_master(arena):
    arena.instance.kill(arena.instance.newest()[0])


def kill_haproxy(arena):
    arena.instance.kill(*arena.instance.processes())


def kill_wrapper(arena):
    arena.instance.kill(arena.instance.main_pid())


def _then_reload(arena, status, inodes):
    """After something happened to the binder: the same listeners, and a reload works."""
    assert arena.inodes() == inodes, 'other listeners than before'
    return status or arena.reload()


def binder_reexec(arena):
    inodes = arena.inodes()
    return _then_reload(arena, arena.systemctl('reload', 'multibinder'), inodes)


def binder_sigusr1(arena):
    inodes = arena.inodes()
    pid = arena.machine.out('systemctl show -p MainPID --value multibinder')
    arena.machine.run(['kill', '-USR1', pid])
    status = _then_reload(arena, None, inodes)
    assert arena.machine.out('systemctl show -p MainPID --value multibinder') == pid
    return status


def binder_restart(arena):
    inodes = arena.inodes()
    return _then_reload(arena, arena.systemctl('restart', 'multibinder'), inodes)


def binder_killed(arena):
    inodes = arena.inodes()
    pid = arena.machine.out('systemctl show -p MainPID --value multibinder')
    arena.machine.run(['kill', '-9', pid])
    # A client that comes while the binder is away waits for it, so the reload may come at once.
    return _then_reload(arena, None, inodes)


def binder_killed_then_restarts(arena):
    """The case in which the Ruby original takes the service down for good."""
    binder_killed(arena)
    known = arena.known()
    status = restart(arena)
    arena.wait_new(known)
    return status


def binder_stopped_and_started(arena):
    """The fd store is gone after a stop: the listeners come back from the wrapper."""
    inodes = arena.inodes()
    arena.systemctl('stop', 'multibinder')
    assert arena.reload() != 0, 'a reload without a binder succeeds'
    arena.systemctl('start', 'multibinder')
    arena.machine.until('multibinderctl list | grep -q 127.0.0.1:%d' % arena.port, why='the wrapper gives them back')
    return _then_reload(arena, None, inodes)


def binder_upgrade(arena):
    inodes = arena.inodes()
    newer = build_deb.newer(arena._deb, arena._directory)
    arena.machine.put_file(newer, '/root/newer.deb')
    pid = arena.instance.main_pid()
    result = arena.machine.run(['dpkg', '-i', '/root/newer.deb'], check=False, timeout=120)
    assert arena.instance.main_pid() == pid, 'the upgrade restarted the instance'
    return _then_reload(arena, result.status, inodes)


def port_added(arena):
    arena.write(arena.config(ports=(arena.port + 1,)))
    status = arena.reload()
    for url in ('http://127.0.0.1:%d/', 'http://[::1]:%d/'):
        assert get(arena.machine, url % (arena.port + 1)).startswith('a pid=')
    return status


def port_removed(arena):
    # The row before added it.
    known = arena.known()
    arena.write(arena.config(ports=(arena.port + 1,)))
    arena.reload()
    arena.wait_new(known)
    arena.write()
    status = arena.reload()
    for url in ('http://127.0.0.1:%d/', 'http://[::1]:%d/'):
        if arena.native:
            # It closes them when the old worker is told to finish, which is after systemctl came back.
            arena.machine.until('! curl -s --globoff --max-time 1 ' + url % (arena.port + 1), why='refused')
        assert refused(arena.machine, url % (arena.port + 1)), url % (arena.port + 1)
    return status


def socket_moved(arena):
    status = move_socket(arena.machine, OTHER_SOCKET)
    # The wrapper's connection is one to the new path. The former one is served for a while, for clients that
    # were told of it and of nothing else.
    assert 'haproxy-multi@arena' in arena.machine.out(['multibinderctl', '--socket', OTHER_SOCKET, 'list'])
    connected = arena.machine.out('ss -Hxn state established')
    assert OTHER_SOCKET in connected, connected
    known = arena.known()
    status = status or arena.reload()
    arena.wait_new(known)
    status = status or move_socket(arena.machine, '/run/multibinder.sock')
    return status or arena.reload()


# debconf asks only at a terminal; this makes one inside of the machine and types the answer.
TYPIST = '''\
import os, pty, sys
pid, terminal = pty.fork()
if pid == 0:
    os.environ.pop('DEBIAN_FRONTEND', None)
    os.execvp('dpkg-reconfigure', ['dpkg-reconfigure', '--frontend=teletype', '--priority=low', 'python3-multibinder'])
os.write(terminal, (sys.argv[1] + '\\n').encode())
while True:
    try:
        data = os.read(terminal, 4096)
    except OSError:
        break
    if not data:
        break
    sys.stdout.write(data.decode('utf-8', 'replace'))
sys.exit(1 if os.waitpid(pid, 0)[1] else 0)
'''


def move_socket(machine, path):
    """dpkg-reconfigure with an answer typed at its prompt; its exit status."""
    result = machine.run(['python3', '-c', TYPIST, path], check=False, timeout=120)
    assert 'MULTIBINDER_SOCK=%s\n' % path in machine.get('/etc/default/multibinder'), result.out + result.err
    return result.status


ROWS = [
    Row('reload', reload, native=True),
    Row('twenty reloads in a row', twenty_reloads, native=True),
    Row('reloads while one runs', reloads_at_once),
    Row('reload: broken template', broken_template, fails=True, plain=False),
    Row('reload: config refused', refused_config, fails=True, native=True),
    Row('reload: haproxy dies after the check', dies_at_start, fails=True, plain=False),
    Row('reload: address in use', endpoint_in_use, fails=True, plain=False),
    Row('a good reload after a broken one', good_after_broken, plain=False),
    Row('restart', restart, native=True),
    Row('upgrade of haproxy', upgrade_haproxy, native=True, plain=False),
    Row('kill -9 of the worker', kill_worker, kills=True, native=True),
    Row('kill -9 of the master', kill_master, kills=True, native=True),
    Row('kill -9 of all its haproxy', kill_haproxy, kills=True, native=True),
    Row('kill -9 of the wrapper', kill_wrapper),
    Row('binder: reload', binder_reexec),
    Row('binder: SIGUSR1', binder_sigusr1),
    Row('binder: restart', binder_restart),
    Row('binder: kill -9', binder_killed),
    Row('binder: kill -9, reload, restart', binder_killed_then_restarts),
    Row('binder: stop, start', binder_stopped_and_started),
    Row('binder: package upgrade', binder_upgrade, once=True, plain=False),
    Row('port added', port_added, native=True),
    Row('port removed', port_removed, native=True),
    Row('socket path changed', socket_moved, plain=False),
]
