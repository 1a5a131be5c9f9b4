"""NAME.vars.json and NAME.vars.yaml: the values that a template is given beside its text."""

import sys

from multibinder.errors import TemplateError


def load(path, reader):
    """Return the values of a file as a dict with str keys. Raises TemplateError with path and line."""
    text = reader.read(path)
    values = _yaml(text, path, reader) if path.endswith('.yaml') else _json(text, path, reader)
    if values is None:
        return {}
    if not isinstance(values, dict):
        raise TemplateError('its top level is no mapping of names to values', path)
    for name in values:
        if not isinstance(name, str):
            raise TemplateError('the name {!r} is no text'.format(name), path)
    return values


def _json(text, path, reader):
    import collections
    import json
    try:
        # Before Python 3.6 a dict has no order, and a config whose lines change places is another config.
        return json.loads(text, object_pairs_hook=collections.OrderedDict if sys.version_info < (3, 6) else None)
    except ValueError as error:
        # Not every version names the position: only JSONDecodeError has a line.
        raise reader.error('no JSON: {}'.format(getattr(error, 'msg', error)), path,
                           getattr(error, 'lineno', None)) from None
    except RecursionError:
        raise TemplateError('no JSON: nested too deep', path) from None


def _yaml(text, path, reader):
    try:
        import yaml
    except ImportError:
        raise TemplateError('cannot read it: python3-yaml is not installed', path) from None
    try:
        return yaml.load(text, _ordered(yaml) if sys.version_info < (3, 6) else yaml.SafeLoader)
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        mark = getattr(error, 'problem_mark', None)
        reason = getattr(error, 'problem', None) or str(error).split('\n')[0]
        raise reader.error('no YAML: {}'.format(reason), path, mark.line + 1 if mark else None) from None


def _ordered(yaml):
    """Return a loader whose mappings keep the order of the file."""
    import collections

    class Loader(yaml.SafeLoader):
        """SafeLoader with OrderedDict."""

    def construct(loader, node):
        loader.flatten_mapping(node)
        return collections.OrderedDict(loader.construct_pairs(node, True))
    Loader.add_constructor(yaml.resolver.BaseResolver.DEFAULT_MAPPING_TAG, construct)
    return Loader
