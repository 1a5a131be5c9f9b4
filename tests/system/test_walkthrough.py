"""The README, done by somebody who reads it: its commands run as printed on a fresh machine."""

import re

import readme
from instances import get, refused


def test_the_walk_through_as_printed(bare):
    assert bare.run(
        ['bash', '-e', '-c', 'cd /root/multibinder\n' + readme.block('The walk-through', 'sh')],
        timeout=300).out.endswith('hello')

    # The binder was enabled and started by the installation, the instance by its reader.
    assert bare.out('systemctl is-enabled multibinder') == 'enabled'
    assert bare.out('systemctl is-enabled haproxy-multi@foo') == 'enabled'
    assert bare.out('systemctl is-active multibinder haproxy-multi@foo') == 'active\nactive'
    assert get(bare) == 'hello'

    status = bare.run('systemctl --no-pager --full status haproxy-multi@foo').out
    main = re.search(r'Main PID: \d+ \((.*)\)', status)
    assert main and 'multibinder-hap' in main.group(1), status
    assert len(re.findall(r'haproxy .*-f /etc/haproxy/foo\.cfg .*-p /run/haproxy-foo\.pid', status)) >= 2, status
    assert 'man:haproxy-multi' in status and 'man:haproxy(1)' in status, status
    status = bare.run('systemctl --no-pager --full status multibinder').out
    assert re.search(r'CGroup:.*\n.*/usr/bin/multibinder .*/run/multibinder\.sock', status), status
    assert 'Listening for binds on control socket: /run/multibinder.sock' in bare.journal('-u', 'multibinder')
    assert bare.out('stat -c %a /run/multibinder.sock') == '600'

    # A reload is a new generation, and the old one is told to finish.
    first = bare.out('cat /run/haproxy-foo.pid')
    bare.run('systemctl reload haproxy-multi@foo')
    assert bare.out('cat /run/haproxy-foo.pid') != first
    assert get(bare) == 'hello'

    # Twice the same is as good as once.
    bare.run(['dpkg', '-i', bare.deb], timeout=120)
    assert get(bare) == 'hello'

    # And away again: nothing is left but what the administrator wrote.
    bare.run('systemctl disable --now haproxy-multi@foo')
    bare.run('apt-get -y purge python3-multibinder', timeout=120)
    assert bare.exists('/etc/haproxy/foo.cfg.tmpl')
    assert bare.unit_links() == []
    bare.until('! pgrep -x haproxy', why='haproxy finishes')
    assert bare.leftovers() == []
    assert refused(bare, 'http://127.0.0.1/')


def test_the_same_template_in_the_spelling_of_the_gem(machine):
    text = readme.block('The walk-through', 'sh')
    body = re.search(r"<<'END'\n(.*?)^END$", text, re.MULTILINE | re.DOTALL).group(1)
    erb = body.replace("${bind_tcp('0.0.0.0', 80)}", "<%= bind_tcp('0.0.0.0', 80) %>")
    assert erb != body
    rendered = {}
    for name, content in (('mako.cfg.tmpl', body), ('gem.cfg.tmpl', erb), ('old.cfg.erb', erb)):
        machine.put('/tmp/spelling/' + name, content)
        machine.run(['multibinder-haproxy-erb', '-f', '/tmp/spelling/' + name, '--erb-write-only'])
        # The last line is multibinder's mark and names the template.
        rendered[name] = machine.get('/tmp/spelling/' + name.rsplit('.', 1)[0]).splitlines()[:-1]
    assert rendered['mako.cfg.tmpl'] == rendered['gem.cfg.tmpl'] == rendered['old.cfg.erb']
    assert any('bind fd@3' in line for line in rendered['mako.cfg.tmpl'])


def test_the_container_recipe(machine):
    # Without systemd around it: nothing of it is in the environment, and the socket is another.
    machine.put('/root/recipe/foo.cfg.tmpl', (
        "defaults\n    mode http\n    timeout connect 5s\n    timeout client 5s\n    timeout server 5s\n"
        "frontend f\n    bind ${bind_tcp('127.0.0.1', 8085)}\n"
        "    http-request return status 200 content-type text/plain lf-string \"%pid\"\n"))
    recipe = readme.block('In a container, without systemd', 'sh')
    recipe = recipe.replace('/run/multibinder.sock', '/root/recipe/binder.sock')
    recipe = recipe.replace('/etc/haproxy/', '/root/recipe/').replace('/run/haproxy-foo', '/root/recipe/haproxy')
    # A service manager reaps and notices; here a shell keeps both PIDs.
    recipe = recipe.replace(' &\n', ' 2>/root/recipe/binder.log & echo $! >/root/recipe/binder.pid\n')
    recipe = 'echo $$ >/root/recipe/wrapper.pid\n' + recipe.rstrip('\n') + ' 2>/root/recipe/wrapper.log\n'
    process = machine.popen(['bash', '-e', '-c', recipe])
    try:
        machine.until('curl -sf http://127.0.0.1:8085/', why='the recipe serves')
        first = get(machine, 'http://127.0.0.1:8085/')
        machine.run('kill -USR2 $(cat /root/recipe/wrapper.pid)')
        # An answer, and another one: no answer at all would be another one, too.
        other = 'answer=$(curl -sf http://127.0.0.1:8085/) && [ "$answer" != %s ]'
        machine.until(other % first, why='a new generation serves')

        # The binder dies and comes back without a fd store: the wrapper gives the listeners back.
        machine.run('kill -9 $(cat /root/recipe/binder.pid)')
        # Until it is gone its control socket is somebody's, and the next one refuses to start there.
        machine.until('! kill -0 $(cat /root/recipe/binder.pid)', why='the binder is gone')
        binder = machine.popen(['multibinder', '/root/recipe/binder.sock'])
        try:
            machine.until("multibinderctl --socket /root/recipe/binder.sock list | grep 127.0.0.1:8085",
                          why='the wrapper gives the listener back')
            second = get(machine, 'http://127.0.0.1:8085/')
            machine.run('kill -USR2 $(cat /root/recipe/wrapper.pid)')
            machine.until(other % second, why='a new generation serves')
            machine.run('kill -TERM $(cat /root/recipe/wrapper.pid)')
            assert process.wait(30) == 0
        finally:
            machine.run("pkill -f '^/usr/bin/python3 /usr/bin/multibinder /root/recipe/binder.sock'", check=False)
            binder.wait(30)
    finally:
        if process.poll() is None:
            machine.run('kill -9 $(cat /root/recipe/wrapper.pid)', check=False)
            process.wait(30)
    assert 'Traceback' not in machine.get('/root/recipe/wrapper.log')


def test_the_example_for_other_services(machine):
    machine.put('/root/service.py', readme.block('Other services', 'python'))
    process = machine.popen(['/usr/bin/python3', '/root/service.py'])
    try:
        # It answers before it was asked, so that curl may say that the connection was reset when it has the answer.
        machine.until('[ "$(curl -s --http0.9 http://127.0.0.1:8080/)" = hello ]', why='the example serves')
        assert machine.run('curl -s --http0.9 http://127.0.0.1:8080/', check=False).out == 'hello\n'
    finally:
        machine.run("pkill -f /root/[s]ervice.py", check=False)
        process.wait(30)
    # The listener is held for the linger time, without its service.
    assert '127.0.0.1:8080' in machine.out('multibinderctl list')
    machine.run(['multibinderctl', 'release', 'tcp 127.0.0.1:8080'])
    # Refused, and not only without an answer: that it would be while the listener is held, too.
    machine.until('curl -s --max-time 20 --http0.9 http://127.0.0.1:8080/; [ $? = 7 ]', why='released')
