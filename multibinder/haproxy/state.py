"""What an instance tells about itself to whoever looks: a small file in its runtime directory.

Responsible for its format, for replacing it whole, and for finding the files of all instances. A file is
no protocol: a wrapper that is busy or gone keeps nobody waiting.
"""

import json
import os

from multibinder.haproxy.instance import RUNTIME_PREFIX

FILE = 'state'
ADDRESSES_FILE = 'addresses'    # a list: what the descriptors of the rendered config in force stand for


def write_state(path, state):
    """Replace the file at `path` (str) by `state` (dict of JSON's kinds). Whether it can be written is
    no matter of the instance's life, so nothing is raised."""
    fresh = path + '.new'
    try:
        with open(fresh, 'w') as file:
            file.write(json.dumps(state))
        os.rename(fresh, path)
    except OSError:
        pass


def remove_state(path):
    """Remove the file at `path`."""
    try:
        os.unlink(path)
    except OSError:
        pass


def read_addresses(path):
    """Return the addresses (list of str) that an instance wrote to the file at `path`, or None."""
    try:
        with open(path) as file:
            found = json.load(file)
    except (OSError, ValueError):
        return None
    return found if isinstance(found, list) and all(isinstance(one, str) for one in found) else None


def read_states(prefix=None):
    """Return the states of all instances that run or died without a word, a list of dict, sorted by name.
    `prefix` (str) is what their runtime directories begin with. Each has `alive`: whether its wrapper
    is there."""
    import glob     # here, since a wrapper only writes
    states = []
    prefix = os.environ.get('MULTIBINDER_RUNTIME_PREFIX', RUNTIME_PREFIX) if prefix is None else prefix
    for path in glob.glob(glob.escape(prefix) + '*/' + FILE):
        try:
            with open(path) as file:
                state = json.load(file)
        except (OSError, ValueError):
            continue    # replaced or removed at this moment, or not ours
        if isinstance(state, dict) and isinstance(state.get('name'), str) and isinstance(state.get('wrapper'), int):
            state['alive'] = os.path.exists('/proc/{}'.format(state['wrapper']))
            states.append(state)
    return sorted(states, key=lambda state: state['name'])
