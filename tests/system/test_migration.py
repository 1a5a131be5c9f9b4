"""The way from haproxy.service to an instance, and back, as README and multibinderctl(8) describe it: under
systemd, with a load, and the very text of /etc/haproxy/haproxy.cfg."""

import time

from traffic import Traffic

FRONTEND = """
frontend web
    bind 127.0.0.1:8088
    bind :::8089 v6only
    http-request return status 200 content-type text/plain string served
"""

FORTH = """
multibinderctl adopt pid $(systemctl show -p MainPID --value haproxy)
cp /etc/haproxy/haproxy.cfg /etc/haproxy/web.cfg
systemctl enable --now haproxy-multi@web
mkdir -p /run/systemd/system/haproxy.service.d
printf '[Service]\\nKillSignal=SIGUSR1\\nTimeoutStopSec=infinity\\n' > /run/systemd/system/haproxy.service.d/finish.conf
systemctl daemon-reload
systemctl disable --now haproxy
"""

BACK = """
multibinderctl offer /run/back.sock > /run/offer.log 2>&1 &
until grep -q offered /run/offer.log; do sleep 0.1; done
printf '[Service]\\nExecStart=\\nExecStart=/usr/sbin/haproxy -Ws -f $CONFIG -p $PIDFILE $EXTRAOPTS -x /run/back.sock\\n' \\
    > /run/systemd/system/haproxy.service.d/back.conf
systemctl daemon-reload
systemctl start haproxy
systemctl disable --now haproxy-multi@web
rm -r /run/systemd/system/haproxy.service.d
systemctl daemon-reload
"""


def test_from_haproxy_service_to_an_instance_and_back(machine):
    """0 failed on the way there, in a reload and a restart, on the way back, and in haproxy's own reload; and
    nothing is left of the adoption in the end."""
    machine.run("cat >> /etc/haproxy/haproxy.cfg <<'EOT'\n{}EOT\nsystemctl restart haproxy".format(FRONTEND))
    with Traffic(machine, {'v4': ('127.0.0.1', 8088, 300), 'v6': ('::1', 8089, 300)}) as traffic:
        traffic.wait_new('v6', ())
        for name, script, active in (
                ('forth', FORTH, 'haproxy-multi@web'),
                ('reload and restart', 'systemctl reload haproxy-multi@web && systemctl restart haproxy-multi@web',
                 'haproxy-multi@web'),
                ('back', BACK, 'haproxy'),
                ('own reload', 'systemctl reload haproxy', 'haproxy')):
            traffic.segment(name)
            machine.run('set -e\n' + script)
            time.sleep(0.5)     # of load on what serves now
            report = traffic.report()
            assert {one: figures['failed'] for one, figures in report.items()} == {'v4': 0, 'v6': 0}, (name, report)
            machine.run('systemctl is-active ' + active)
    machine.run('systemctl disable --now haproxy')
    machine.until('test $(multibinderctl list | wc -l) = 1', why='the binder holds nothing any more')
    machine.until('! pgrep -f "multibinderctl (adopt|offer)"', why='nobody keeps a claim')
