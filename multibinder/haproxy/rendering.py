"""From templates to rendered configs on disk, for a process that must stay small.

Responsible for putting the texts of one command line together: descriptors numbered through all of its
templates, the new files written beside the configs. The wrapper does it in a forked child (`Job`),
since a template engine costs more memory than the rest of it, and a template may hang or die.
"""

import json
import os
import re
import signal

from multibinder import log
from multibinder.endpoint import Endpoint
from multibinder.errors import ConfigFileError, Error, TemplateError
from multibinder.haproxy.layout import FIRST, Layout, renumber
from multibinder.haproxy.process import describe_exit
from multibinder.process import close_all_but, reset_signals

_BIND = re.compile(r'\s*bind\s+["\']?([^\s"\'#]+)')
_BINDS_SHOWN = 5
_SHOWN_MAX = 80


class Rendered(object):
    """What a launch needs to know of rendered templates.

    `endpoints` (list of Endpoint) in the order of their descriptors; `layout` their numbers;
    `warnings` (list of str); `lines` maps a config's path to the list of (template path, line number) or
    None for each of its lines.
    """

    def __init__(self, endpoints, warnings, lines):
        self.endpoints = endpoints
        self.layout = Layout(len(endpoints))
        self.warnings = warnings
        self._lines = lines

    @property
    def lines(self):
        if isinstance(self._lines, bytes):      # looked at after a failure only: kept as it came
            return json.loads(self._lines.decode('utf-8', 'surrogatepass'))
        return self._lines


def render_all(sources, name, clear=False, strict=False, deadline=None):
    """Render each Source of a command line, for the instance `name`. Returns (texts, Rendered): the texts
    (list of str) in the order of the sources. Raises TemplateError.

    Loads the template engine into the calling process."""
    from multibinder import template
    renderings = [template.render(source.template, instance=name, clear=clear, strict=strict, deadline=deadline)
                  for source in sources]
    endpoints = [endpoint for rendering in renderings for endpoint in rendering.endpoints]
    rendered = Rendered(endpoints, [warning for rendering in renderings for warning in rendering.warnings],
                        {source.config: rendering.lines for source, rendering in zip(sources, renderings)})
    texts = []
    first = rendered.layout.listeners
    for source, rendering in zip(sources, renderings):
        if not clear:
            rendered.warnings.extend(own_binds(source.config, rendering))
        count = len(rendering.endpoints)
        texts.append(renumber(rendering.text, count, first - FIRST))
        first += count
    return texts, rendered


def own_binds(config, rendering):
    """Return the sentences (list of str) on `bind` lines of a rendered config whose addresses haproxy binds
    itself: they are lost in a restart, and a reload fails when they cannot be bound a second time."""
    found = []
    for index, line in enumerate(rendering.text.split('\n')):
        match = _BIND.match(line)
        if match and not match.group(1).startswith('fd@'):
            path, number = rendering.lines[index] or (config, index + 1)
            found.append('{}:{}: "{}" is bound by haproxy itself and not held: bind_tcp or bind_unix would'.format(
                path, number, line.strip()[:_SHOWN_MAX]))
    return found[:_BINDS_SHOWN] + (['and {} more such lines in {}'.format(len(found) - _BINDS_SHOWN, config)]
                                   if len(found) > _BINDS_SHOWN else [])


class Job(object):
    """A forked child that renders and writes the configs' new texts beside them.

    `fileno()` gets readable with its report; `done` is true from its end on, then `result()` gives the
    Rendered or raises what went wrong. The process is `pid`: whoever made the Job reaps it, and tells
    `ended`.
    """

    def __init__(self, sources, configs, name, clear=False, deadline=None):
        """Fork. `configs` are the RenderedConfigs of the `sources`."""
        self._chunks = []
        self._reader, writer = os.pipe()
        self.pid = os.fork()
        if self.pid == 0:
            self._child(writer, sources, configs, name, clear, deadline)
        os.close(writer)
        os.set_blocking(self._reader, False)
        self.done = False
        self._status = None

    def fileno(self):
        return self._reader

    def read(self):
        """Take what has arrived of the report."""
        while not self.done:
            try:
                data = os.read(self._reader, 1 << 16)
            except BlockingIOError:
                return
            if data:
                self._chunks.append(data)
            else:
                self.done = True

    @property
    def unexplained(self):
        """Whether it said nothing, and how it ended is not known yet."""
        return not self._chunks and self._status is None

    def ended(self, status):
        """The child has ended with `status` (see process.exit_status) and is about to be reaped. What a
        template has started may hold the pipe open for longer: that is not waited for."""
        self._status = status
        self.read()
        self.done = True

    def kill(self):
        """End the child, if it has not ended: only then is the PID still its own."""
        if self._status is None:
            os.kill(self.pid, signal.SIGKILL)

    def close(self):
        """Close the pipe."""
        if self._reader >= 0:
            os.close(self._reader)
            self._reader = -1

    def result(self):
        """Return the Rendered. Raises TemplateError, ConfigFileError."""
        head, _, lines = b''.join(self._chunks).partition(b'\n')
        self._chunks = []
        if not head:
            raise TemplateError('the renderer died without a word ({})'.format(
                'it closed its report' if self._status is None else describe_exit(self._status)))
        report = json.loads(head.decode('ascii'))
        if 'template' in report:
            raise TemplateError(*report['template'])
        if 'error' in report:
            raise ConfigFileError(report['error'])
        # As they were read off Endpoints: nothing has to be checked again.
        endpoints = [Endpoint(kind, address, port, options)
                     for kind, address, options, ports in report['endpoints'] for port in ports]
        return Rendered(endpoints, report['warnings'], lines)

    @staticmethod
    def _child(writer, sources, configs, name, clear, deadline):
        status = 1
        try:
            signal.set_wakeup_fd(-1)        # its other end is the parent's
            reset_signals()
            # Nothing above stderr is this child's, least of all the connection to the binder, which a
            # renderer that hangs would keep open.
            close_all_but([writer])
            _send(writer, _report(sources, configs, name, clear, deadline))
            os.close(writer)                # the end of a process takes a moment longer
            status = 0
        except BaseException as error:      # of a bug here, or of an engine that raises what it should not
            log.error('the renderer failed: {!r}'.format(error))
        finally:
            os._exit(status)


def _report(sources, configs, name, clear, deadline):
    """Render and write; return what the parent has to know, as bytes: a line of JSON, and behind it the
    origins of the lines, which it only reads when haproxy complains of one."""
    try:
        texts, rendered = render_all(sources, name, clear, deadline=deadline)
        for config, text in zip(configs, texts):
            config.write(text)
    except TemplateError as error:
        return json.dumps({'template': [error.reason, error.path, error.line, error.text]}).encode('ascii') + b'\n'
    except Error as error:
        return json.dumps({'error': str(error)}).encode('ascii') + b'\n'
    # Those that follow each other at one address are one row: a thousand of them are quick to read and small.
    rows = []
    for endpoint in rendered.endpoints:
        row = [endpoint.kind, endpoint.address, endpoint.options]
        if not rows or rows[-1][:3] != row:
            rows.append(row + [[]])
        rows[-1][3].append(endpoint.port)
    head = {'endpoints': rows, 'warnings': rendered.warnings}
    return json.dumps(head).encode('ascii') + b'\n' + json.dumps(rendered.lines).encode('ascii')


def _send(writer, data):
    view = memoryview(data)
    while view:
        view = view[os.write(writer, view):]
