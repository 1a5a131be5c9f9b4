"""What a template sees: bind_tcp, bind_unix, env, hostname, instance, cpu_count and its own values.

Responsible for the names and for the list of endpoints that the calls add up to. The languages are the
engines'; what an endpoint may be is `multibinder.endpoint`'s.
"""

import os

from multibinder.endpoint import Endpoint
from multibinder.errors import EndpointError, TemplateError
from multibinder.pattern import Pattern
from multibinder.template.source import FIRST_FD, bare_name, in_comment

# What Mako itself puts into every template.
MAKO_NAMES = ('context', 'local', 'self', 'parent', 'next', 'caller', 'loop', 'capture', 'pageargs', 'UNDEFINED',
              'STOP_RENDERING')
NAMES = ('bind_tcp', 'bind_unix', 'env', 'ENV', 'hostname', 'instance', 'cpu_count')
_DESCRIPTOR = Pattern(r'fd@(\d+)')


class BindRefused(Exception):
    """A bind_* call whose arguments name no endpoint. Its text is the reason."""


class Environment(dict):
    """The environment, a copy; a variable that is not there is named in words."""

    def __missing__(self, name):
        raise KeyError('the environment has no variable {!r}'.format(name))


class Scope(object):
    """The names of one rendering. `names` is a dict of them, `endpoints` the endpoints in the order of
    the bind_* calls."""

    def __init__(self, instance, env, clear):
        self.clear = clear
        self.endpoints = []
        self.env = Environment(env)
        self.values = {}
        try:
            cpu_count = len(os.sched_getaffinity(0))
        except (AttributeError, OSError):
            cpu_count = os.cpu_count() or 1
        self.names = {
            'bind_tcp': self.bind_tcp,
            'bind_unix': self.bind_unix,
            'env': self.env,
            'ENV': self.env,
            'hostname': os.uname()[1],
            'instance': instance,
            'cpu_count': cpu_count,
        }

    def bind_tcp(self, address, port, **options):
        """Return what stands on a bind line for a TCP endpoint. Raises BindRefused."""
        try:
            return self._add(Endpoint.tcp(address, port, **options))
        except (EndpointError, TypeError) as error:
            raise BindRefused('bind_tcp: {}'.format(error)) from None

    def bind_unix(self, path, **options):
        """Return what stands on a bind line for a UNIX endpoint. Raises BindRefused."""
        try:
            return self._add(Endpoint.unix(path, **options))
        except (EndpointError, TypeError) as error:
            raise BindRefused('bind_unix: {}'.format(error)) from None

    def _add(self, endpoint):
        self.endpoints.append(endpoint)
        if self.clear:
            return endpoint.haproxy_address()
        return 'fd@%d' % (FIRST_FD + len(self.endpoints) - 1)

    def load_values(self, path, reader):
        """Add what NAME.vars.json or NAME.vars.yaml beside the template holds to the names. Raises
        TemplateError: unreadable, no mapping, or a name that is taken."""
        stem = os.path.join(os.path.dirname(path), bare_name(path) + '.vars.')
        found = [stem + ending for ending in ('json', 'yaml') if os.path.exists(stem + ending)]
        if not found:
            return
        if len(found) > 1:
            raise TemplateError('two files of values for one template: {} and {}'.format(*found), path)
        from multibinder.template.values import load
        self.values = load(found[0], reader)
        for name in sorted(self.values):
            if name in NAMES or name in MAKO_NAMES:
                raise TemplateError('{!r} is taken: it always names what {} gives'.format(
                    name, 'multibinder' if name in NAMES else 'Mako'), found[0])
        self.names.update(self.values)

    def misused(self, text, lines, path):
        """Return a sentence (list of str) for each endpoint that does not stand on one bind line of the
        text. Clients of a listener that nobody accepts on hang, and haproxy from 2.3 on may die of a
        descriptor that it is given twice."""
        if self.clear or not self.endpoints:
            return []
        places = [[] for _ in self.endpoints]
        sentences = []
        start = counted = line = 0
        for found in _DESCRIPTOR.finditer(text):
            index = int(found.group(1)) - FIRST_FD
            if not 0 <= index < len(places):
                continue
            start = text.rfind('\n', 0, found.start()) + 1
            line += text.count('\n', counted, start)
            counted = start
            before = text[start:found.start()]
            if '#' not in before or not in_comment(before):
                places[index].append(line)
            else:
                sentences.append('{}: {} stands in a comment'.format(_shown(lines[line], path), self.endpoints[index]))
        for endpoint, found in zip(self.endpoints, places):
            if not found:
                sentences.append('{}: {} is claimed and stands on no line that haproxy reads, so that its clients '
                                 'would hang'.format(path, endpoint))
            elif len(found) > 1:
                sentences.append('{}: the descriptor of {} stands on {} lines: each bind line needs a bind call of '
                                 'its own'.format(_shown(lines[found[1]], path), endpoint, len(found)))
        return sentences


def _shown(place, path):
    return '{}:{}'.format(*place) if place else path
