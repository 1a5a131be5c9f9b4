"""Endpoints: one value, one printed form, whatever the spelling."""

import pickle

import pytest

from multibinder.endpoint import Endpoint
from multibinder.errors import EndpointError


@pytest.mark.parametrize('address, name', [
    ('0.0.0.0', 'tcp 0.0.0.0:80'), ('*', 'tcp 0.0.0.0:80'), ('', 'tcp 0.0.0.0:80'),
    ('localhost', 'tcp 127.0.0.1:80'), ('::', 'tcp [::]:80'), ('[::]', 'tcp [::]:80'),
    ('0:0:0::0', 'tcp [::]:80'), ('2001:DB8::0001', 'tcp [2001:db8::1]:80'),
    ('::ffff:192.0.2.1', 'tcp 192.0.2.1:80'), ('::FFFF:c000:0201', 'tcp 192.0.2.1:80'),
    ('fe80::1%lo', 'tcp [fe80::1%lo]:80'),
])
def test_each_spelling_has_the_same_name(address, name):
    endpoint = Endpoint.tcp(address, 80)
    assert str(endpoint) == endpoint.name == name
    assert Endpoint.parse(name) == endpoint
    assert Endpoint.from_params(endpoint.to_params()) == endpoint
    assert pickle.loads(pickle.dumps(endpoint)).to_params() == endpoint.to_params()


def test_the_interface_is_part_of_the_identity_and_the_other_options_are_not():
    plain = Endpoint.tcp('0.0.0.0', 80)
    assert plain == Endpoint.tcp('0.0.0.0', 80, backlog=5, freebind=True)
    bound = Endpoint.tcp('0.0.0.0', 80, interface='eth0')
    assert plain != bound and bound.name == 'tcp 0.0.0.0:80 interface=eth0'
    assert Endpoint.parse(bound.name) == bound
    assert len({plain, bound, Endpoint.tcp('*', '80')}) == 2


@pytest.mark.parametrize('address, port, options, words', [
    ('1.2.3', 80, {}, 'no IPv4 or IPv6 address'), ('010.0.0.1', 80, {}, 'no IPv4 or IPv6 address'),
    ('example.org', 80, {}, 'host names are not resolved'), (5, 80, {}, 'is no text'),
    ('1.2.3.4\0', 80, {}, 'no IPv4'), ('\ud800', 80, {}, 'no IPv4'), ('::1%' + 'x' * 16, 80, {}, 'longer than 15 bytes'),
    ('1.2.3.4', 0, {}, 'any free one'), ('1.2.3.4', 65536, {}, '1 to 65535'), ('1.2.3.4', -1, {}, '1 to 65535'),
    ('1.2.3.4', True, {}, '1 to 65535'), ('1.2.3.4', None, {}, '1 to 65535'), ('1.2.3.4', 'x', {}, '1 to 65535'),
    ('1.2.3.4', 80.0, {}, '1 to 65535'), ('1.2.3.4', [80], {}, '1 to 65535'),
    ('1.2.3.4', 80, {'backlog': 0}, 'from 1 on'), ('1.2.3.4', 80, {'backlog': '9'}, 'from 1 on'),
    ('1.2.3.4', 80, {'v6only': 1}, 'true or false'), ('1.2.3.4', 80, {'interface': ''}, 'is a name'),
    ('1.2.3.4', 80, {'interface': 'a/b'}, 'is a name'), ('1.2.3.4', 80, {'interface': 'x' * 16}, 'longer than'),
    ('1.2.3.4', 80, {'bogus': 1}, "unknown option 'bogus'"), ('1.2.3.4', 80, {'mode': '600'}, "unknown option 'mode'"),
])
def test_what_names_nothing_is_refused_with_its_reason(address, port, options, words):
    with pytest.raises(EndpointError) as raised:
        Endpoint.tcp(address, port, **options)
    assert words in str(raised.value)


@pytest.mark.parametrize('path, words', [
    ('', 'needs a path'), ('relative', 'not absolute'), ('@', 'names nothing'), ('/a\nb', 'cannot be printed'),
    ('/a\0b', 'cannot be printed'), ('/' + 'x' * 107, 'at most 107'), ('/\ud800', 'cannot be printed'), (7, 'needs a path'),
])
def test_paths_that_no_socket_can_have(path, words):
    with pytest.raises(EndpointError) as raised:
        Endpoint.unix(path)
    assert words in str(raised.value)


def test_unix_endpoints():
    endpoint = Endpoint.unix('/run//a/../b.sock', mode='660', group='root')
    assert endpoint.name == 'unix /run/b.sock'
    assert endpoint.options == {'mode': 0o660, 'group': 'root'}
    assert Endpoint.parse('/run/b.sock') == Endpoint.parse(endpoint.name) == endpoint
    assert Endpoint.from_params({'path': '/run/b.sock', 'mode': 432}).options == {'mode': 0o660}
    assert Endpoint.unix('@name').sockaddr() == '\0name'
    assert Endpoint.parse('unix @name') == Endpoint.unix('@name')


@pytest.mark.parametrize('params', [{}, [], None, 'x', {'address': '1.2.3.4'}, {'path': '/x', 'port': 1}, {'port': {}}])
def test_params_that_are_no_endpoint(params):
    with pytest.raises(EndpointError):
        Endpoint.from_params(params)


@pytest.mark.parametrize('text', ['', ' ', 'x', 'tcp', 'tcp x', '1.2.3.4:', ':80:', 'unix', '1.2.3.4:80 a=b', '1.2.3.4:80 x'])
def test_texts_that_are_no_endpoint(text):
    if text == ':80:':
        text = '1.2.3.4:80:'
    with pytest.raises(EndpointError):
        Endpoint.parse(text)


@pytest.mark.parametrize('endpoint, words', [
    (Endpoint.tcp('*', 80), '0.0.0.0:80'), (Endpoint.tcp('::1', 80), '[::1]:80'),
    (Endpoint.tcp('::', 80, v6only=True, backlog=9), '[::]:80 backlog 9 v6only'),
    (Endpoint.tcp('::', 80, v6only=False), '[::]:80 v4v6'),
    (Endpoint.tcp('1.2.3.4', 80, freebind=True, interface='eth0'), '1.2.3.4:80 interface eth0 transparent'),
    (Endpoint.unix('/run/x', mode='0660', user='www'), 'unix@/run/x user www mode 660'),
    (Endpoint.unix('@x'), 'abns@x'),
])
def test_what_haproxy_would_be_told(endpoint, words):
    assert endpoint.haproxy_address() == words


def test_differences_are_named_and_only_what_was_asked_for_counts():
    held = Endpoint.tcp('::', 80, v6only=True, backlog=5)
    assert held.differences(Endpoint.tcp('::', 80)) == []
    assert held.differences(Endpoint.tcp('::', 80, v6only=True, backlog=50)) == []
    assert held.differences(Endpoint.tcp('::', 80, v6only=False)) == ['v6only is true, asked for false']
    assert held.differences(Endpoint.tcp('::', 80, freebind=True)) == ['freebind is false, asked for true']
    # For a specific IPv6 address the kernel sets IPV6_V6ONLY itself, whatever anybody asks for.
    assert Endpoint.tcp('::1', 80).differences(Endpoint.tcp('::1', 80, v6only=False)) == []
    unix = Endpoint.unix('/x', mode='600')
    assert unix.differences(Endpoint.unix('/x', mode='660')) == ['mode is 0600, asked for 0660']
