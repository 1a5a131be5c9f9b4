"""Generated ERB templates: real Ruby and multibinder write the same, or both refuse.

The templates come from a seeded generator, so that a failure names a seed that shows it again. Ruby gets
all templates of a test in one process.
"""

import os
import random
import shutil
import sys

import pytest

from multibinder.errors import TemplateError
from multibinder.template import render

DATA = os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), 'data', 'templates')
sys.path.insert(0, DATA)

import make_erb_expected    # noqa: E402

COUNT = int(os.environ.get('MULTIBINDER_FUZZ_TEMPLATES', '400'))

pytestmark = pytest.mark.skipif(shutil.which('ruby') is None, reason='real Ruby is not installed (package ruby)')


class Generator(object):
    """Random templates in the subset. Expressions are made by type, so that most of them have a value."""

    def __init__(self, seed):
        self.random = random.Random(seed)
        self.depth = 0
        self.locals = []        # (name, type)

    def pick(self, *choices):
        return self.random.choice(choices)

    def expression(self, kind):
        """The text of an expression of a type: int, str, bool, list (of int), words (list of str), hash, any."""
        if kind == 'any':
            kind = self.pick('int', 'str', 'bool', 'list', 'words', 'hash', 'nil', 'sym', 'float')
        self.depth += 1
        try:
            named = [name for name, known in self.locals if known == kind]
            if named and self.random.random() < 0.3:
                return self.random.choice(named)
            if self.depth > 4:
                return self.simple(kind)
            return self.random.choice([self.simple, self.composed])(kind)
        finally:
            self.depth -= 1

    def simple(self, kind):
        return {
            'int': lambda: self.pick('0', '1', '7', '-3', '42', '0x1f', '1_000', '@count', '@ports["http"]'),
            'str': lambda: self.pick("'a'", '""', '"b c"', "'x-y_z'", '"tab\\t"', "'it\\'s'", '"q\\"q"', '@title',
                                     '@backends[0]["name"]', '@i0.to_s', '@i1.inspect', '@n.to_s', "'ä'", '"a,b,,c"', "'  pad '", '"A1b2"', 'instance'),
            'bool': lambda: self.pick('true', 'false', '@enabled', '@nothing.nil?'),
            'list': lambda: self.pick('[]', '[1, 2, 3]', '[3, -1, 2, 3]', '[5]', '(1..4).to_a'),
            'words': lambda: self.pick('[]', "%w(a b c)", "['b', 'A', \"a\"]", "@backends.map { |q| q['ip'] }", "['']"),
            'hash': lambda: self.pick('{}', "{'k' => 1}", "{:a => 2, 'b' => 1}", '@ports', '{x: 1, y: 2}'),
            'nil': lambda: self.pick('nil', '@unknown', '[].first', "{}['x']"),
            'sym': lambda: self.pick(':a', ':"b c"', ':d?'),
            'float': lambda: self.pick('1.5', '-0.25', '1e20', '2.0', '@ratio', '1e-7'),
        }[kind]()

    def composed(self, kind):
        e = self.expression
        block = lambda names, body: self.block(names, body)      # noqa: E731
        return {
            'int': lambda: self.pick(
                lambda: '({} {} {})'.format(e('int'), self.pick('+', '-', '*'), e('int')),
                lambda: '({} {} {})'.format(e('int'), self.pick('/', '%'), self.pick('2', '-3', '7')),
                lambda: '{}.size'.format(e(self.pick('str', 'list', 'words', 'hash'))),
                lambda: '{}.to_i'.format(e(self.pick('str', 'int', 'nil'))),
                lambda: '{}.length'.format(e('str')), lambda: '{}.sum'.format(e('list')),
                lambda: '({} ? {} : {})'.format(e('any'), e('int'), e('int')),
                lambda: '({} || {})'.format(e('nil'), e('int')), lambda: '{}.abs'.format(e('int')),
                lambda: '-({})'.format(e('int')), lambda: '({} <=> {})'.format(e('str'), e('str')),
            )(),
            'str': lambda: self.pick(
                lambda: '({} + {})'.format(e('str'), e('str')), lambda: '"<#{%s}>"' % e('any'),
                lambda: '{}.to_s'.format(e('any')), lambda: '{}.{}'.format(e('str'), self.pick(
                    'upcase', 'downcase', 'strip', 'capitalize', 'chomp', 'reverse', 'lstrip', 'rstrip', 'swapcase')),
                lambda: '{}.gsub({}, {})'.format(e('str'), self.pick("'a'", "' '", "','", '/[a-z]/', '/\\d+/', '/^/'),
                                                 self.pick("'-'", "''", "'\\0\\0'", '"#{1}"')),
                lambda: '{}.sub({}, {})'.format(e('str'), self.pick("'a'", "'-'", '/b/i'), self.pick("'_'", "'&'")),
                lambda: '{}.join({})'.format(e(self.pick('list', 'words')), self.pick("','", "' '", "''", '')),
                lambda: '({} * {})'.format(e('str'), self.pick('0', '2')), lambda: '{}.inspect'.format(e('any')),
                lambda: '({} ? {} : {})'.format(e('bool'), e('str'), e('str')),
                lambda: '({})[{}].to_s'.format(e('str'), self.pick('0', '-1', '1, 2', '0..2', '1...-1', '5, 1')),
                lambda: "'%s-%03d' % [{}, {}]".format(e('any'), self.pick('5', '-7', '12345')),
                lambda: '(if {} then {} else {} end)'.format(e('any'), e('str'), e('str')),
                lambda: "(case {} when {} then 'c1' when Integer, nil then 'c2' else {} end)".format(
                    e('any'), e('any'), e('str')),
            )(),
            'bool': lambda: self.pick(
                lambda: '({} {} {})'.format(e('int'), self.pick('==', '!=', '<', '>', '<=', '>='), e('int')),
                lambda: '({} == {})'.format(e('any'), e('any')), lambda: '({} != {})'.format(e('any'), e('any')),
                lambda: '!{}'.format(e('any')), lambda: '(not (%s))' % e('bool'),
                lambda: '({} && {})'.format(e('bool'), e('bool')), lambda: '({} || {})'.format(e('bool'), e('bool')),
                lambda: '({} and {})'.format(e('bool'), e('bool')), lambda: '{}.nil?'.format(e('any')),
                lambda: '{}.empty?'.format(e(self.pick('str', 'list', 'hash'))),
                lambda: '{}.include?({})'.format(e('str'), e('str')),
                lambda: '{}.include?({})'.format(e('list'), e('int')),
                lambda: '{}.start_with?({})'.format(e('str'), e('str')),
                lambda: '{}.end_with?({})'.format(e('str'), e('str')),
                lambda: '{}.is_a?({})'.format(e('any'), self.pick('String', 'Integer', 'Array', 'Hash', 'NilClass')),
                lambda: '({} < {})'.format(e('str'), e('str')), lambda: '{}.key?({})'.format(e('hash'), e('any')),
            )(),
            'list': lambda: self.pick(
                lambda: '[{}]'.format(', '.join(e('int') for _ in range(self.random.randrange(4)))),
                lambda: '{}.{}'.format(e('list'), self.pick('sort', 'uniq', 'reverse', 'compact', 'first(2)', 'last(2)')),
                lambda: '{}.map {}'.format(e('list'), block('int', 'int')),
                lambda: '{}.select {}'.format(e('list'), block('int', 'bool')),
                lambda: '({} {} {})'.format(e('list'), self.pick('+', '-'), e('list')),
                lambda: '{}.map {}'.format(e('words'), block('str', 'int')), lambda: '{}.values'.format(e('hash')),
            )(),
            'words': lambda: self.pick(
                lambda: '[{}]'.format(', '.join(e('str') for _ in range(self.random.randrange(4)))),
                lambda: '{}.split({})'.format(e('str'), self.pick('', "','", "' '", "''", "',', -1", "'-', 2", '/[ ,]/')),
                lambda: '{}.{}'.format(e('words'), self.pick('sort', 'uniq', 'map(&:upcase)', 'reverse')),
                lambda: '{}.map {}'.format(e('list'), block('int', 'str')),
                lambda: '{}.reject {}'.format(e('words'), block('str', 'bool')),
                lambda: '{}.keys.map(&:to_s)'.format(e('hash')), lambda: '{}.chars'.format(e('str')),
                lambda: '{}.sort_by {}'.format(e('words'), block('str', 'str')),
            )(),
            'hash': lambda: self.pick(
                lambda: '{%s => %s, %s => %s}' % (e('str'), e('int'), e('sym'), e('int')),
                lambda: '{}.merge({})'.format(e('hash'), e('hash')),
                lambda: '{}.select {{ |k, v| v {} {} }}'.format(e('hash'), self.pick('>', '=='), e('int')),
            )(),
            'nil': lambda: self.simple('nil'), 'sym': lambda: self.simple('sym'),
            'float': lambda: '({} {} {})'.format(e('float'), self.pick('+', '-', '*', '/'), e('int')),
        }[kind]()

    def block(self, parameter, body):
        name = 'v%d' % len(self.locals)
        self.locals.append((name, parameter))
        text = '{ |%s| %s }' % (name, self.expression(body))
        self.locals.pop()
        return text

    def statements(self, depth):
        """A piece of template: text and tags."""
        return ''.join(self.statement(depth) for _ in range(self.random.randrange(1, 5)))

    def end(self):
        return self.pick('%>', '%>', ' %>\n', '\n%>', '-%>\n' if self.trim else '%>\n', '-%>' if self.trim else '%>')

    def begin(self):
        return self.pick('<% ', '<%', '<%- ' if self.trim else '<%', '\n  <%- ' if self.trim else '\n  <% ')

    def statement(self, depth):
        choice = self.random.randrange(16)
        if choice < 3 or depth > 3:
            return self.pick('text', ' a b\n', '\n', 'ä', '% line\n', '<%% x %>', '  ', '#{x}', '\\', "'", '%>', '\r\n')
        if choice < 7:
            return '<%=' + self.pick(' ', '') + self.expression('any') + ' ' + self.pick('%>', '%>', '-%>' if self.trim
                                                                                         else '%>')
        if choice == 7:
            name, kind = 'l%d' % self.random.randrange(4), self.pick('int', 'str', 'list', 'bool')
            value = self.expression(kind)
            self.locals = [(known, type_) for known, type_ in self.locals if known != name] + [(name, kind)]
            return self.begin() + '{} = {}'.format(name, value) + ' ' + self.end()
        if choice == 8:
            return self.pick('<%# comment %>', '<%#\n\n%>', '<%# x -%>\n')
        if choice == 9:
            before = list(self.locals)      # assigned in one branch only, it may be nil afterwards
            text = self.begin() + self.pick('if ', 'unless ') + self.expression('any') + ' ' + self.end() + \
                self.statements(depth + 1)
            self.locals = list(before)
            if self.random.random() < 0.5:
                text += self.begin() + 'else ' + self.end() + self.statements(depth + 1)
            self.locals = before
            return text + self.begin() + 'end ' + self.end()
        if choice >= 12:
            return self.begin() + self.change(depth) + ' ' + self.end()
        before = list(self.locals)
        name = 'p%d' % depth
        kind, call, parameters, known = self.random.choice([
            ('list', 'each', name, [(name, 'int')]), ('words', 'each', name, [(name, 'str')]),
            ('words', 'each_with_index', name + ', i%d' % depth, [(name, 'str'), ('i%d' % depth, 'int')]),
            ('hash', 'each_pair', 'k%d, %s' % (depth, name), [(name, 'int')]),
        ])
        opening, closing = self.pick(('do', 'end'), ('{', '}'))
        text = self.begin() + '{}.{} {} |{}| '.format(self.expression(kind), call, opening, parameters) + self.end()
        self.locals += known
        text += self.statements(depth + 1)
        self.locals = before
        return text + self.begin() + closing + ' ' + self.end()

    def change(self, depth):
        """Statements in one tag: assignments of every kind, modifiers, comments, several of them."""
        e = self.expression
        numbers = [name for name, kind in self.locals if kind == 'int' and name[0] == 'l']
        words = [name for name, kind in self.locals if kind == 'str' and name[0] == 'l']
        lists = [name for name, kind in self.locals if kind == 'list' and name[0] == 'l']
        choices = [
            lambda: '@i%d = %s' % (depth, e('any')), lambda: '@i%d ||= %s' % (depth, e('str')),
            lambda: '@i%d &&= %s' % (depth, e('int')), lambda: 'h = {%s => %s}; h[%s] = %s; h[%s] ||= %s' % (
                e('str'), e('int'), e('str'), e('int'), e('sym'), e('int')),
            lambda: e('any') + self.pick(' if ', ' unless ') + e('any'), lambda: '%s # a comment\n' % e('any'),
            lambda: '%s\n %s; %s' % (e('int'), e('str'), e('bool')), lambda: 'q = (%s and %s)' % (e('any'), e('any')),
            lambda: 'w = if %s then %s elsif %s\n %s\nelse\n %s end' % tuple(e('any') for _ in range(5)),
            lambda: 'r = %s.map do |m|\n next %s if m == %s\n m\nend' % (e('list'), e('int'), e('int')),
            lambda: 'b = %s.each { |m| break %s if m > %s }' % (e('list'), e('int'), e('int')),
            lambda: 't = [%s,\n %s,\n]\n  .first' % (e('any'), e('any')),
            lambda: 'c = case %s\n when %s, %s then %s\n when nil\n %s\n end' % tuple(e('any') for _ in range(5)),
            lambda: '%d.times { |n| @n = (@n || 0) + n }' % self.random.randrange(4),
        ]
        if numbers:
            choices += [lambda: '%s %s %s' % (self.random.choice(numbers), self.pick('+=', '-=', '*='), e('int'))] * 3
        if words:
            choices += [lambda: '%s += %s' % (self.random.choice(words), e('str'))] * 3
        if lists:
            choices += [lambda: '%s += [%s]' % (self.random.choice(lists), e('int')),
                        lambda: '%s = %s << %s' % ((self.random.choice(lists),) * 2 + (e('int'),))]
        text = self.random.choice(choices)()
        return text + self.pick('', '\n@seen = 1', '\n@seen = h.to_s' if 'h = ' in text else '')

    def template(self):
        self.trim = self.random.random() < 0.4
        self.locals = []
        return self.statements(0) + self.pick('', '\n')


