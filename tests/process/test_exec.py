"""multibinder-exec with real servers: each convention, and a restart and a kill -9 under load."""

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time

import pytest

from multibinder.client import Client
from running import DEADLINE, Binder, Running, command_of, environment, free_port

PROBE = '''
import json, os, signal, sys
status = dict(line.split(":", 1) for line in open("/proc/self/status"))
print(json.dumps({
    "fds": sorted(int(fd) for fd in os.listdir("/proc/self/fd")), "pid": os.getpid(), "argv": sys.argv[1:],
    "inodes": [os.fstat(fd).st_ino for fd in range(3, 3 + int(os.environ["LISTEN_FDS"]))],
    "environment": {key: os.environ.get(key) for key in ("LISTEN_FDS", "LISTEN_PID", "LISTEN_FDNAMES", "NGINX")},
    "blocked": int(status["SigBlk"], 16), "ignored": int(status["SigIgn"], 16)}))
'''


def run(binder, *words):
    return subprocess.run([command_of('multibinder-exec'), '--socket', binder.path] + list(words),
                          env=environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, timeout=DEADLINE)


def test_the_command_finds_its_listeners_by_every_convention_and_nothing_else():
    web, api = free_port(), free_port(socket.AF_INET6)
    with Binder() as binder:
        path = os.path.join(binder.folder, 'unix')
        signal.signal(signal.SIGUSR2, signal.SIG_IGN)
        signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])
        try:
            ended = run(binder, '--tcp', '127.0.0.1:{},backlog=9'.format(web), '--name', 'web',
                        '--tcp', '[::1]:{}'.format(api), '--unix', path + ',mode=0640', '--name', 'local',
                        '--', sys.executable, '-I', '-c', PROBE, '{web}', 'x{local}y{listener2}', '{other}')
        finally:
            signal.signal(signal.SIGUSR2, signal.SIG_DFL)
            signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGTERM])
        assert ended.returncode == 0, ended.stderr
        seen = json.loads(ended.stdout.decode())
        assert seen['argv'] == ['3', 'x5y4', '{other}']
        assert seen['environment'] == {'LISTEN_FDS': '3', 'LISTEN_PID': str(seen['pid']),
                                       'LISTEN_FDNAMES': 'web:listener2:local', 'NGINX': '3;4;5;'}
        assert seen['fds'] == [0, 1, 2, 3, 4, 5, 6]     # 6 is the folder that it lists
        assert seen['blocked'] == 0
        # The interpreter of the probe ignores SIGPIPE and SIGXFSZ itself; 32 and 33 are the C library's, which
        # lets nobody touch them, and were seen ignored where a supervisor far above had done so.
        assert not seen['ignored'] & ~sum(1 << number - 1 for number in (signal.SIGPIPE, signal.SIGXFSZ, 32, 33))
        with Client(binder.path) as client:
            listed = {one['endpoint']: one for one in client.call('list')}
            assert [one['inode'] for one in (
                listed['tcp 127.0.0.1:{}'.format(web)], listed['tcp [::1]:{}'.format(api)],
                listed['unix ' + path])] == seen['inodes']
            assert listed['tcp 127.0.0.1:{}'.format(web)]['backlog'] == 9
            assert os.stat(path).st_mode & 0o777 == 0o640
            from multibinder.endpoint import Endpoint
            for name in listed:
                client.release([Endpoint.parse(name)], lease=False)


def test_the_claim_lives_as_long_as_the_command_unless_it_is_to_hold():
    port, held = free_port(), free_port()
    with Binder('--linger', '0') as binder, Client(binder.path) as client:
        child = subprocess.Popen([command_of('multibinder-exec'), '--socket', binder.path, '--tcp', '127.0.0.1:{}'.format(port),
                                  '--', 'cat'], env=environment(), stdin=subprocess.PIPE)
        try:
            binder.wait_for('tcp 127.0.0.1:{} leased by pid {}'.format(port, child.pid))
            [one] = client.call('list')
            assert [(claim['kind'], claim['pid']) for claim in one['claims']] == [('process', child.pid)]
        finally:
            child.communicate(timeout=DEADLINE)
        binder.wait_for('closed: nobody claimed it')
        assert run(binder, '--hold', '--tcp', '127.0.0.1:{}'.format(held), '--', 'true').returncode == 0
        [one] = client.call('list')
        assert one['endpoint'] == 'tcp 127.0.0.1:{}'.format(held) and one['claims'][0]['kind'] == 'plain'


