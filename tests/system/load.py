"""An open-loop load: new connections at a fixed rate, and slow answers in flight. Stand-alone, library only.

    load.py --target NAME=ADDRESS:PORT=RATE ... [--slow N] [--slow-seconds S] [--backend PORT]

Open loop: request k of a target is due at start + k/RATE whatever became of the ones before it, and its
latency counts from that moment. A stall of the server therefore shows in full, and so would one of this
program: `own_delay_ms` is the longest time between a request's moment and its connect(). A figure
smaller than that says nothing.

Every connection asks `GET /` in HTTP/1.0 and wants a complete 200; the body names the generation that
answered. Beside them N requests a target for `/slow` are kept in flight; this program is also the slow
server behind them (--backend), which dribbles its answer over S seconds.

Not responsible for starting what it loads, nor for judging: it counts.

Standard input takes commands, standard output gives one JSON object a line:
  segment NAME    what is due from now on is counted under NAME       {"event": "segment", ...}
  report          once everything due in the segment, and every slow
                  answer in flight at this moment, is settled         {"event": "report", "targets": {...}}
  stop (or EOF)   ends
  (by itself)     the first answer of a body not seen before          {"event": "generation", ...}
All times are CLOCK_MONOTONIC in seconds, the same in every process of the machine.
"""

import argparse
import array
import errno
import gc
import json
import os
import resource
import select
import socket
import sys
import time
from collections import deque

KINDS = ('refused', 'reset', 'timeout', 'cut', 'bad', 'own')
REQUEST = b'GET %s HTTP/1.0\r\nHost: load\r\n\r\n'
# A dribble of this many bytes every TICK seconds; not so few that the kernel or haproxy hold them back.
DRIBBLE = b'.' * 1024
TICK = 0.05
# New connections between two looks at the answers.
BURST = 50

CONNECTING, WAITING, CLOSING = range(3)
EVENTS = select.EPOLLIN | select.EPOLLOUT | select.EPOLLET


class Segment:
    """What happened to the requests of one target that were due in one stretch of time."""

    def __init__(self, name, start):
        self.name = name
        self.start = start
        self.asked = 0
        self.open = 0
        self.ok = 0
        self.failed = dict.fromkeys(KINDS, 0)
        self.latencies = array.array('d')
        self.gap = 0.0
        self.own_delay = 0.0
        self.answers = {}
        # cut: in the middle of the answer; lost: accepted, and closed or reset before the answer began.
        self.slow = {'ok': 0, 'cut': 0, 'lost': 0, 'failed': 0}
        self.examples = []

    def report(self, end, last_success):
        ordered = sorted(self.latencies)

        def at(share):
            return round(1000 * ordered[min(len(ordered) - 1, int(share * len(ordered)))], 2) if ordered else None

        # An outage that had not ended when the segment did.
        gap = max(self.gap, end - last_success)
        return {
            'asked': self.asked, 'ok': self.ok, 'failed': sum(self.failed.values()),
            'kinds': {kind: count for kind, count in self.failed.items() if count},
            'slow': self.slow, 'gap_ms': round(1000 * gap, 1), 'seconds': round(end - self.start, 3),
            'p50_ms': at(0.5), 'p99_ms': at(0.99), 'p999_ms': at(0.999), 'max_ms': at(1),
            'own_delay_ms': round(1000 * self.own_delay, 1), 'answers': self.answers, 'examples': self.examples,
        }


class Target:
    def __init__(self, name, address, port, rate):
        self.name = name
        self.family = socket.AF_INET6 if ':' in address else socket.AF_INET
        self.address = (address, port)
        self.period = 1.0 / rate
        self.due = None
        self.segment = None
        # Segments that begin at a moment which `due` has not reached: after a stall what was due before a command
        # is started after it, and still belongs to the segment before.
        self.coming = deque()
        self.last_success = None
        self.seen = set()

    def newest(self):
        return self.coming[-1] if self.coming else self.segment