def test_generated_templates(tmpdir):
    with open(os.path.join(str(tmpdir), 'foo.vars.json'), 'w') as file:
        file.write('{"backends": [{"name": "web1", "ip": "10.0.0.1"}, {"name": "web2", "ip": "10.0.0.2"}], '
                   '"ports": {"http": 80, "https": 443}, "title": "a \\"title\\"", "count": 3, "ratio": 0.25, '
                   '"enabled": true, "nothing": null}')
    path = os.path.join(str(tmpdir), 'foo.cfg.erb')
    first = int(os.environ.get('MULTIBINDER_FUZZ_SEED', '1'))
    templates = [Generator(seed).template() for seed in range(first, first + COUNT)]
    differing = []
    refused = 0
    for seed, (template, ruby) in enumerate(zip(templates, make_erb_expected.ruby(templates)), first):
        with open(path, 'wb') as file:
            file.write(template.encode('utf-8'))
        try:
            ours = {'text': render(path, env={'GREETING': 'hello'}, deadline=20).text}
        except TemplateError as error:
            ours = {'error': error.reason}
            refused += 'not supported' in error.reason
            if 'not supported' in error.reason:
                continue
        if ours.get('text') != ruby.get('text'):
            differing.append((seed, template, ours, ruby))
    assert not differing, 'seed {}: {!r}\nours: {!r}\nruby: {!r}\n({} of {} differ)'.format(
        *(differing[0] + (len(differing), COUNT)))
    assert refused <= COUNT // 50, '{} of {} refused as not supported'.format(refused, COUNT)
