"""One screen for a person: the binder, the instances, what is wrong and what to type next.

Responsible for the judgement and the words; nothing is asked or printed here.
"""

import os

BUSY = 0.8      # of its queue's limit: a listener that nobody serves fast enough


def seconds(span):
    """Return a time span (s) as people read it: 12.3s, 4m05s, 3h12m, 5d02h."""
    if span < 60:
        return '{:.1f}s'.format(span)
    minutes, rest = divmod(int(span), 60)
    if minutes < 60:
        return '{}m{:02d}s'.format(minutes, rest)
    hours, minutes = divmod(minutes, 60)
    if hours < 24:
        return '{}h{:02d}m'.format(hours, minutes)
    return '{}d{:02d}h'.format(*divmod(hours, 24))


def claimant(claim):
    """Return a claim as `list` tells it, in words."""
    who = claim['unit'] or ('pid {}'.format(claim['pid']) if claim['pid'] else 'of before a restart')
    if claim['unit'] and claim['pid']:
        who += ' (pid {})'.format(claim['pid'])
    return '{} {}'.format(claim['kind'], who)


def screen(path, status, away, listeners, instances, idle, now):
    """Return (lines, list of str; troubles, list of (what is wrong, what to type next)).

    `path` is the control socket, `status` the binder's answer or None, and then `away` why; `listeners`
    its list; `instances` the states of the instances; `idle` the names that have a template and no
    wrapper; `now` the time in seconds since 1970.
    """
    lines = []
    troubles = []
    if status is None:
        lines.append('binder     away')
        troubles.append((away, 'systemctl start multibinder; journalctl -u multibinder -e'))
    else:
        lines.append('binder     {} on {}, pid {}, for {}'.format(
            status['version'], path, status['pid'], seconds(max(0.0, now - status['started']))))
        counters = status['counters']
        lines.append('           {} listeners, {} of them claimed; an unclaimed one is kept for {:g} s; fd store {}'.format(
            status['listeners'], status['claimed'], status['linger'], 'in use' if status['store'] else 'not there'))
        lines.append('           {} hand-outs, {} refusals, {} heals, {} re-execs; {} clients'.format(
            counters['hand_outs'], counters['refusals'], counters['heals'], counters['reexecs'], status['connections']))
    for one in instances:
        lines.append(_instance(one, now))
        troubles.extend(_instance_troubles(one))
    for name in idle:
        lines.append('instance   {}: not running'.format(name))
    if idle:
        troubles.append(('{} {} a template and no wrapper'.format(', '.join(idle), 'has' if len(idle) == 1 else 'have'),
                         'systemctl enable --now haproxy-multi@{}'.format(idle[0])))
    for one in listeners:
        troubles.extend(_listener_troubles(one))
    return lines, troubles


def _instance(one, now):
    if not one['alive']:
        return 'instance   {}: its wrapper is dead'.format(one['name'])
    words = 'instance   {}: generation {} serves, pid {}, for {}'.format(
        one['name'], one.get('generation'), one.get('serving'), seconds(max(0.0, now - one.get('changed', now))))
    words += '; {} reloads'.format(one.get('reloads_succeeded', 0))
    if one.get('reloads_failed'):
        words += ', {} failed'.format(one['reloads_failed'])
    if one.get('draining'):
        words += '; {} older still finish'.format(len(one['draining']))
    return words


def _instance_troubles(one):
    unit = 'haproxy-multi@' + one['name']
    if not one['alive']:
        return [('the wrapper of {} is dead'.format(one['name']),
                 'systemctl restart {0}; journalctl -u {0} -e'.format(unit))]
    if one.get('failure'):
        return [('the last reload of {} failed: {}'.format(one['name'], one['failure'].split('\n')[0]),
                 'multibinder-haproxy-check {}; systemctl reload {}'.format(one['name'], unit))]
    return []


def _listener_troubles(one):
    found = []
    if one['state'] == 'not listening':
        found.append(('{} is out of LISTEN'.format(one['endpoint']), 'journalctl -u multibinder -e'))
    if one['queue'] is not None and one['backlog'] and one['queue'] >= BUSY * one['backlog'] and one['queue'] > 1:
        found.append(('{} has {} of {} waiting: nobody accepts fast enough'.format(
            one['endpoint'], one['queue'], one['backlog']), 'multibinderctl list'))
    if one.get('drops'):
        found.append(('{} has lost {} connections to a full queue'.format(one['endpoint'], one['drops']),
                      "give it a larger backlog, and net.core.somaxconn, too"))
    return found


def templates_without(names, directory):
    """Return the names of the instances that have a template in `directory` (str) and are not in `names`."""
    try:
        files = os.listdir(directory)
    except OSError:
        return []
    found = {name[:-len(ending)] for name in files for ending in ('.cfg.tmpl', '.cfg.erb', '.cfg.mb')
             if name.endswith(ending) and not name.startswith('.')}
    return sorted(found - set(names) - {''})
