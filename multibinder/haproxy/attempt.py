"""One try to put a new generation beside the one that serves.

Responsible for the steps in their order, and for leaving nothing behind when one of them fails: the
config on disk, the pidfile, the leases and the process table are then as before. It neither ends the old
generation nor says what a failure means; the supervisor does.
"""

import contextlib
import os

from multibinder import log
from multibinder.errors import HaproxyError, TemplateError
from multibinder.haproxy import process, rendering
from multibinder.haproxy.config import MARK, Pidfile, RenderedConfig, last_line
from multibinder.haproxy.generation import Generation, child_to_be
from multibinder.haproxy.instance import Source, no_template, source_of
from multibinder.haproxy.loop import wait_for
from multibinder.haproxy.proof import CommandLine
from multibinder.haproxy.rendering import Rendered


class Launched(object):
    """A new generation that is proved to serve, and what it was started with: the `configs` on disk,
    which still have the way back, the `claim` of its listeners (None without a binder), what cannot be
    held, `unheld` (str each), and the `endpoints` that its descriptors stand for, in their order."""

    def __init__(self, generation, configs, claim, unheld=(), endpoints=()):
        self.generation = generation
        self.endpoints = endpoints
        self.configs = configs
        self.claim = claim
        self.unheld = unheld


def sources_of(command):
    """Return the Sources (list) of a Command's configs. Where not one has a template and the first is
    written by hand, that alone, without a template. Raises TemplateError when it is neither."""
    found = [source for source in (source_of(path) for path in command.configs) if source is not None]
    if not found:
        first = command.configs[0]
        if not os.path.exists(first) or os.path.isfile(first) and last_line(first).startswith(MARK):
            raise TemplateError(no_template(first))
        found = [Source(first, None)]
    for source in found:
        if found.count(source) > 1 or command.configs.count(source.config) > 1:
            raise TemplateError('{} is given to haproxy twice'.format(source.config))
    return found


def launch(loop, number, name, command, binary, listeners, runtime, settings, left):
    """Render, claim, install, launch, and wait for the proof: a generator that `loop` drives (see
    wait_for), which returns a Launched.

    `number` is the new generation's, `name` the instance's, `binary` a Binary, `listeners` a Listeners or
    None for addresses in clear. Raises an Error, and then all is as it was before. Closing the generator
    has the same effect, but that a haproxy already launched is told to finish and not killed: `left` is
    called with its Generation.
    """
    with contextlib.ExitStack() as undo:
        sources = sources_of(command)
        if sources[0].template is None:
            return (yield from _launch_plain(loop, number, command, binary, listeners, runtime, settings, left))
        configs = [RenderedConfig(source.config, source.template) for source in sources]
        version, child, rendered = yield from _render(loop, sources, configs, name, listeners is None, binary,
                                                      settings, undo)
        _say_notes(command, version, number)

        claim = None
        fds = []
        if listeners is not None:
            claim = yield from listeners.claim(rendered.endpoints)
            undo.callback(listeners.abandon, claim)
            fds = claim.fds(rendered.endpoints)

        undo.callback(Pidfile(command.pidfile).restore)
        for config in configs:
            config.install()
            undo.callback(config.restore)

        generation = _start(loop, number, version, child, command, sources, rendered, fds, runtime)
        try:
            yield from _proved(generation, rendered, settings)
        except GeneratorExit:
            generation.retire()     # it may serve already: what it has accepted is finished
            left(generation)
            raise
        except BaseException:
            generation.abandon()
            raise
        undo.pop_all()
        return Launched(generation, configs, claim, endpoints=rendered.endpoints)


def _launch_plain(loop, number, command, binary, listeners, runtime, settings, left):
    from multibinder.haproxy import plain       # here, since few instances need it
    version = binary.version()
    _say_notes(command, version, number)
    with contextlib.ExitStack() as undo:
        child = child_to_be()
        undo.callback(child.close)
        undo.callback(Pidfile(command.pidfile).restore)
        generation, claim, unheld = yield from plain.launch(
            loop, number, version, child, command, listeners, runtime,
            lambda generation: _proved(generation, Rendered([], [], {}), settings), left)
        undo.pop_all()
        return Launched(generation, [], claim, unheld)


def _say_notes(command, version, number):
    """Say once what is changed in the owner's words."""
    for note in command.notes(version) if number == 1 else ():
        log.warning(note)


def _render(loop, sources, configs, name, clear, binary, settings, undo):
    """Let a child render. Meanwhile ask haproxy for its version, and fork what is to become haproxy: return
    (Version, Child, Rendered)."""
    job = rendering.Job(sources, configs, name, clear, deadline=settings.render_timeout)
    for config in configs:
        undo.callback(config.discard)
    loop.on_exit(job.pid, job.ended)
    loop.watch(job, job.read)
    try:
        child = child_to_be()
        undo.callback(child.close)
        version = binary.version()
        # The renderer minds its deadline itself and says which template; ours is for one that cannot.
        if not (yield from wait_for(lambda: job.done, settings.render_timeout * len(sources) + 2.0)):
            raise TemplateError('the renderer does not end', sources[0].template)
        loop.forget(job)
        yield from wait_for(lambda: not job.unexplained, 1.0)   # a pipe is closed a moment before its process ends
        rendered = job.result()
    finally:
        loop.forget(job)
        job.kill()
        job.close()
    for warning in rendered.warnings:
        log.warning(warning)
    if clear and rendered.endpoints:
        log.warning('MULTIBINDER_SOCK is set to the empty string: haproxy binds its addresses itself, and a '
                    'restart loses connections')
    return version, child, rendered


def _start(loop, number, version, child, command, sources, rendered, fds, runtime):
    command_line = CommandLine(version, runtime, number)
    try:
        words = command.supervised(version, {source.template: source.config for source in sources},
                                   command_line.words(rendered.layout.ours))
        placed = rendered.layout.place(fds, command_line.fds())
        return Generation(loop, number, version, child, words, placed, command_line)
    except BaseException:
        command_line.close()
        raise


def _proved(generation, rendered, settings):
    """Wait until the generation serves. Raises HaproxyError with haproxy's own words when it does not."""
    def settled():
        return generation.ready or generation.refused is not None or not generation.alive

    if generation.proved_after is not None:
        yield from wait_for(settled, min(generation.proved_after, settings.start_timeout))
    yield from wait_for(settled, settings.start_timeout)
    if generation.ready:
        return
    if generation.refused is not None and generation.alive:
        # The connection ends a moment before the process does, whose last words are the better reason.
        yield from wait_for(lambda: not generation.alive, 2.0)
    from multibinder.haproxy import check       # here, since nearly every launch is proved
    said = '{} '.format(generation.version.text)
    status = 1
    if not generation.alive:
        what = 'did not start ({})'.format(process.describe_exit(generation.status))
        status = 128 - generation.status if generation.status < 0 else generation.status or 1
    elif generation.refused is not None:
        what = 'does not serve: {}'.format(generation.refused)
    else:
        what = 'was not ready within {:g} s'.format(settings.start_timeout)
    words = '\n'.join(check.complaints(list(generation.tail)))
    if words:
        what += ':\n' + check.explained(words, rendered.lines)
    raise HaproxyError('haproxy ' + said + what, status)