class Connection:
    __slots__ = ('sock', 'target', 'segment', 'due', 'state', 'data', 'need', 'slow')

    def __init__(self, sock, target, segment, due, slow):
        self.sock = sock
        self.target = target
        self.segment = segment
        self.due = due
        self.state = CONNECTING
        self.data = b''
        self.need = None
        self.slow = slow


class Load:
    def __init__(self, targets, slow, slow_seconds, backend_port, timeout):
        self.targets = targets
        self.slow_count = slow
        self.slow_seconds = slow_seconds
        self.timeout = timeout
        self.epoll = select.epoll()
        self.connections = {}
        # In order of their moment, since all have the same time-out.
        self.deadlines = deque()
        self.slow_starts = []
        self.backend = None
        self.dribbling = {}
        self.next_tick = 0.0
        self.reporting = None
        self.input = b''
        self.running = True
        if slow:
            self.backend = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
            self.backend.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            self.backend.bind(('127.0.0.1', backend_port))
            self.backend.listen(1024)
            self.backend.setblocking(False)
            self.epoll.register(self.backend.fileno(), select.EPOLLIN)

    # -- the loop ----------------------------------------------------------

    def run(self):
        # No object here is part of a cycle; a collection in the middle of a run would be a stall.
        gc.disable()
        self.epoll.register(0, select.EPOLLIN)
        start = time.monotonic()
        for number, target in enumerate(self.targets):
            # The targets take turns instead of all asking at the same moment.
            target.due = start + target.period * number / len(self.targets)
            target.segment = Segment('', start)
            target.last_success = start
            for index in range(self.slow_count):
                self.slow_starts.append((start + self.slow_seconds * index / self.slow_count, target))
        self.next_tick = start + TICK
        while self.running:
            now = time.monotonic()
            self.start_due(now)
            self.expire(now)
            if now >= self.next_tick:
                self.dribble(now)
            if self.reporting is not None:
                self.try_report()
            wake = min(min(target.due for target in self.targets), self.next_tick)
            wait = max(0.0, wake - time.monotonic())
            # select() counts in microseconds where epoll_wait() counts in milliseconds.
            if wait and not select.select([self.epoll], [], [], wait)[0]:
                continue
            for fd, events in self.epoll.poll(0, 256):
                self.on_event(fd, events)

    def start_due(self, now):
        for target in self.targets:
            burst = 0
            while target.due <= now and burst < BURST:
                while target.coming and target.due >= target.coming[0].start:
                    target.segment = target.coming.popleft()
                self.start(target, target.due, False)
                target.due += target.period
                burst += 1
        if self.slow_starts:
            later = []
            for due, target in self.slow_starts:
                if due <= now:
                    self.start(target, due, True)
                else:
                    later.append((due, target))
            self.slow_starts = later

    def start(self, target, due, slow):
        segment = target.segment
        if not slow:
            segment.asked += 1
            segment.open += 1
            delay = time.monotonic() - due
            if delay > segment.own_delay:
                segment.own_delay = delay
        sock = socket.socket(target.family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        connection = Connection(sock, target, segment, due, slow)
        self.connections[sock.fileno()] = connection
        code = sock.connect_ex(target.address)
        if code not in (0, errno.EINPROGRESS):
            self.fail(connection, OSError(code, os.strerror(code)))
            return
        self.epoll.register(sock.fileno(), EVENTS)
        if not slow:
            self.deadlines.append(connection)

    def expire(self, now):
        deadlines = self.deadlines
        while deadlines and (deadlines[0].sock is None or now - deadlines[0].due > self.timeout):
            connection = deadlines.popleft()
            if connection.state == CLOSING and connection.sock is not None:
                self.close(connection)
            elif connection.sock is not None:
                self.finish(connection, 'timeout', 'no answer in %g s' % self.timeout)

    # -- one connection ------------------------------------------------------

    def on_event(self, fd, events):
        connection = self.connections.get(fd)
        if connection is None:
            if fd == 0:
                self.read_commands()
            elif self.backend is not None and fd == self.backend.fileno():
                self.accept_slow()
            elif fd in self.dribbling:
                self.on_backend(fd)
            return
        try:
            if connection.state == CONNECTING:
                connection.sock.send(REQUEST % (b'/slow' if connection.slow else b'/'))
                connection.state = WAITING
            if events & ~select.EPOLLOUT:
                self.read(connection)
        except BlockingIOError:
            pass
        except OSError as error:
            self.fail(connection, error)

    def read(self, connection):
        while True:
            data = connection.sock.recv(65536)
            if connection.state == CLOSING:
                if not data:
                    self.close(connection)
                    return
                continue
            if not data:
                if connection.slow and connection.need is None:
                    self.finish(connection, 'failed', 'closed before the answer began')
                else:
                    self.finish(connection, 'cut', 'closed after %d bytes' % len(connection.data))
                return
            connection.data += data
            if connection.need is None:
                self.read_head(connection)
            if connection.need is not None and len(connection.data) >= connection.need:
                self.complete(connection)
                if connection.sock is None:
                    return

    @staticmethod
    def read_head(connection):
        head, separator, _ = connection.data.partition(b'\r\n\r\n')
        if not separator:
            return
        length = None
        for line in head.split(b'\r\n')[1:]:
            name, _, value = line.partition(b':')
            if name.lower() == b'content-length':
                length = int(value)
        # Without a length nobody can tell a whole answer from half of one.
        connection.need = len(head) + 4 + (length if length is not None else 1 << 40)

    def complete(self, connection):
        head, _, body = connection.data.partition(b'\r\n\r\n')
        if head.split(b' ', 2)[1] != b'200':
            self.finish(connection, 'bad', head.split(b'\r\n')[0].decode('ascii', 'replace'))
        elif connection.slow:
            self.finish(connection, 'ok', '')
        else:
            now = time.monotonic()
            segment = connection.segment
            target = connection.target
            segment.ok += 1
            segment.open -= 1
            segment.latencies.append(now - connection.due)
            # A gap belongs to the request that ended it: what was due before a report is in that report.
            gap = now - target.last_success
            if gap > segment.gap:
                segment.gap = gap
            target.last_success = now
            answer = body.decode('ascii', 'replace').strip()
            segment.answers[answer] = segment.answers.get(answer, 0) + 1
            if answer not in target.seen:
                target.seen.add(answer)
                say(event='generation', target=target.name, answer=answer, t=now)
            # The server closes; closing first would keep the port in TIME_WAIT on this side.
            connection.state = CLOSING

    def fail(self, connection, error):
        if connection.state == CLOSING:
            # Answered in full already.
            self.close(connection)
            return
        kind = {errno.ECONNREFUSED: 'refused', errno.ECONNRESET: 'reset', errno.EPIPE: 'reset',
                errno.ETIMEDOUT: 'timeout'}.get(error.errno, 'own')
        if kind == 'reset' and connection.data:
            kind = 'cut'
        self.finish(connection, kind, str(error))

    def finish(self, connection, kind, words):
        segment = connection.segment
        if connection.slow:
            # What was in flight is counted where it ended.
            segment = connection.target.newest()
            began = connection.need is not None and kind != 'bad'
            accepted = kind in ('reset', 'cut', 'failed')
            key = kind if kind == 'ok' else 'cut' if began else 'lost' if accepted else 'failed'
            segment.slow[key] += 1
            pause = 0.0 if kind == 'ok' else 0.1
            self.slow_starts.append((time.monotonic() + pause, connection.target))
        else:
            segment.failed[kind] += 1
            segment.open -= 1
        if kind != 'ok' and len(segment.examples) < 5:
            segment.examples.append('%s%s at %.3f: %s' % (
                'slow ' if connection.slow else '', kind, connection.due - segment.start, words))
        self.close(connection)

    def close(self, connection):
        del self.connections[connection.sock.fileno()]
        connection.sock.close()
        connection.sock = None

    # -- the slow server behind ------------------------------------------------

    def accept_slow(self):
        while True:
            try:
                sock, _ = self.backend.accept()
            except OSError:
                return
            sock.setblocking(False)
            self.dribbling[sock.fileno()] = [sock, b'', None]
            self.epoll.register(sock.fileno(), select.EPOLLIN)

    def on_backend(self, fd):
        entry = self.dribbling[fd]
        try:
            data = entry[0].recv(65536)
        except BlockingIOError:
            return
        except OSError:
            data = b''
        if not data:
            self.end_backend(fd)
            return
        entry[1] += data
        if entry[2] is None and b'\r\n\r\n' in entry[1]:
            entry[2] = max(1, int(self.slow_seconds / TICK))
            head = 'HTTP/1.0 200 OK\r\nConnection: close\r\nContent-Length: %d\r\n\r\n' % (entry[2] * len(DRIBBLE))
            try:
                entry[0].send(head.encode())
            except OSError:
                # Reset behind its request: who asked was killed meanwhile.
                self.end_backend(fd)

    def dribble(self, now):
        self.next_tick = now + TICK
        for fd, entry in list(self.dribbling.items()):
            if entry[2] is None:
                continue
            try:
                entry[0].send(DRIBBLE)
            except OSError:
                self.end_backend(fd)
                continue
            entry[2] -= 1
            if entry[2] == 0:
                self.end_backend(fd)

    def end_backend(self, fd):
        self.dribbling.pop(fd)[0].close()

    # -- commands ----------------------------------------------------------------

    def read_commands(self):
        data = os.read(0, 4096)
        if not data:
            self.running = False
            return
        self.input += data
        while b'\n' in self.input:
            line, self.input = self.input.split(b'\n', 1)
            words = line.decode().split()
            if words[:1] == ['segment']:
                now = time.monotonic()
                for target in self.targets:
                    target.coming.append(Segment(words[1], now))
                say(event='segment', name=words[1], t=now)
            elif words == ['report']:
                self.begin_report()
            elif words == ['stop']:
                self.running = False
            else:
                say(event='error', message='unknown command %r' % line.decode())

    def begin_report(self):
        now = time.monotonic()
        in_flight = [connection for connection in self.connections.values() if connection.slow]
        self.reporting = (now, [(target, target.newest()) for target in self.targets], in_flight)
        for target in self.targets:
            # The load goes on while the last ones settle. The slow answers that are in flight now still
            # count: what the event of the segment broke may show only when they should have ended.
            following = Segment('', now)
            following.slow = target.newest().slow
            target.coming.append(following)

    def try_report(self):
        end, segments, in_flight = self.reporting
        if any(target.due < end or segment.open for target, segment in segments) or any(
                slow.sock is not None for slow in in_flight):
            return
        self.reporting = None
        say(event='report', name=segments[0][1].name,
            targets={target.name: segment.report(end, min(end, target.last_success)) for target, segment in segments})


def say(**fields):
    sys.stdout.write(json.dumps(fields) + '\n')
    sys.stdout.flush()


def parse_target(text):
    try:
        name, where, rate = text.split('=')
        address, port = where.rsplit(':', 1)
        return Target(name, address.strip('[]'), int(port), float(rate))
    except ValueError:
        raise argparse.ArgumentTypeError('not NAME=ADDRESS:PORT=RATE: %r' % text)


def main():
    parser = argparse.ArgumentParser(description=__doc__.split('\n')[0])
    parser.add_argument('--target', action='append', type=parse_target, required=True)
    parser.add_argument('--slow', type=int, default=0, help='slow answers kept in flight, for each target')
    parser.add_argument('--slow-seconds', type=float, default=3.0)
    parser.add_argument('--backend', type=int, default=18080, help='port of the slow server on 127.0.0.1')
    parser.add_argument('--timeout', type=float, default=5.0)
    options = parser.parse_args()
    try:
        # Clients are other machines elsewhere: the scheduler must not make them wait for the server.
        os.setpriority(os.PRIO_PROCESS, 0, -15)
    except OSError:
        pass
    # At a thousand connections a second an outage of a second has as many open: a limit of 1,024 would end us.
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    load = Load(options.target, options.slow, options.slow_seconds, options.backend, options.timeout)
    load.run()


if __name__ == '__main__':
    main()
