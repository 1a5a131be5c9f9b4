"""Nothing in the package that Ubuntu 16.04 cannot read. There is no such machine in the test run, so each
fact about it stands here with its value."""

import re
import shutil

import pytest

import package

# The versions of Ubuntu 16.04 (Python itself is a check of its own: vermin, and the oldest interpreter).
XENIAL = {
    'adduser': '3.113', 'dbus': '1.10.6', 'debconf': '1.5.58', 'haproxy': '1.6.3', 'procps': '3.3.10',
    'python3': '3.5.1', 'python3-daemon': '2.0.5', 'python3-lockfile': '1:0.12.2', 'python3-mako': '1.0.3',
}

# systemd.directives(7): what the units use, and the version of systemd that brought it (229 and less: 0).
SINCE = {
    'AmbientCapabilities': 229, 'After': 0, 'CapabilityBoundingSet': 0, 'Description': 0, 'Documentation': 0,
    'Environment': 0, 'EnvironmentFile': 0, 'ExecReload': 0, 'ExecStart': 0, 'FileDescriptorStoreMax': 219,
    'Group': 0, 'KillMode': 0, 'LimitNOFILE': 0, 'NoNewPrivileges': 187, 'NotifyAccess': 0, 'OOMScoreAdjust': 0,
    'PrivateDevices': 209, 'PrivateTmp': 0, 'ProtectHome': 214, 'ProtectSystem': 214, 'Restart': 0,
    'RestartPreventExitStatus': 189, 'RestartSec': 0, 'RestrictAddressFamilies': 211, 'RuntimeDirectory': 211,
    'RuntimeDirectoryMode': 211, 'StartLimitInterval': 229, 'SystemCallArchitectures': 209,
    'SystemCallErrorNumber': 209, 'SystemCallFilter': 187, 'Type': 0, 'UMask': 0, 'User': 0, 'WantedBy': 0,
    'Wants': 0,
    # newer
    'BindReadOnlyPaths': 233, 'KeyringMode': 235, 'LockPersonality': 235, 'MemoryDenyWriteExecute': 231,
    'PrivateMounts': 239, 'ProtectClock': 245, 'ProtectControlGroups': 232, 'ProtectHostname': 242,
    'ProtectKernelLogs': 244, 'ProtectKernelModules': 232, 'ProtectKernelTunables': 232, 'ProtectProc': 247,
    'ReadOnlyPaths': 231, 'RemoveIPC': 232, 'RestrictNamespaces': 233, 'RestrictRealtime': 231,
    'RestrictSUIDSGID': 242,
}
# What 229 takes as a value; anything else it would ignore, and with it the protection.
VALUES_OF_229 = {
    'KillMode': ('control-group', 'process', 'mixed', 'none'),
    'NotifyAccess': ('none', 'main', 'all'),
    'ProtectHome': ('yes', 'no', 'read-only'),
    'ProtectSystem': ('yes', 'no', 'full'),
    'Restart': ('no', 'on-success', 'on-failure', 'on-abnormal', 'on-watchdog', 'on-abort', 'always'),
    'Type': ('simple', 'forking', 'oneshot', 'dbus', 'notify', 'idle'),
}
UNITS = ['multibinder.service', 'haproxy-multi@.service']


def in_new_group(name, line_key):
    """Whether a key stands behind the comment that opens the keys unknown to 229."""
    before, _, after = package.text('systemd/' + name).partition('# --- Unknown to 229')
    assert after, 'the group of newer keys has its comment'
    return re.search(r'^%s=' % line_key, after, re.MULTILINE) is not None, \
        re.search(r'^%s=' % line_key, before, re.MULTILINE) is not None


@pytest.mark.parametrize('name', UNITS)
def test_unit_keys_are_known_to_229_or_grouped_as_newer(name):
    for _, key, value, _ in package.unit(name):
        assert key in SINCE, 'since when does systemd have %s=?' % key
        new, old = in_new_group(name, key)
        if SINCE[key] > 229:
            assert new and not old, key
        elif key in VALUES_OF_229:
            assert value in VALUES_OF_229[key], key


@pytest.mark.parametrize('name', UNITS)
def test_system_calls_are_denied_by_group_and_never_allowed_by_group(name):
    # 229 knows no @group. In a list of allowed calls it drops them, and nothing is left to be allowed; in a
    # list of denied ones it drops them as well, and all is as without the list.
    values = [value for _, key, value, _ in package.unit(name) if key == 'SystemCallFilter']
    assert not values or values[0].startswith('~')


@pytest.mark.parametrize('name', UNITS)
def test_what_229_ignores_of_a_command_is_done_by_another(name):
    # A prefix such as "+" is newer; 229 takes it for a part of the path and ignores the line.
    for kind in ('ExecStart', 'ExecReload'):
        commands = [value for _, key, value, _ in package.unit(name) if key == kind]
        assert [value for value in commands if value[0] == '/'], kind
        if kind == 'ExecStart':
            assert all(value[0] == '/' for value in commands)


def test_start_limit_is_where_229_has_it():
    found = [section for section, key, _, _ in package.unit('multibinder.service') if key == 'StartLimitInterval']
    assert found == ['[Unit]']


def test_dependencies_are_there():
    dpkg = shutil.which('dpkg')
    if not dpkg:
        pytest.skip('no dpkg to compare versions with')
    _, binary = package.control()
    for field in ('Depends', 'Recommends'):
        for name, relation in package.relations(binary[field]).items():
            assert name in XENIAL, name
            if relation:
                operator = {'>=': 'ge'}[relation[0]]
                assert package.run([dpkg, '--compare-versions', XENIAL[name], operator, relation[1]])[0] == 0, name


def test_units_are_where_its_deb_systemd_helper_looks():
    # 1.29 knows /lib/systemd/system only.
    lines = package.text(package.PREFIX + 'install').splitlines()
    assert 'systemd/*.service lib/systemd/system' in lines


def test_compression_is_xz():
    assert 'export DPKG_DEB_COMPRESSOR_TYPE = xz' in package.text('debian/rules')


def test_no_sysusers():
    assert 'sysusers' not in package.text('debian/rules') + package.text(package.PREFIX + 'install')


def test_systemd_of_this_machine_finds_nothing_wrong():
    if not shutil.which('systemd-analyze'):
        pytest.skip('systemd-analyze is not installed')
    # An instance of the template: the template itself cannot be loaded.
    status, out = package.run(['systemd-analyze', 'verify', '--man=no', package.path('systemd/multibinder.service')])
    lines = [line for line in out.splitlines() if 'multibinder.service:' in line and 'not executable' not in line]
    assert lines == []


def test_exposure_of_the_binder():
    if not shutil.which('systemd-analyze'):
        pytest.skip('systemd-analyze is not installed')
    status, out = package.run(['systemd-analyze', 'security', '--offline=true', '--no-pager', '--threshold=20',
                               package.path('systemd/multibinder.service')])
    if 'unrecognized option' in out:
        pytest.skip('this systemd-analyze reads no unit files')
    assert status == 0, out[-200:]
