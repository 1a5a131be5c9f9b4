"""Instances in a container: their templates, and what can be asked of them. Knows the layout that the package
documents (/etc/haproxy/NAME.cfg.tmpl, haproxy-multi@NAME), and nothing of how it is done inside."""

TEMPLATE = '''\
global
    user haproxy
    group haproxy
    maxconn 4000
    hard-stop-after 30s

defaults
    mode http
    timeout connect 5s
    timeout client 50s
    timeout server 50s

frontend all
%(binds)s
    acl slow path /slow
    http-request return status 200 content-type text/plain lf-string "%(answer)s pid=%%pid" unless slow
    default_backend slow

backend slow
    server dribble 127.0.0.1:%(backend)d
%(extra)s'''

NATIVE_UNIT = 'haproxy'


def template(binds, answer='a', backend=18080, extra=''):
    """A template (str) that answers with a word and the PID of the process that serves.

    binds: list of (address, port), or of whole bind lines (str).
    """
    lines = []
    for bind in binds:
        lines.append(bind if isinstance(bind, str) else "    bind ${bind_tcp('%s', %d)}" % bind)
    return TEMPLATE % {'binds': '\n'.join(lines), 'answer': answer, 'backend': backend, 'extra': extra}


def plain(binds, **options):
    """The same config without templating, for haproxy's own service."""
    return template(
        ['    bind %s:%d' % (address, port) for address, port in binds], **options)


class Instance:
    """An instance `haproxy-multi@NAME`, or Debian's haproxy.service, in a container."""

    def __init__(self, machine, name=None):
        self.machine = machine
        self.name = name
        if name is None:
            self.unit = 'haproxy.service'
            self.source = '/etc/haproxy/haproxy.cfg'
            self.config = self.source
        else:
            self.unit = 'haproxy-multi@%s.service' % name
            self.source = '/etc/haproxy/%s.cfg.tmpl' % name
            self.config = '/etc/haproxy/%s.cfg' % name

    def write(self, text):
        self.machine.put(self.source, text)

    def systemctl(self, verb, check=True, timeout=60):
        return self.machine.run(['systemctl', verb, self.unit], check=check, timeout=timeout)

    def start(self):
        self.systemctl('start')

    def reload(self, check=True, timeout=60):
        return self.systemctl('reload', check=check, timeout=timeout)

    def state(self):
        return self.machine.run(['systemctl', 'is-active', self.unit], check=False).out.strip()

    def main_pid(self):
        return int(self.machine.out(['systemctl', 'show', '-p', 'MainPID', '--value', self.unit]))

    def processes(self):
        """{pid: parent} of this instance's haproxy processes, those that still finish included."""
        found = {}
        for line in self.machine.out('ps -C haproxy -o pid=,ppid=,args= ww || true').splitlines():
            pid, parent, arguments = line.split(None, 2)
            if '-f %s ' % self.config in arguments + ' ':
                found[int(pid)] = int(parent)
        return found

    def newest(self):
        """(master, worker) PIDs of the generation that was launched last."""
        processes = self.processes()
        masters = [pid for pid, parent in processes.items() if parent not in processes]
        workers = [pid for pid, parent in processes.items() if parent in processes]
        worker = max(workers)
        assert processes[worker] in masters, processes
        return processes[worker], worker

    def kill(self, *pids):
        """Kill processes; of several, the end of one may have ended another a moment before."""
        result = self.machine.run(['kill', '-9'] + [str(pid) for pid in pids], check=False)
        assert result.status == 0 or len(pids) > 1 and result.err.count('No such process') < len(pids), result.err

    def wait_end(self):
        """Waits until it has no haproxy process any more. A stop only tells them to finish: until one has taken
        notice it accepts what comes."""
        # Nobody's command line here has a process's name, a blank and the path but theirs.
        self.machine.until("! pgrep -f '[h]aproxy .*-f %s( |$)'" % self.config.replace('.', '[.]'),
                           why='haproxy finishes')

    def remove(self):
        """Stops it and takes its files away."""
        self.systemctl('stop', check=False)
        self.machine.run('systemctl reset-failed "$1" 2>/dev/null; rm -f "/etc/haproxy/$2".cfg* "/etc/haproxy/.$2".cfg*'
                         ' "/etc/default/haproxy-$2"'.replace('$1', self.unit).replace('$2', self.name))


def get(machine, url='http://127.0.0.1/', seconds=20):
    """The body of an answer (str); an AssertionError with curl's words when there is none."""
    result = machine.run(['curl', '-sS', '--fail', '--globoff', '--max-time', str(seconds), url], check=False)
    assert result.status == 0, '%s: %s' % (url, result.err)
    return result.out


def refused(machine, url):
    """Whether nobody listens there (curl's status 7)."""
    return machine.run(['curl', '-sS', '--globoff', '--max-time', '20', url], check=False).status == 7


def files(machine, directory='/etc/haproxy'):
    """Name -> content of the files of a directory, hidden ones included."""
    names = machine.out(['find', directory, '-maxdepth', '1', '-type', 'f', '-printf', '%f\n']).split('\n')
    return {name: machine.get(directory + '/' + name) for name in names if name}
