"""What the tests of the installed package share.

Responsible for running commands, for an instance of HAProxy with a load on it, and for the words of a failure,
the journal among them. Run by autopkgtest in the unpacked source package, or by tests/package/test_dep8.py.
"""

import contextlib
import glob
import os
import subprocess
import sys
import tempfile
import traceback

SOURCE = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
sys.path.insert(0, os.path.join(SOURCE, 'tests', 'system'))

SKIPPED = 77
PACKAGE = 'python3-multibinder'
DEFAULTS = '/etc/default/multibinder'
BUILTIN = '/run/multibinder.sock'
QUESTION = PACKAGE + '/socket-path'
PORT = 8080
RATE = 300      # new connections a second: enough to fall into every gap of some milliseconds
CONFIG = '''\
global
    user haproxy
    group haproxy
    maxconn 1000
defaults
    mode http
    timeout connect 5s
    timeout client 10s
    timeout server 10s
frontend web
    bind ${bind_tcp('127.0.0.1', %d)}
    %s
'''


def say(text):
    print('-- ' + text, flush=True)


def run(command, check=True, env=None, stdin=b''):
    """Runs a command (a list, or a line for the shell); returns its output. AssertionError if it fails."""
    process = subprocess.Popen(
        command, shell=isinstance(command, str), stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT, env=dict(os.environ, **(env or {})))
    out, _ = process.communicate(stdin)
    out = out.decode('utf-8', 'replace')
    if check and process.returncode != 0:
        raise AssertionError('%s ended with %d:\n%s' % (command, process.returncode, out))
    return out


def status(command):
    return subprocess.call(command, shell=isinstance(command, str), stdin=subprocess.DEVNULL,
                           stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def is_active(unit):
    return status(['systemctl', 'is-active', unit]) == 0


def main(test):
    """Runs a test and exits: 0, 77 where there is no systemd, 1 with the journal."""
    if not os.path.isdir('/run/systemd/system'):
        print('systemd does not run here')
        sys.exit(SKIPPED)
    os.environ.update(DEBIAN_FRONTEND='noninteractive', LC_ALL='C.UTF-8')
    try:
        test()
    except BaseException:
        traceback.print_exc(file=sys.stdout)
        subprocess.call('journalctl --no-pager -b -n 200 -u multibinder -u "haproxy-multi@*"; '
                        'systemctl --no-pager --full status multibinder "haproxy-multi@*"; ls -la /etc/haproxy /run',
                        shell=True, stdin=subprocess.DEVNULL)
        sys.stdout.flush()
        sys.exit(1)
    say('passed')
    sys.exit(0)


# -- the package ----------------------------------------------------------------------------------------

def deb():
    """The path of the package under test: MULTIBINDER_DEB, or what apt has. Skips where there is none."""
    given = os.environ.get('MULTIBINDER_DEB')
    if given:
        return given
    directory = tempfile.mkdtemp(prefix='multibinder-deb.')
    os.chmod(directory, 0o755)
    status('cd %s && apt-get -q download %s' % (directory, PACKAGE))
    found = glob.glob(os.path.join(directory, '*.deb'))
    if len(found) != 1:
        print('the package itself cannot be had: neither MULTIBINDER_DEB nor apt has it')
        sys.exit(SKIPPED)
    return found[0]


def install():
    run(['dpkg', '-i', deb()])


def purge():
    run(['dpkg', '--purge', PACKAGE])


def live_file():
    with open(DEFAULTS, 'rb') as stream:
        return stream.read()


def write_live_file(content):
    with open(DEFAULTS, 'wb') as stream:
        stream.write(content)


# -- the binder -----------------------------------------------------------------------------------------

def binder_pid():
    return run(['systemctl', 'show', '-p', 'MainPID', 'multibinder']).strip()


def listens_on():
    """The control sockets on which a binder answers, of those that the tests use."""
    return [path for path in [BUILTIN] + sorted(glob.glob('/run/*.test.sock'))
            if status(['multibinderctl', '--socket', path, 'status']) == 0]


def listeners(path=BUILTIN):
    """{endpoint: inode} of what the binder holds."""
    import json
    held = json.loads(run(['multibinderctl', '--socket', path, 'list', '--json']))
    return {one['endpoint']: one['inode'] for one in held}


# -- an instance ----------------------------------------------------------------------------------------

def answer(body):
    """The line that answers: `http-request return` is there since HAProxy 2.2."""
    words = run(['/usr/sbin/haproxy', '-v']).replace('HA-Proxy', 'HAProxy').split('HAProxy version ')[1]
    if tuple(int(word) for word in words.split('-')[0].split('.')[:2]) >= (2, 2):
        return 'http-request return status 200 content-type text/plain string "%s"' % body
    return 'http-request deny'


def write_template(name, port=PORT, body='hello'):
    with open('/etc/haproxy/%s.cfg.tmpl' % name, 'w') as stream:
        stream.write(CONFIG % (port, answer(body)))


@contextlib.contextmanager
def instance(name='foo', port=PORT):
    """A running instance, for as long as the block lasts."""
    status(['systemctl', 'disable', '--now', 'haproxy'])
    write_template(name, port)
    unit = 'haproxy-multi@' + name
    run(['systemctl', 'enable', '--now', unit])
    try:
        yield unit
    finally:
        status(['systemctl', 'disable', '--now', unit])
        for path in glob.glob('/etc/haproxy/%s.cfg*' % name):
            os.unlink(path)


@contextlib.contextmanager
def no_loss(port=PORT):
    """A load on the port for as long as the block lasts; not one request may fail."""
    from traffic import Traffic
    with Traffic(None, {'web': ('127.0.0.1', port, RATE)}) as traffic:
        traffic.wait_new('web', ())     # an event that is over before the load has begun would show nothing
        yield
        report = traffic.report()['web']
    say('load: %s' % {key: report[key] for key in sorted(report) if key in ('asked', 'failed', 'gap_ms', 'kinds')})
    assert report['failed'] == 0, report