@pytest.mark.parametrize('words, status, message', [
    ([], 2, 'no command'), (['--', 'true'], 2, 'nothing to claim'), (['--tcp', '1.2.3.4', '--', 'true'], 2, 'write ADDRESS:PORT'),
    (['--tcp', '1.2.3.4:x', '--', 'true'], 2, 'is no number from 1 to 65535'),
    (['--tcp', '127.0.0.1:80,bogus=1', '--', 'true'], 2, "unknown option 'bogus'"),
    (['--tcp', '127.0.0.1:80,v6only=perhaps', '--', 'true'], 2, 'is true or false'),
    (['--unix', 'relative', '--', 'true'], 2, 'is not absolute'), (['--name', 'x', '--', 'true'], 2, 'has no --tcp or --unix before it'),
    (['--tcp', '127.0.0.1:80', '--name', 'a:b', '--', 'true'], 2, 'is no name'),
    (['--tcp', '127.0.0.1:80', '--name', 'a', '--tcp', '127.0.0.1:81', '--name', 'a', '--', 'true'], 2, 'two listeners have the name a'),
    (['--tcp', '192.0.2.1:80', '--', 'true'], 1, 'cannot bind tcp 192.0.2.1:80'),
    (['--socket', '/no/such', '--tcp', '127.0.0.1:80', '--', 'true'], 1, 'cannot reach the binder on /no/such'),
    (['--version'], 0, 'multibinder-exec 1.'), (['--help'], 0, 'LISTEN_FDS'),
])
def test_what_is_wrong_is_said(words, status, message):
    with Binder() as binder:
        if status == 0 or '--socket' in words:
            ended = subprocess.run([command_of('multibinder-exec')] + words, env=environment(), stdout=subprocess.PIPE,
                                   stderr=subprocess.STDOUT, timeout=DEADLINE)
            output = ended.stdout.decode()
        else:
            ended = run(binder, *words)
            output = ended.stderr.decode()
        assert ended.returncode == status and message in output and 'Traceback' not in output, output


def test_a_command_that_cannot_be_executed():
    port = free_port()
    with Binder('--linger', '0') as binder:
        ended = run(binder, '--tcp', '127.0.0.1:{}'.format(port), '--', '/no/such/command')
        assert ended.returncode == 1
        assert ended.stderr == b'multibinder-exec: cannot execute /no/such/command: No such file or directory\n'
        binder.wait_for('closed: nobody claimed it')


APPLICATION = '''
def wsgi(environ, start_response):
    start_response("200 OK", [("Content-Length", "2")])
    return [b"ok"]


async def asgi(scope, receive, send):
    if scope["type"] != "http":
        return
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]})
    await send({"type": "http.response.body", "body": b"ok"})
'''
NGINX = '''
daemon off; pid {folder}/nginx.pid; error_log stderr;
events {{ }}
http {{
    access_log off; client_body_temp_path {folder}/b; proxy_temp_path {folder}/p; fastcgi_temp_path {folder}/f;
    uwsgi_temp_path {folder}/u; scgi_temp_path {folder}/s;
    server {{ listen 127.0.0.1:{port}; location / {{ return 200 ok; }} }}
}}
'''
HAPROXY = '''
defaults
    mode http
    timeout connect 5s
    timeout client 5s
    timeout server 5s
frontend web
    bind fd@3
    http-request return status 200 content-type text/plain string ok
'''
SERVICES = {
    'nginx': ['/usr/sbin/nginx', '-c', '{folder}/nginx.conf', '-p', '{folder}'],
    'gunicorn': ['/usr/bin/gunicorn', '--worker-tmp-dir', '{folder}', '--chdir', '{folder}', 'application:wsgi'],
    'uvicorn': ['/usr/bin/uvicorn', '--fd', '{{web}}', '--app-dir', '{folder}', 'application:asgi'],
    'haproxy': ['/usr/sbin/haproxy', '-W', '-f', '{folder}/haproxy.cfg'],
}


