#!/usr/bin/env python3
"""Writes erb_expected.json: what real Ruby makes of each template of erb_cases.txt.

    python3 tests/data/templates/make_erb_expected.py

Needs ruby. The file is committed, so that the tests need none; it says which Ruby it came from.
"""

import collections
import json
import os
import subprocess

HERE = os.path.dirname(os.path.abspath(__file__))


def cases():
    """Return an ordered dict: title to template (str; bytes that are no UTF-8 as surrogate escapes)."""
    found = collections.OrderedDict()
    with open(os.path.join(HERE, 'erb_cases.txt'), encoding='utf-8') as file:
        for block in file.read().split('=== ')[1:]:
            title, _, text = block.partition('\n')
            text = text[:-1] if text.endswith('\n') else text
            if title.endswith('[crlf]'):
                text = text.replace('\n', '\r\n')
            if title.endswith('[latin1]'):
                text = text.encode('latin-1').decode('utf-8', 'surrogateescape')
            assert title not in found, title
            found[title] = text
    return found


def ruby(templates):
    """Return what Ruby makes of templates (list of str): a list of {'text': str} or {'error': ...}."""
    sent = []
    for text in templates:
        data = text.encode('utf-8', 'surrogateescape')
        try:
            sent.append(data.decode('utf-8'))
        except UnicodeDecodeError:
            sent.append('\x01' + data.decode('latin-1'))
    process = subprocess.Popen(['ruby', os.path.join(HERE, 'erb_oracle.rb')], stdin=subprocess.PIPE,
                               stdout=subprocess.PIPE)
    out, _ = process.communicate(json.dumps(sent).encode('ascii'))
    assert process.returncode == 0
    results = json.loads(out.decode('utf-8'))
    for result in results:
        if 'bytes' in result:
            data = result.pop('bytes').encode('latin-1').lstrip(b'\x01')
            result['text'] = data.decode('utf-8', 'surrogateescape')
    return results


def main():
    found = cases()
    version = subprocess.check_output(['ruby', '-v']).decode('ascii').strip()
    results = ruby(list(found.values()))
    expected = collections.OrderedDict([('made by', version)])
    for title, result in zip(found, results):
        if 'error' in result:
            print('{}: {} {}'.format(title, result['error'], result['message']))
        expected[title] = result
    with open(os.path.join(HERE, 'erb_expected.json'), 'w') as file:
        json.dump(expected, file, indent=1, ensure_ascii=True)
        file.write('\n')


if __name__ == '__main__':
    main()
