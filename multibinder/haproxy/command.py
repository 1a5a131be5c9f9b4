"""haproxy's command line: as its owner wrote it, and as it has to be run.

Responsible for reading the words, for haproxy's version, and for the mode that goes with it. It starts
nothing but `haproxy -vv`. Source: haproxy(1) and the management guide's section 3, and what haproxy.c
does with the first letter of an option.
"""

import os
import re

from multibinder.errors import HaproxyError, UsageError
from multibinder.haproxy import process
from multibinder.haproxy.child import capture

# The first letter decides in haproxy's own parser whether the next word is the option's value.
_WITH_VALUE = 'CLNSfmnpx'
_MODES = ('-Ws', '-W', '-Ds', '-D', '-db')
_FINISHES_OTHERS = ('-sf', '-st')
_ENDS_AT_ONCE = ('-c', '-cc', '-v', '-vv', '-h')
_VERSION = re.compile(r'^HA-?Proxy version (\S+)', re.MULTILINE)
VERSION_SECONDS = 10.0


class Version(object):
    """What a haproxy binary is: `text` as it says itself, `numbers` (tuple of int), `notifies` whether it
    was built to tell systemd its state."""

    def __init__(self, text, notifies=True):
        self.text = text
        found = re.match(r'\d+(\.\d+)*', text)
        self.numbers = tuple(int(number) for number in found.group(0).split('.')) if found else (0,)
        self.notifies = notifies

    @property
    def has_master(self):
        """From 1.8 on a master supervises the workers; before, -Ds only waits for them."""
        return self.numbers >= (1, 8)

    @property
    def has_master_cli(self):
        """From 1.9 on the master answers on a command line of its own (-S)."""
        return self.numbers >= (1, 9)

    @property
    def answers_early(self):
        """From 3.1 on the master takes questions before it knows its worker, and refuses them."""
        return self.numbers >= (3, 1)

    @property
    def mode(self):
        """The options (list of str) that keep this haproxy in the foreground with workers of its own."""
        if not self.has_master:
            return ['-Ds']
        # -Ws is refused by a build without systemd, and -W alone goes into the background when the config
        # says "daemon". Nothing here depends on what -Ws notifies.
        return ['-Ws'] if self.notifies else ['-W', '-db']


def parse_version(output):
    """Return the Version out of what `haproxy -vv` printed (str), or None."""
    found = _VERSION.search(output)
    if not found:
        return None
    version = Version(found.group(1))
    # From 3.1 on -Ws is in every build and listed nowhere. A binary that lists no options is believed.
    if version.numbers < (3, 1) and re.search(r'OPTIONS\s*=', output):
        version.notifies = bool(re.search(r'USE_SYSTEMD=(1|yes|implicit)|\+SYSTEMD\b', output))
    return version


class Binary(object):
    """The haproxy program of a command line, and its version, which an upgrade changes between two
    launches."""

    def __init__(self, prefix):
        self._prefix = prefix
        self._seen = None
        self._version = None

    def version(self):
        """Return the Version of what a launch now would run. The program is asked again only when its
        file has changed. Raises HaproxyError when there is no such program, or it does not say."""
        path = process.find_program(self._prefix[-1])
        seen = None
        if path is not None:
            found = os.stat(path)
            seen = (path, found.st_dev, found.st_ino, found.st_size, found.st_mtime, found.st_ctime)
        if seen is None or seen != self._seen:
            self._version = self._ask()
            self._seen = seen
        return self._version

    def _ask(self):
        status, output = capture(self._prefix + ['-vv'], VERSION_SECONDS)
        text = output.decode('utf-8', 'replace')
        version = parse_version(text)
        if version is None:
            words = text.strip().splitlines()
            raise HaproxyError('{} -vv does not say which haproxy it is ({}): {}'.format(
                ' '.join(self._prefix), process.describe_exit(status), words[0] if words else 'it printed nothing'))
        return version


