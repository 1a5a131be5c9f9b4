"""Drives the load generator (load.py) in a container or on the host, and keeps what it says.

    with Traffic(machine, {'v4': ('127.0.0.1', 80, 500)}, slow=10) as traffic:
        traffic.segment('reload')
        machine.run('systemctl reload haproxy-multi@foo')
        report = traffic.report()
        assert report['v4']['failed'] == 0

Responsible for the conversation with one load.py. What a figure must be is the test's business.
"""

import json
import os
import queue
import subprocess
import sys
import threading
import time

LOAD = os.path.join(os.path.dirname(os.path.abspath(__file__)), 'load.py')


class Traffic:
    """A running load.

    machine     a Container, or None for this host
    targets     name -> (address, port, requests a second)
    slow        slow answers kept in flight for each target, each of slow_seconds
    backend     port on 127.0.0.1 where the slow server listens; haproxy's config names it as its server
    """

    def __init__(self, machine, targets, slow=0, slow_seconds=2.0, backend=18080, timeout=5.0):
        words = ['--slow', str(slow), '--slow-seconds', str(slow_seconds), '--backend', str(backend),
                 '--timeout', str(timeout)]
        for name, (address, port, rate) in sorted(targets.items()):
            words += ['--target', '%s=%s:%d=%g' % (name, address, port, rate)]
        if machine is None:
            argv = [sys.executable, LOAD] + words
        else:
            machine.put_file(LOAD, '/usr/local/lib/multibinder-tests/load.py')
            argv = machine.command(['/usr/bin/python3', '/usr/local/lib/multibinder-tests/load.py'] + words)
        self.targets = sorted(targets)
        self._answers = {}
        self._argv = argv
        self._process = None
        self._events = queue.Queue()
        self._changed = threading.Condition()

    def __enter__(self):
        self._process = subprocess.Popen(self._argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        reader = threading.Thread(target=self._read)
        reader.daemon = True
        reader.start()
        return self

    def __exit__(self, kind, value, trace):
        try:
            self._process.stdin.close()
        except OSError:
            pass
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def _read(self):
        for line in self._process.stdout:
            event = json.loads(line.decode())
            if event['event'] == 'generation':
                with self._changed:
                    self._answers[(event['target'], event['answer'])] = event['t']
                    self._changed.notify_all()
            else:
                self._events.put(event)
        self._process.stdout.close()
        self._events.put(None)

    def _say(self, words):
        self._process.stdin.write((words + '\n').encode())
        self._process.stdin.flush()

    def _await(self, name, seconds):
        event = self._events.get(timeout=seconds)
        if event is None:
            raise AssertionError('the load generator ended with %r' % self._process.wait())
        if event['event'] != name:
            raise AssertionError('the load generator said %r instead of %r' % (event, name))
        return event

    def segment(self, name):
        """Counts under a new name from now on. Gives the moment (CLOCK_MONOTONIC, seconds)."""
        self._say('segment ' + name.replace(' ', '_'))
        return self._await('segment', 30)['t']

    def report(self, seconds=30):
        """Ends the segment and gives what happened in it: target -> dict, as Segment.report makes it."""
        self._say('report')
        return self._await('report', seconds)['targets']

    def seen(self, target):
        """The answers that came from a target so far: answer -> moment of the first one."""
        with self._changed:
            return {answer: t for (name, answer), t in self._answers.items() if name == target}

    def wait_new(self, target, known, seconds=30):
        """Waits for an answer that is not among `known`; gives (answer, moment of its first coming).

        The event to wait for after a reload or a crash: the new generation serves.
        """
        deadline = time.monotonic() + seconds
        with self._changed:
            while True:
                new = [(t, answer) for (name, answer), t in self._answers.items()
                       if name == target and answer not in known]
                if new:
                    t, answer = min(new)
                    return answer, t
                left = deadline - time.monotonic()
                if left <= 0 or not self._changed.wait(left):
                    raise AssertionError('no new generation answered on %s within %g s; known: %s' % (
                        target, seconds, sorted(known)))
