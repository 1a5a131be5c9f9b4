"""Instances side by side, and what an operator gets when something is wrong: a sentence in the journal, a failed
unit, nothing half-done on disk; and a start that works as soon as the cause is gone."""

import json

import pytest

from instances import Instance, files, get, refused, template

BROKEN = {
    # what is wrong -> (template, words that the journal must have)
    'template': ("global\n    maxconn ${1 +}\n", ['bad.cfg.tmpl:2']),
    'name': (template([('127.0.0.1', 8001)], extra='\nbackend b\n    server s ${bind_tpc}\n${no_such_name + 1}\n'), ['no_such_name']),
    'config': (template([('127.0.0.1', 8001)], extra='\nbackend b\n    blance roundrobin\n'), ['blance', 'bad.cfg.tmpl:']),
    'endpoint': (template([('127.0.0.1', 800100)]), ['800100', 'bad.cfg.tmpl:']),
}


@pytest.fixture
def instance(machine, request):
    made = []

    def make(name):
        made.append(Instance(machine, name))
        return made[-1]

    yield make
    for one in made:
        one.remove()


def journal_since(machine, cursor, unit):
    machine.sync_journal()
    return machine.run(['journalctl', '--no-pager', '-q', '-o', 'cat', '--after-cursor', cursor, '-u', unit]).out


def cursor(machine):
    """A place in the journal: what is logged later comes after it."""
    shown = machine.out('journalctl --no-pager -q -n 1 --show-cursor')
    return shown.rsplit('-- cursor: ', 1)[1].strip()


def fails_to_start(machine, one, *words):
    """A start that fails in words; gives what the unit logged."""
    before = files(machine)
    place = cursor(machine)
    assert one.systemctl('start', check=False).status != 0
    log = journal_since(machine, place, one.unit)
    for word in words:
        assert word in log, log
    assert 'Traceback' not in log, log
    machine.until('systemctl is-failed ' + one.unit, why='the unit is failed and stays so')
    assert files(machine) == before
    assert machine.run('ls /run/haproxy-%s*' % one.name, check=False).out == ''
    return log


@pytest.mark.parametrize('what', sorted(BROKEN))
def test_start_with_something_broken(machine, instance, what):
    text, words = BROKEN[what]
    one = instance('bad')
    one.write(text)
    fails_to_start(machine, one, *words)
    # Once more: the first failure left nothing that changes the second.
    fails_to_start(machine, one, *words)
    check = machine.run('multibinder-haproxy-check bad', check=False)
    assert check.status != 0 and all(word in check.out + check.err for word in words), check
    assert 'Traceback' not in check.out + check.err
    # The listener of a config that was refused does not stay open: nobody would accept.
    one.write(template([('127.0.0.1', 8001)]))
    one.start()
    assert get(machine, 'http://127.0.0.1:8001/').startswith('a pid=')


def test_an_address_in_use_by_someone_else(machine, instance):
    holder = machine.popen(['python3', '-c', 'import http.server as h; h.test(h.SimpleHTTPRequestHandler, port=8002, bind="127.0.0.1")'])
    try:
        machine.until('curl -sf http://127.0.0.1:8002/', why='the other one listens')
        one = instance('inuse')
        one.write(template([('127.0.0.1', 8003), ('127.0.0.1', 8002)]))
        fails_to_start(machine, one, 'tcp 127.0.0.1:8002', 'Address already in use')
        # All or none: the address that was free was not kept either.
        assert '127.0.0.1:8003' not in machine.out('multibinderctl list')
    finally:
        machine.run('pkill -f "[p]ort=8002"', check=False)
        holder.wait(30)
    one.start()
    assert get(machine, 'http://127.0.0.1:8003/')


def test_without_a_binder(machine, instance):
    one = instance('alone')
    one.write(template([('127.0.0.1', 8004)]))
    machine.run('systemctl mask --runtime --now multibinder')
    try:
        fails_to_start(machine, one, '/run/multibinder.sock')
    finally:
        machine.run('systemctl unmask --runtime multibinder; systemctl start multibinder')
    one.start()
    assert get(machine, 'http://127.0.0.1:8004/')


def test_without_haproxy(machine, instance):
    one = instance('nohaproxy')
    one.write(template([('127.0.0.1', 8005)]))
    machine.run('mv /usr/sbin/haproxy /usr/sbin/haproxy.away')
    try:
        fails_to_start(machine, one, '/usr/sbin/haproxy')
    finally:
        machine.run('mv /usr/sbin/haproxy.away /usr/sbin/haproxy')
    one.start()
    assert get(machine, 'http://127.0.0.1:8005/')


def test_without_a_template(machine, instance):
    fails_to_start(machine, instance('notemplate'), '/etc/haproxy/notemplate.cfg')


def test_two_templates_for_one_name(machine, instance):
    one = instance('two')
    one.write(template([('127.0.0.1', 8006)]))
    machine.put('/etc/haproxy/two.cfg.erb', "bind <%= bind_tcp('127.0.0.1', 8006) %>\n")
    fails_to_start(machine, one, '/etc/haproxy/two.cfg.tmpl', '/etc/haproxy/two.cfg.erb')


def test_a_hand_written_config_is_never_overwritten(machine, instance):
    one = instance('mine')
    one.write(template([('127.0.0.1', 8007)]))
    machine.put('/etc/haproxy/mine.cfg', '# written by hand\n')
    fails_to_start(machine, one, '/etc/haproxy/mine.cfg')
    assert machine.get('/etc/haproxy/mine.cfg') == '# written by hand\n'