class Load(threading.Thread):
    """New connections at a fixed rate until stopped; counts answers and, by kind, failures."""

    def __init__(self, port):
        threading.Thread.__init__(self)
        self.port = port
        self.counts = {'ok': 0, 'refused': 0, 'cut': 0}
        self.answered = threading.Condition()
        self._end = threading.Event()

    def run(self):
        workers = [threading.Thread(target=self._work) for _ in range(4)]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()

    def _work(self):
        while not self._end.wait(0.01):     # the rate of the load, not a wait for anything
            kind = self._ask()
            with self.answered:
                self.counts[kind] += 1
                self.answered.notify_all()

    def _ask(self):
        try:
            with socket.create_connection(('127.0.0.1', self.port), DEADLINE) as sock:
                sock.sendall(b'GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n')
                data = b''
                while True:
                    more = sock.recv(4096)
                    if not more:
                        break
                    data += more
                return 'ok' if b' 200 ' in data and data.endswith(b'ok') else 'cut'
        except ConnectionRefusedError:
            return 'refused'
        except OSError:
            return 'cut'

    def more_answers(self, count=20):
        """Wait until that many more requests were answered."""
        with self.answered:
            wanted = self.counts['ok'] + count
            assert self.answered.wait_for(lambda: self.counts['ok'] >= wanted, DEADLINE), self.counts

    def end(self):
        self._end.set()
        self.join(DEADLINE)


