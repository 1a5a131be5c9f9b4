"""The figures of the binder and of the renderer, taken on the installed package: start, memory, latencies.

Runs inside of a machine that has the package (run.py brings it there); prints one JSON object. The client is written
out here, so that what is measured is the binder and not our own library's convenience.
"""

import json
import os
import shutil
import socket
import statistics
import struct
import subprocess
import sys
import tempfile
import time

BINDER = '/usr/bin/multibinder'
RENDERER = '/usr/bin/multibinder-haproxy-erb'
CHUNK = 252


def say(text):
    sys.stderr.write(text + '\n')
    sys.stderr.flush()


class Binder:
    """A binder of its own on a socket of its own."""

    def __init__(self, directory):
        self.path = os.path.join(directory, 'binder.sock')
        self.started = time.monotonic()
        self.process = subprocess.Popen([BINDER, self.path], stderr=subprocess.DEVNULL)
        self.first = self._first_answer()

    def _first_answer(self):
        while True:
            try:
                client = Client(self.path)
            except OSError:
                if self.process.poll() is not None or time.monotonic() - self.started > 10:
                    raise SystemExit('the binder does not start')
                time.sleep(0.0005)
                continue
            client.bind(free_ports(1))
            client.close()
            return time.monotonic() - self.started

    def resident(self):
        with open('/proc/%d/status' % self.process.pid) as stream:
            return next(int(line.split()[1]) for line in stream if line.startswith('VmRSS:')) / 1024.0

    def stop(self):
        self.process.terminate()
        self.process.wait(20)


class Client:
    def __init__(self, path):
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.connect(path)

    def bind(self, ports):
        """Binds 127.0.0.1:PORT for each; raises unless a descriptor came for each. They are closed at once."""
        self.ask(request(ports), len(ports))

    def ask(self, words, count):
        self.sock.sendall(words)
        data, ancillary, flags, _ = self.sock.recvmsg(65536, socket.CMSG_SPACE(4 * CHUNK))
        found = []
        for level, kind, content in ancillary:
            if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
                found += struct.unpack('%di' % (len(content) // 4), content[:len(content) // 4 * 4])
        for fd in found:
            os.close(fd)
        # The rest of a long reply comes without descriptors.
        while not data.rstrip().endswith(b'}'):
            data += self.sock.recv(65536)
        if len(found) != count or flags & socket.MSG_CTRUNC:
            raise SystemExit('%d descriptors instead of %d: %r' % (len(found), count, data[:300]))

    def close(self):
        self.sock.close()


def request(ports):
    return json.dumps({'jsonrpc': '2.0', 'method': 'bind', 'id': 1, 'params': [
        {'address': '127.0.0.1', 'port': port} for port in ports]}).encode()


def free_ports(count):
    # Below the range from which the kernel takes ports of outgoing connections; nothing else runs here.
    free_ports.next += count
    return list(range(free_ports.next - count, free_ports.next))


free_ports.next = 15000


def median_of(measure, count):
    return statistics.median(measure() for _ in range(count))


def timed(function, count):
    """The median duration of a function in microseconds, after a tenth of the calls for warming up."""
    taken = []
    for _ in range(count // 10):
        function()
    for _ in range(count):
        start = time.perf_counter()
        function()
        taken.append(time.perf_counter() - start)
    return 1e6 * statistics.median(taken)


def binder_figures(directory):
    found = {}
    starts = []
    for number in range(15):
        free_ports.next = 15000
        own = os.path.join(directory, 'start%d' % number)
        os.mkdir(own)
        binder = Binder(own)
        starts.append(1000 * binder.first)
        if number == 0:
            found['memory_idle_mb'] = binder.resident()
        binder.stop()
    found['start_ms'] = statistics.median(starts)

    binder = Binder(directory)
    client = Client(binder.path)
    known = request([14999])
    client.ask(known, 1)
    found['kept_us'] = timed(lambda: client.ask(known, 1), 5000)

    def anew():
        other = Client(binder.path)
        other.ask(known, 1)
        other.close()

    found['new_us'] = timed(anew, 3000)

    fresh = []
    held = 2
    while held < 5000:
        count = min(CHUNK, 5000 - held)
        many = request(free_ports(count))
        start = time.perf_counter()
        client.ask(many, count)
        fresh.append(1e6 * (time.perf_counter() - start) / count)
        held += count
    found['fresh_252_us'] = statistics.median(fresh)
    many = request(list(range(15100, 15100 + CHUNK)))
    found['known_252_us'] = timed(lambda: client.ask(many, CHUNK), 200) / CHUNK
    found['memory_5000_mb'] = binder.resident()
    found['kept_5000_us'] = timed(lambda: client.ask(known, 1), 3000)
    client.close()
    binder.stop()
    return found


def render_figures(directory):
    found = {}
    environment = dict(os.environ, MULTIBINDER_SOCK=os.path.join(directory, 'none.sock'))
    for binds in (1, 100, 1000):
        path = os.path.join(directory, 'render%d.cfg.tmpl' % binds)
        with open(path, 'w') as stream:
            stream.write('defaults\n    mode http\nfrontend f\n')
            for number in range(binds):
                stream.write("    bind ${bind_tcp('127.0.0.1', %d)}\n" % (20000 + number))

        def once():
            start = time.perf_counter()
            subprocess.check_call([RENDERER, '-f', path, '--erb-write-only'], env=environment)
            return 1000 * (time.perf_counter() - start)

        once()
        found['render_%d_ms' % binds] = median_of(once, 15)
    return found


def main():
    directory = tempfile.mkdtemp()
    try:
        say('binder: start, memory, latencies')
        found = binder_figures(directory)
        say('renderer')
        found.update(render_figures(directory))
    finally:
        shutil.rmtree(directory)
    print(json.dumps(found))


if __name__ == '__main__':
    main()