def test_the_endings_of_the_gem(machine, instance):
    for ending, port in (('erb', 8008), ('mb', 8009)):
        one = instance('gem' + ending)
        machine.put('/etc/haproxy/gem%s.cfg.%s' % (ending, ending),
                    template(["    bind <%%= bind_tcp('127.0.0.1', %d) %%>" % port]))
        one.start()
        assert get(machine, 'http://127.0.0.1:%d/' % port).startswith('a pid=')
        one.reload()


def test_daemon_and_master_worker_do_no_harm(machine, instance):
    one = instance('modes')
    one.write(template([('127.0.0.1', 8010)]).replace('global\n', 'global\n    daemon\n    master-worker\n', 1))
    one.start()
    first = get(machine, 'http://127.0.0.1:8010/')
    one.reload()
    assert get(machine, 'http://127.0.0.1:8010/') != first
    assert one.state() == 'active'


def test_options_reach_haproxy_for_one_instance_only(machine, instance):
    one, other = instance('opt'), instance('noopt')
    one.write(template([('127.0.0.1', 8011)]))
    other.write(template([('127.0.0.1', 8012)]))
    machine.put('/etc/default/haproxy-opt', 'EXTRAOPTS="-S /run/haproxy-opt-master.sock"\n')
    default = machine.get('/etc/default/haproxy')
    # Where it is uncommented, haproxy.service obeys it; an instance must not.
    machine.put('/etc/default/haproxy', default + '\nCONFIG="/etc/haproxy/other.cfg"\nEXTRAOPTS="-de -n 77"\n')
    try:
        one.start()
        other.start()
        shown = machine.out('ps -C haproxy -o args= ww')
        mine = [line for line in shown.splitlines() if '/etc/haproxy/opt.cfg' in line]
        his = [line for line in shown.splitlines() if '/etc/haproxy/noopt.cfg' in line]
        assert mine and all('-S /run/haproxy-opt-master.sock' in line for line in mine), shown
        assert his and not any('/run/haproxy-opt-master.sock' in line for line in his), shown
        assert 'other.cfg' not in shown and '-n 77' not in shown, shown
        assert machine.exists('/run/haproxy-opt-master.sock')
    finally:
        machine.put('/etc/default/haproxy', default)
        # haproxy leaves its master socket behind.
        machine.run('rm -f /run/haproxy-opt-master.sock')


def test_instances_side_by_side(machine, instance):
    some = [instance('side%d' % number) for number in range(3)]
    for number, one in enumerate(some):
        one.write(template([('127.0.0.1', 8020 + number), ('::1', 8020 + number)], answer=one.name))
        one.start()
    generations = [one.newest() for one in some]
    some[1].reload()
    assert some[0].newest() == generations[0] and some[2].newest() == generations[2]
    assert some[1].newest() != generations[1]
    for number, one in enumerate(some):
        assert get(machine, 'http://127.0.0.1:%d/' % (8020 + number)).startswith(one.name)
        assert get(machine, 'http://[::1]:%d/' % (8020 + number)).startswith(one.name)


def test_two_instances_share_a_listener(machine, instance):
    one, other = instance('left'), instance('right')
    for it in (one, other):
        it.write(template([('127.0.0.1', 8030)], answer=it.name))
        it.start()
    listed = [entry for entry in json.loads(machine.out('multibinderctl list --json')) if '8030' in entry['endpoint']]
    assert len(listed) == 1 and len(listed[0]['claims']) == 2, listed
    # One takes over from the other without a moment of refusal, and the listener stays.
    one.systemctl('stop')
    assert get(machine, 'http://127.0.0.1:8030/')
    one.wait_end()
    assert get(machine, 'http://127.0.0.1:8030/').startswith('right')
    one.start()
    other.systemctl('stop')
    assert get(machine, 'http://127.0.0.1:8030/')
    other.wait_end()
    assert get(machine, 'http://127.0.0.1:8030/').startswith('left')


def test_a_check_has_no_side_effect(machine, instance):
    # Away with what the tests before have left: their listeners linger, and one may end between the two lists.
    machine.run('systemctl stop multibinder; systemctl start multibinder')
    beside = instance('beside')
    beside.write(template([('127.0.0.1', 8041)]))
    beside.start()
    one = instance('checked')
    one.write(template([('127.0.0.1', 8040)]))
    before, listed = files(machine), machine.out('multibinderctl list --json')
    assert machine.run('multibinder-haproxy-check checked').status == 0
    assert files(machine) == before
    assert [entry['endpoint'] for entry in json.loads(machine.out('multibinderctl list --json'))] == [
        entry['endpoint'] for entry in json.loads(listed)]
    assert refused(machine, 'http://127.0.0.1:8040/')
    machine.run('systemctl stop multibinder')
    try:
        assert machine.run('multibinder-haproxy-check checked').status == 0
    finally:
        machine.run('systemctl start multibinder')


def test_stopping_everything_leaves_nothing(machine):
    machine.run('systemctl stop "haproxy-multi@*" multibinder')
    machine.until('! pgrep -x haproxy', why='haproxy finishes')
    try:
        assert machine.leftovers() == []
    finally:
        machine.run('systemctl start multibinder')
