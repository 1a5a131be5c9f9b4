"""haproxy's check of a rendered text, without any effect on the machine; and haproxy's words in terms
of the template.

Responsible for running `haproxy -c` on texts that are in force nowhere, and for saying of each complaint
which line of the template is behind it. It claims nothing and binds nothing: for each fd@N haproxy gets
a fresh socket of the right family, bound to no address.
"""

import os
import socket

from multibinder.errors import ConfigFileError, reason_of
from multibinder.haproxy.child import capture
from multibinder.pattern import Pattern

# "[/etc/haproxy/foo.cfg:12]", and since 2.8 also "config : [/…:12]" in lists of several places
_PLACE = Pattern(r'\[([^\[\]]+?):(\d+)\]')
_DEFAULT_PATH = Pattern(r'^(\s*default-path\s+)(config|parent)(\s*(?:#.*)?)$')
CHECK_SECONDS = 120.0


class Verdict(object):
    """What haproxy said: `status` its exit status (int), `output` its words (str) with the real names of
    the configs."""

    def __init__(self, status, output):
        self.status = status
        self.output = output


def check(command, sources, texts, rendered, deadline=CHECK_SECONDS):
    """Let haproxy check the `texts` (list of str) that were rendered from the `sources`, under the
    options of `command` (a Command) that matter. Returns a Verdict. `deadline` in seconds. Raises
    HaproxyError when haproxy cannot be run, ConfigFileError when no temporary file can be written."""
    import tempfile     # here, since a wrapper never checks and would carry it for nothing
    sockets = []
    try:
        with tempfile.TemporaryDirectory(prefix='multibinder-check-') as directory:
            replaced = {}
            for index, (source, text) in enumerate(zip(sources, texts)):
                # A directory each, so that the file has the config's name.
                os.mkdir(os.path.join(directory, str(index)), 0o700)
                path = os.path.join(directory, str(index), os.path.basename(source.config))
                with open(path, 'w', encoding='utf-8', errors='surrogateescape', newline='') as file:
                    file.write(anchored(text, source.config))
                replaced[source.config] = replaced[source.template] = path
            sockets = [unbound(endpoint) for endpoint in rendered.endpoints]
            fds = rendered.layout.place([sock.fileno() for sock in sockets])
            status, output = capture(command.checking(replaced), deadline, fds)
            words = output.decode('utf-8', 'surrogateescape')
            for source in sources:
                words = words.replace(replaced[source.config], source.config)
        return Verdict(status, words)
    except OSError as error:
        raise ConfigFileError('cannot prepare a check: {}'.format(reason_of(error)))
    finally:
        for sock in sockets:
            sock.close()


def anchored(text, config):
    """Return the text with a `default-path` that is relative to the config's own place made absolute: the
    checked copy lies elsewhere. Lines keep their numbers."""
    if 'default-path' not in text:
        return text
    directory = os.path.dirname(config)
    lines = text.split('\n')
    for index, line in enumerate(lines):
        found = _DEFAULT_PATH.match(line.rstrip('\r'))
        if found:
            origin = directory if found.group(2) == 'config' else os.path.dirname(directory)
            lines[index] = '{}origin {}{}'.format(found.group(1), origin, found.group(3))
    return '\n'.join(lines)


def unbound(endpoint):
    """Return a socket of an endpoint's family that is bound to nothing: what haproxy asks of an fd@N when
    it reads its config is only the family and the type."""
    return socket.socket(endpoint.family(), socket.SOCK_STREAM)


def explained(words, lines):
    """Return haproxy's words (str) with the template's line below each complaint that names a rendered
    one. `lines` maps a config's path to the origins of its lines (see Rendered)."""
    explained_lines = []
    texts = {}
    for line in words.splitlines():
        explained_lines.append(line)
        for config, number in _PLACE.findall(line):
            origins = lines.get(config)
            index = int(number) - 1
            if origins and 0 <= index < len(origins) and origins[index]:
                path, origin = origins[index]
                explained_lines.append('    {}:{}: {}'.format(path, origin, _line_of(path, origin, texts)))
                break
    return '\n'.join(explained_lines)


def complaints(words):
    """Return what of haproxy's words (list of str) says why it failed: its alerts, or the last lines when
    it gave none."""
    alerts = []
    for line in words:
        if line.startswith('[ALERT]'):
            alerts.append(line)
        elif alerts and not line.startswith('['):
            alerts.append(line)     # an alert of several lines
    return alerts or [line for line in words if not line.startswith('[NOTICE]')][-5:]


def _line_of(path, number, texts):
    """Return a template's line as it stands now; the files read are kept in `texts`."""
    if path not in texts:
        try:
            with open(path, encoding='utf-8', errors='replace') as file:
                texts[path] = file.read().split('\n')
        except OSError:
            texts[path] = []
    found = texts[path][number - 1:number]
    return found[0].strip() if found else '(no such line any more)'
