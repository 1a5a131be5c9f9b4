"""The figures of a binder and of the instances in Prometheus' text format.

Responsible for names, kinds and escaping only; where figures come from is its caller's. Source: the
Prometheus documentation, "Exposition formats".
"""

# name, kind, help
_BINDER = [
    ('multibinder_up', 'gauge', 'Whether the binder answers.'),
    ('multibinder_info', 'gauge', 'The version of the binder.'),
    ('multibinder_start_time_seconds', 'gauge', 'When the binder started, re-execs not counted, in seconds since 1970.'),
    ('multibinder_listeners', 'gauge', 'Listeners held.'),
    ('multibinder_listeners_claimed', 'gauge', 'Listeners that somebody claims.'),
    ('multibinder_connections', 'gauge', 'Clients connected.'),
    ('multibinder_hand_outs_total', 'counter', 'Listeners handed to clients.'),
    ('multibinder_refusals_total', 'counter', 'Requests refused.'),
    ('multibinder_heals_total', 'counter', 'Listeners brought back into LISTEN.'),
    ('multibinder_reexecs_total', 'counter', 'Re-executions in place.'),
    ('multibinder_expired_total', 'counter', 'Listeners closed because nobody claimed them.'),
]
_LISTENER = [
    ('multibinder_listener_claims', 'gauge', 'Claims on the listener.', lambda one: len(one['claims'])),
    ('multibinder_listener_queue', 'gauge', 'Connections that wait to be accepted.', lambda one: one['queue']),
    ('multibinder_listener_queue_limit', 'gauge', 'Connections that may wait to be accepted.', lambda one: one['backlog']),
    ('multibinder_listener_overflows_total', 'counter', 'Connections that the kernel dropped at the listener.',
     lambda one: one.get('drops')),
    ('multibinder_listener_heals_total', 'counter', 'How often the listener was brought back into LISTEN.',
     lambda one: one['heals']),
    ('multibinder_listener_hand_outs_total', 'counter', 'How often the listener was handed out.',
     lambda one: one['handed_out']),
]
_INSTANCE = [
    ('multibinder_instance_up', 'gauge', 'Whether the wrapper of the instance is there.', lambda one, now: int(one['alive'])),
    ('multibinder_instance_generation', 'gauge', 'The generation that serves.', lambda one, now: one.get('generation')),
    ('multibinder_instance_reloads_succeeded_total', 'counter', 'Reloads that succeeded.', lambda one, now: one.get('reloads_succeeded')),
    ('multibinder_instance_reloads_failed_total', 'counter', 'Reloads that failed.', lambda one, now: one.get('reloads_failed')),
    ('multibinder_instance_seconds_since_reload', 'gauge', 'Seconds since the last reload, or since the start.',
     lambda one, now: None if one.get('changed') is None else max(0.0, round(now - one['changed'], 3))),
    ('multibinder_instance_draining', 'gauge', 'Old generations that still finish their connections.',
     lambda one, now: len(one.get('draining', ()))),
]


def exposition(status, listeners, instances, now):
    """Return the text. `status` and `listeners` are what the binder's methods of that name answer (None
    and an empty list when it is away), `instances` the states of the instances, `now` the time in seconds
    since 1970."""
    lines = []
    values = {'multibinder_up': int(status is not None)}
    if status is not None:
        values.update({
            'multibinder_info': ('{{version="{}"}}'.format(_escaped(status['version'])), 1),
            'multibinder_start_time_seconds': round(status['started'], 3),
            'multibinder_listeners': status['listeners'], 'multibinder_listeners_claimed': status['claimed'],
            'multibinder_connections': status['connections'],
        })
        for counter, value in status['counters'].items():
            values['multibinder_{}_total'.format(counter)] = value
    for name, kind, words in _BINDER:
        if name in values:
            value = values[name]
            labels, value = value if isinstance(value, tuple) else ('', value)
            _family(lines, name, kind, words, [(labels, value)])
    for name, kind, words, figure in _LISTENER:
        _family(lines, name, kind, words, [
            ('{{endpoint="{}"}}'.format(_escaped(one['endpoint'])), figure(one)) for one in listeners])
    for name, kind, words, figure in _INSTANCE:
        _family(lines, name, kind, words, [
            ('{{instance="{}"}}'.format(_escaped(one['name'])), figure(one, now)) for one in instances])
    return ''.join(line + '\n' for line in lines)


def _family(lines, name, kind, words, samples):
    samples = [(labels, value) for labels, value in samples if value is not None]
    if samples:
        lines.append('# HELP {} {}'.format(name, words))
        lines.append('# TYPE {} {}'.format(name, kind))
        lines.extend('{}{} {}'.format(name, labels, value) for labels, value in samples)


def _escaped(text):
    return text.replace('\\', '\\\\').replace('"', '\\"').replace('\n', '\\n').encode('utf-8', 'backslashreplace').decode()
