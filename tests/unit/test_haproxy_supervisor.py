"""What the supervisor decides: the parties are stand-ins, the decisions are the real ones."""

import signal
import time

import pytest

from multibinder.errors import HaproxyError, TemplateError
from multibinder.haproxy import supervisor as module
from multibinder.haproxy.command import Command, Version
from multibinder.haproxy.settings import Settings


class Generation(object):
    def __init__(self, number):
        self.number = number
        self.pid = 1000 + number
        self.version = Version('2.6.12')
        self.status = None
        self.retired = None
        self.hurried = None
        self.quiet = False
        self.settled = True
        self.told = []

    def __str__(self):
        return 'generation {}'.format(self.number)

    @property
    def alive(self):
        return self.status is None

    def publish(self, path):
        self.told.append('publish')

    def retire(self):
        self.told.append('retire')
        self.retired = 0.0
        self.quiet = True

    def hurry(self):
        self.told.append('hurry')
        self.hurried = 1e12

    def kill(self):
        self.told.append('kill')

    def leave(self):
        self.told.append('leave')


class Launched(object):
    claim = None
    configs = ()
    unheld = ()
    endpoints = ()

    def __init__(self, number):
        self.generation = Generation(number)


class Control(object):
    def __init__(self):
        self.waited_for = False
        self.answers = []

    def answer(self, status, reason):
        self.waited_for = False
        self.answers.append((status, reason))

    def close(self):
        pass


@pytest.fixture
def world(tmp_path, monkeypatch):
    """A supervisor whose launches end as told: `ends` is a list of exceptions, or None for success; a
    launch waits while `ends` is empty."""
    template = tmp_path / 'foo.cfg.tmpl'
    template.write_text('')
    monkeypatch.setenv('MULTIBINDER_RUNTIME_DIR', str(tmp_path / 'run'))
    monkeypatch.delenv('NOTIFY_SOCKET', raising=False)
    (tmp_path / 'run').mkdir()
    ends = []
    closed = []

    def launch(loop, number, *rest):
        try:
            while not ends:
                yield 0.0
        except GeneratorExit:
            closed.append(number)
            raise
        end = ends.pop(0)
        if end is not None:
            raise end
        return Launched(number)

    monkeypatch.setattr(module, 'launch', launch)
    made = module.Supervisor(Command(['haproxy', '-f', str(template)]), Settings({}), '')
    made._control = Control()
    made.ends = ends
    made.closed = closed
    return made


def decide(world, *signals):
    world._loop.signals.extend(signals)
    while world._decide():
        pass


def started(world):
    world.ends.append(None)
    decide(world)
    return world._serving


def test_start(world):
    first = started(world)
    assert first.told == ['publish'] and first.number == 1
    decide(world)
    assert world._attempt is None


def test_failed_start_is_the_end(world):
    world.ends.append(TemplateError('no'))
    with pytest.raises(TemplateError):
        decide(world)


@pytest.mark.parametrize('number', [signal.SIGUSR2, signal.SIGHUP])
def test_reload(world, number):
    first = started(world)
    world.ends.append(None)
    decide(world, number)
    assert first.told == ['publish', 'retire']
    assert world._serving.number == 2 and world._old == [first]
    first.status = 0
    decide(world)
    assert world._old == []


@pytest.mark.parametrize('error', [HaproxyError('refused', 7), OSError(24, 'too many'), KeyError('a bug')])
def test_failed_reload_leaves_the_serving_generation_alone(world, error):
    first = started(world)
    world.ends.append(error)
    decide(world, signal.SIGUSR2)
    assert world._serving is first and first.told == ['publish']
    world._control.waited_for = True
    decide(world)
    status, reason = world._control.answers[0]
    assert status == (7 if isinstance(error, HaproxyError) else 1)
    assert 'generation 1 serves on' in reason
    world.ends.append(None)
    decide(world, signal.SIGUSR2)
    assert world._serving.number == 2
    world._control.waited_for = True
    decide(world)
    assert world._control.answers[1] == (0, '')


def test_many_reloads_during_one_are_one_more(world):
    started(world)
    decide(world, signal.SIGUSR2)
    for _ in range(5):
        decide(world, signal.SIGUSR2)
    world._control.waited_for = True
    decide(world)
    assert world._control.answers == [], 'nobody is answered while one is wanted'
    world.ends.append(None)
    decide(world)
    assert world._serving.number == 2 and world._control.answers == []
    world.ends.append(None)
    decide(world)
    assert world._serving.number == 3 and world._control.answers == [(0, '')]
    decide(world)
    assert world._attempt is None