class Command(object):
    """A command line of haproxy in its parts.

    `prefix` is what comes before the first option, the program and whatever runs it; `options` a list of
    (option, list of its values); `configs` the paths of -f, absolute, in their order; `pidfile` the last
    -p (str) or None.
    """

    def __init__(self, words, need_program=True):
        """Take `words` (list of str) apart. Raises UsageError."""
        first = next((i for i, word in enumerate(words) if word.startswith('-')), len(words))
        self.prefix = words[:first]
        if need_program and not self.prefix:
            raise UsageError('no haproxy command was given')
        self.options = _options(words[first:])
        self.directory = os.path.abspath(self._last('-C') or '.')
        self.configs = [self._absolute(values[0]) for option, values in self.options if option == '-f']
        pidfile = self._last('-p')
        self.pidfile = self._absolute(pidfile) if pidfile else None
        if not self.configs:
            raise UsageError('no config was given: -f NAME.cfg.tmpl')

    def _last(self, wanted):
        values = [values[0] for option, values in self.options if option == wanted]
        return values[-1] if values else None

    def _absolute(self, path):
        return os.path.normpath(os.path.join(self.directory, path))

    def check_supervised(self):
        """Raise UsageError for an option under which haproxy would not serve."""
        for option, _ in self.options:
            if option in _ENDS_AT_ONCE:
                raise UsageError('haproxy would end at once with {}: it cannot be supervised'.format(option))

    def notes(self, version):
        """Return the sentences (list of str) on what is changed for this Version."""
        said = []
        given = [option for option, _ in self.options if option in _MODES]
        if '-Ds' in given and version.has_master:
            said.append('haproxy {} takes -Ds for -D and would leave the foreground: it is run with {}'.format(
                version.text, ' '.join(version.mode)))
        elif given and set(given) != set(version.mode):
            said.append('haproxy {} is run with {} in place of {}'.format(
                version.text, ' '.join(version.mode), ' '.join(given)))
        for option, values in self.options:
            if option in _FINISHES_OTHERS:
                said.append('{} is left out: old generations are told to finish by multibinder'.format(
                    ' '.join([option] + values)))
        return said

    def supervised(self, version, replaced, extra=()):
        """Return the words (list of str) that run haproxy in the foreground.

        `replaced` maps a path of `configs` to the one that haproxy gets; `extra` are words of ours, which
        go before the owner's.
        """
        words = self.prefix + version.mode
        rest = []
        for option, values in self.options:
            if option in _MODES or option in _FINISHES_OTHERS:
                continue
            if option == '-f':
                path = self._absolute(values[0])
                rest += ['-f', replaced.get(path, path)]
            elif option == '-p':
                rest += ['-p', self._absolute(values[0])]
            else:
                rest += [option] + values
        return words + rest + list(extra)

    def unchanged(self, replaced):
        """Return the words with nothing but the configs `replaced`."""
        words = list(self.prefix)
        for option, values in self.options:
            if option == '-f':
                values = [replaced.get(self._absolute(values[0]), values[0])]
            words += [option] + values
        return words

    def checking(self, replaced):
        """Return the words of a check: only what a config's meaning can depend on, and no pidfile, no
        socket, no mode."""
        words = self.prefix + ['-c']
        for option, values in self.options:
            if option == '-f':
                path = self._absolute(values[0])
                words += ['-f', replaced.get(path, path)]
            elif option[1] in 'CLNmn' or option in ('-V', '-dW', '-dr', '-dS'):
                words += [option] + values
        return words


def _options(words):
    """Take apart the words from the first option on: a list of (option, list of its values)."""
    options = []
    index = 0
    while index < len(words):
        word = words[index]
        index += 1
        if word == '--':
            options += [('-f', [path]) for path in words[index:]]
            break
        if not word.startswith('-') or word == '-':
            raise UsageError('haproxy has no use for the word {!r}: is a value missing its option?'.format(word))
        values = []
        if word in _FINISHES_OTHERS:
            while index < len(words) and words[index].isdigit():
                values.append(words[index])
                index += 1
        elif word[1] in _WITH_VALUE or word == '-cc':
            if index == len(words):
                raise UsageError('{} needs a value'.format(word))
            values.append(words[index])
            index += 1
        options.append((word, values))
    return options