@pytest.mark.parametrize('name', sorted(SERVICES))
def test_a_server_restarted_and_killed_under_load_refuses_nobody(name, tmp_path):
    program = SERVICES[name][0]
    if not os.path.exists(program):
        pytest.skip('{} is not installed'.format(program))
    port = free_port()
    folder = str(tmp_path)
    (tmp_path / 'application.py').write_text(APPLICATION)
    (tmp_path / 'nginx.conf').write_text(NGINX.format(folder=folder, port=port))
    (tmp_path / 'haproxy.cfg').write_text(HAPROXY)
    command = [word.format(folder=folder) for word in SERVICES[name]]

    def start(binder):
        env = environment()
        env.pop('PYTHONPATH')       # the servers run on their own
        words = [command_of('multibinder-exec'), '--socket', binder.path,
                 '--tcp', '127.0.0.1:{}'.format(port), '--name', 'web', '--'] + command
        if not os.environ.get('MULTIBINDER_TEST_INSTALLED'):
            words[0:0] = ['/usr/bin/python3', '-c', 'import runpy, sys; sys.path.insert(0, sys.argv[1]); '
                          'sys.argv[:2] = []; runpy.run_path(sys.argv[0], run_name="__main__")',
                          os.path.dirname(os.path.dirname(command_of('multibinder-exec')))]
        return subprocess.Popen(words, env=env, start_new_session=True, stdin=subprocess.DEVNULL,
                                stdout=log, stderr=log)
    with open(os.path.join(folder, 'log'), 'w') as log, Binder() as binder:
        service = start(binder)
        load = Load(port)
        try:
            binder.wait_for('leased by pid {}'.format(service.pid))
            load.start()
            load.more_answers()
            service.terminate()             # a restart
            service.wait(DEADLINE)
            service = start(binder)
            load.more_answers()
            os.killpg(service.pid, signal.SIGKILL)      # with its workers: the session is ours
            service.wait(DEADLINE)
            service = start(binder)
            load.more_answers()
        finally:
            load.end()
            try:
                os.killpg(service.pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
            service.wait(DEADLINE)
        assert load.counts['refused'] == 0 and load.counts['ok'] >= 60, (load.counts, open(log.name).read())
        # Cut is only what was in flight in a process that was killed or told to end at once.
        assert load.counts['cut'] <= 12, (load.counts, open(log.name).read())
        from multibinder.endpoint import Endpoint
        with Client(binder.path) as client:
            client.release([Endpoint.tcp('127.0.0.1', port)], lease=False)


def test_metrics_and_status_of_a_real_binder(tmp_path):
    port = free_port()
    output = tmp_path / 'multibinder.prom'
    with Binder() as binder, Client(binder.path) as client:
        client.bind('127.0.0.1', port, backlog=5).close()
        ctl = [command_of('multibinderctl'), '--socket', binder.path]
        env = environment(MULTIBINDER_RUNTIME_PREFIX=str(tmp_path / 'haproxy-multi-'))
        runtime = tmp_path / 'haproxy-multi-foo'
        runtime.mkdir()
        (runtime / 'state').write_text(json.dumps({
            'name': 'foo', 'wrapper': os.getpid(), 'serving': 7, 'generation': 3, 'reloads_succeeded': 2, 'reloads_failed': 1,
            'changed': time.time() - 5, 'draining': [8, 9], 'failure': 'broken "template"'}))
        (tmp_path / 'haproxy-multi-bad').mkdir()
        (tmp_path / 'haproxy-multi-bad' / 'state').write_text('{')
        subprocess.check_call(ctl + ['metrics', '--output', str(output)], env=env, timeout=DEADLINE)
        text = output.read_text()
        for line in ('multibinder_up 1', 'multibinder_listeners 1', 'multibinder_instance_generation{instance="foo"} 3',
                     'multibinder_instance_draining{instance="foo"} 2', 'multibinder_instance_reloads_failed_total{instance="foo"} 1',
                     'multibinder_listener_queue_limit{{endpoint="tcp 127.0.0.1:{}"}} 5'.format(port)):
            assert line in text.splitlines(), text
        for line in text.splitlines():
            assert line.startswith('# ') or len(line.rsplit(' ', 1)) == 2 and float(line.rsplit(' ', 1)[1]) >= 0
        status = subprocess.check_output(ctl + ['status'], env=env, timeout=DEADLINE).decode()
        assert 'instance   foo: generation 3 serves, pid 7' in status and '2 older still finish' in status
        assert 'the last reload of foo failed: broken "template"' in status and 'systemctl reload haproxy-multi@foo' in status
        listed = subprocess.check_output(ctl + ['list'], env=env, timeout=DEADLINE).decode()
        assert 'tcp 127.0.0.1:{}'.format(port) in listed and 'plain' in listed
        # Overflows: more connections than the queue takes, and nobody accepts.
        clients = []
        for _ in range(12):
            sock = socket.socket()
            sock.setblocking(False)
            sock.connect_ex(('127.0.0.1', port))
            clients.append(sock)
        text = subprocess.check_output(ctl + ['metrics'], env=env, timeout=DEADLINE).decode()
        [overflows] = [line for line in text.splitlines() if line.startswith('multibinder_listener_overflows_total{')]
        assert int(overflows.split()[-1]) > 0
        status = subprocess.check_output(ctl + ['status'], env=env, timeout=DEADLINE).decode()
        assert 'nobody accepts fast enough' in status and 'connections to a full queue' in status
        for sock in clients:
            sock.close()
        released = Running(ctl + ['release', 'tcp', '127.0.0.1:{}'.format(port)])
        assert released.wait() == 0 and 'released' in released.output
        again = Running(ctl + ['release', '127.0.0.1:{}'.format(port)])
        assert again.wait() == 1 and 'the binder does not hold it' in again.output
        wrong = Running(ctl + ['release', 'nonsense'])
        assert wrong.wait() == 1 and 'is no endpoint' in wrong.output
    away = Running([command_of('multibinderctl'), '--socket', str(tmp_path / 'nothing'), 'status'])
    assert away.wait() == 1 and 'systemctl start multibinder' in away.output