def test_reload_wanted_during_the_start(world):
    decide(world, signal.SIGUSR2)
    assert world._attempt is not None
    decide(world, signal.SIGUSR2)
    world.ends.extend([None, None])
    decide(world)
    assert world._serving.number == 2


@pytest.mark.parametrize('status, expected', [(-9, 137), (137, 137), (1, 3), (0, 3), (2, 3), (42, 42)])
def test_haproxy_dies(world, status, expected):
    started(world).status = status
    decide(world)
    assert world._exit == expected


def test_haproxy_dies_during_a_reload_that_succeeds(world):
    first = started(world)
    decide(world, signal.SIGUSR2)
    first.status = -9
    decide(world)
    assert world._exit is None
    world.ends.append(None)
    decide(world)
    assert world._exit is None and world._serving.number == 2 and world._old == []


def test_haproxy_dies_during_a_reload_that_fails(world):
    first = started(world)
    decide(world, signal.SIGUSR2)
    first.status = -9
    world.ends.append(HaproxyError('no'))
    decide(world)
    assert world._exit == 137
    assert 'serves on' not in world._control.answers[0][1]


@pytest.mark.parametrize('number', [signal.SIGTERM, signal.SIGINT, signal.SIGUSR1])
def test_stop_waits_for_all(world, number):
    first = started(world)
    world.ends.append(None)
    decide(world, signal.SIGUSR2)
    second = world._serving
    decide(world, number)
    assert second.told == ['publish', 'retire'] and world._exit is None
    first.status = second.status = 0
    decide(world)
    assert world._exit == 0


def test_second_stop_hurries(world):
    first = started(world)
    decide(world, signal.SIGTERM)
    assert 'hurry' not in first.told
    decide(world, signal.SIGTERM)
    assert first.told[-1] == 'hurry'


def test_stop_that_leaves(world):
    world._settings.leave_on_stop = True
    first = started(world)
    decide(world, signal.SIGTERM)
    assert first.told[-1] == 'retire' and world._exit == 0


def test_stop_that_leaves_waits_for_a_master_that_hears(world):
    """Of two signals, the first is lost by a master that is executing itself once more."""
    world._settings.leave_on_stop = True
    first = started(world)
    first.settled = False
    first.retire = lambda: (first.told.append('retire'), setattr(first, 'retired', time.monotonic()))
    decide(world, signal.SIGTERM)
    assert first.told[-1] == 'retire' and world._exit is None
    assert world._loop._timers['settle'][0] > time.monotonic(), 'it comes back to go all the same'
    first.retired -= module.SETTLE_SECONDS
    decide(world)
    assert world._exit == 0


def test_stop_that_waits_does_not_look_again_and_again(world):
    first = started(world)
    first.settled = False
    first.retire = lambda: setattr(first, 'retired', time.monotonic() - module.SETTLE_SECONDS)
    decide(world, signal.SIGTERM)
    assert world._exit is None and not world._loop._timers


def test_stop_during_a_reload(world):
    first = started(world)
    decide(world, signal.SIGUSR2)
    decide(world, signal.SIGTERM, signal.SIGUSR2)
    assert world.closed == [2] and world._attempt is None
    assert first.told[-1] == 'retire'
    first.status = 0
    decide(world)
    assert world._exit == 0


def test_too_many_old_generations(world):
    world._settings.max_old = 2
    generations = [started(world)]
    for _ in range(4):
        world.ends.append(None)
        decide(world, signal.SIGUSR2)
        generations.append(world._serving)
    decide(world)
    assert ['hurry' in generation.told for generation in generations] == [True, True, False, False, False]


def test_too_old_a_generation(world):
    world._settings.old_age = 5.0
    first = started(world)
    world.ends.append(None)
    decide(world, signal.SIGUSR2)
    decide(world)
    assert 'hurry' in first.told      # it was retired at 0.0 on the clock


def test_one_that_takes_no_notice(world):
    """What was told to end at once, and does not, is killed."""
    first = started(world)
    decide(world, signal.SIGTERM, signal.SIGTERM)
    assert first.told[-1] == 'hurry'
    first.hurried = 0.0
    decide(world)
    assert first.told[-1] == 'kill' and world._exit is None
    first.status = -9
    decide(world)
    assert world._exit == 0
