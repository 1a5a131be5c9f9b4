"""ERB: what comes out is what real Ruby made of the same template (tests/data/templates/erb_expected.json)."""

import json
import os
import sys

import pytest

from multibinder.errors import TemplateError
from multibinder.template import render

DATA = os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), 'data', 'templates')
sys.path.insert(0, DATA)

import make_erb_expected    # noqa: E402

CASES = make_erb_expected.cases()
with open(os.path.join(DATA, 'erb_expected.json')) as stream:
    EXPECTED = json.load(stream)

# What erb_oracle.rb gives its templates.
VALUES = {'backends': [{'name': 'web1', 'ip': '10.0.0.1'}, {'name': 'web2', 'ip': '10.0.0.2'}],
          'title': 'a "title"', 'count': 3, 'ratio': 0.25, 'enabled': True, 'nothing': None}
ENVIRONMENT = {'GREETING': 'hello'}


def render_text(directory, text, values=True, name='foo.cfg.erb', **options):
    """Render a template's text (surrogate escapes for its odd bytes) in a directory of the test's own."""
    path = os.path.join(str(directory), name)
    with open(path, 'wb') as file:
        file.write(text.encode('utf-8', 'surrogateescape'))
    if values:
        with open(os.path.join(str(directory), 'foo.vars.json'), 'w') as file:
            # The order of the ports is what the template shows, and a dict has none on Python 3.5.
            file.write(json.dumps(VALUES)[:-1] + ', "ports": {"http": 80, "https": 443}}')
    return render(path, env=ENVIRONMENT, **options)


def test_the_expected_texts_belong_to_the_cases():
    assert list(CASES) == [title for title in EXPECTED if title != 'made by'] or sys.version_info < (3, 6)
    assert set(CASES) == set(EXPECTED) - {'made by'}


@pytest.mark.parametrize('title', sorted(CASES))
def test_as_ruby(title, tmpdir):
    expected = EXPECTED[title]
    if 'text' in expected:
        rendering = render_text(tmpdir, CASES[title])
        assert rendering.text == expected['text']
        unfinished = rendering.text != '' and not rendering.text.endswith('\n')
        assert len(rendering.lines) == rendering.text.count('\n') + unfinished
    else:
        with pytest.raises(TemplateError):
            render_text(tmpdir, CASES[title])
