"""The files of an instance: which template a config comes from, and where the instance keeps its own.

Responsible for names and paths only: nothing is opened for writing here.
"""

import os

from multibinder.errors import ConfigFileError, TemplateError, UsageError

TEMPLATE_ENDINGS = ('.tmpl', '.erb', '.mb')
CONFIG_DIRECTORY = '/etc/haproxy'
RUNTIME_PREFIX = '/run/haproxy-multi-'
_OF_GENERATIONS = ('cli', 'worker')


class Source(object):
    """A config that is rendered: `config` is the path that haproxy gets, `template` what it comes from
    (both str, absolute), None for one that is written by hand."""

    __slots__ = ('config', 'template')

    def __init__(self, config, template):
        self.config = config
        self.template = template

    def __repr__(self):
        return 'Source({!r}, {!r})'.format(self.config, self.template)

    def __eq__(self, other):
        return isinstance(other, Source) and (self.config, self.template) == (other.config, other.template)

    def __hash__(self):
        return hash((self.config, self.template))


def source_of(path):
    """Return the Source that a word behind haproxy's -f means, or None for a file that no template
    belongs to.

    `path` (str, absolute) is a template by its ending, or a config beside which a template lies. Raises
    TemplateError when two templates could be meant.
    """
    for ending in TEMPLATE_ENDINGS:
        if path.endswith(ending) and len(os.path.basename(path)) > len(ending):
            return Source(path[:-len(ending)], path)
    candidates = [path + ending for ending in TEMPLATE_ENDINGS if os.path.lexists(path + ending)]
    if len(candidates) > 1:
        raise TemplateError('{} are templates of one config, {}: remove all but one'.format(
            ' and '.join(candidates), path))
    return Source(path, candidates[0]) if candidates else None


def source_named(name):
    """Return the Source that a person means by the name of an instance, a template's or a config's path;
    its template is None for a config that is there without one. Raises TemplateError when there is
    neither, or more than one template."""
    if name.startswith('haproxy-multi@'):       # the name of the unit
        name = name[len('haproxy-multi@'):]
        name = name[:-len('.service')] if name.endswith('.service') else name
    if '/' in name or name.endswith(TEMPLATE_ENDINGS) or name.endswith('.cfg'):
        path = os.path.abspath(name)
    else:
        path = os.path.join(os.environ.get('MULTIBINDER_CONFIG_DIR', CONFIG_DIRECTORY), name + '.cfg')
    source = source_of(path)
    if source is None and not os.path.isfile(path):
        raise TemplateError(no_template(path))
    return source or Source(path, None)


def no_template(path):
    """Return the sentence for a config (path, str) that has no template."""
    return 'there is no template for {}: none of {} exists'.format(
        path, ', '.join(os.path.basename(path) + ending for ending in TEMPLATE_ENDINGS))


def instance_name(source=None):
    """Return the name of the instance: MULTIBINDER_INSTANCE, or else what its config is called (a
    Source), 'foo' for foo.cfg."""
    name = os.environ.get('MULTIBINDER_INSTANCE')
    if not name and source is not None:
        name = os.path.basename(source.config)
        if name.endswith('.cfg') and name != '.cfg':
            name = name[:-len('.cfg')]
    return name or 'haproxy'


class RuntimeDirectory(object):
    """Where an instance keeps its sockets: `path` (str)."""

    def __init__(self, name):
        """Choose the directory of the instance `name`: MULTIBINDER_RUNTIME_DIR, the one that systemd
        made for the unit, or /run/haproxy-multi-NAME. Raises UsageError for a name that is none."""
        if '/' in name or name in ('', '.', '..'):
            raise UsageError('{!r} is no name of an instance'.format(name))
        given = os.environ.get('RUNTIME_DIRECTORY', '').split(':')[0]
        self.path = os.environ.get('MULTIBINDER_RUNTIME_DIR') or given or RUNTIME_PREFIX + name

    def make(self):
        """Create the directory, for root or whoever runs the instance only, unless it is there. Raises
        ConfigFileError."""
        try:
            os.mkdir(self.path, 0o700)
        except FileExistsError:
            pass
        except OSError as error:
            raise ConfigFileError('cannot create the runtime directory {}: {} (MULTIBINDER_RUNTIME_DIR names '
                                  'another one)'.format(self.path, error.strerror))

    def clean(self):
        """Remove what the generations of a wrapper that was killed have left. For the one who holds the
        control socket."""
        for name in os.listdir(self.path):
            if name.split('.')[0] in _OF_GENERATIONS:
                try:
                    os.unlink(self.file(name))
                except OSError:
                    pass

    def file(self, name):
        """Return the path (str) of a file in it."""
        return os.path.join(self.path, name)
