"""The test suites of openspf.org, as Debian's python3-spf brings them along: each case through `martlet authcheck`."""
import glob
import gzip
import json
import os
import subprocess

import pytest

pytestmark = [pytest.mark.plain, pytest.mark.root]

SUITES = glob.glob('/usr/share/doc/python3-spf/rfc*-tests.yml.gz')
OLD_WORDS = {'error': 'temperror', 'unknown': 'permerror'}  # of RFC 4408's drafts


def scenarios():
    yaml = pytest.importorskip('yaml')
    for suite in SUITES:
        with gzip.open(suite, 'rt') as f:
            for number, scenario in enumerate(yaml.safe_load_all(f)):
                if scenario:
                    yield pytest.param(scenario, id=f'{os.path.basename(suite)[:7]}-{number}')


def serve(ns, zone):
    """Records of type SPF stand for TXT where a name has none; `TIMEOUT` is for all types that a name has no record of."""
    for name, records in zone.items():
        kinds = {}
        for kind, value in (pair for r in records if r != 'TIMEOUT' for pair in r.items()):
            kinds.setdefault(kind, []).append(value)
        silent = 'TIMEOUT' in records
        if 'TXT' not in kinds and not silent:
            kinds['TXT'] = kinds.get('SPF', [])
        for kind in ('A', 'AAAA', 'MX', 'PTR', 'TXT', 'CNAME'):
            values = [tuple(v) if kind == 'MX' else v for v in kinds.get(kind, []) if v != 'NONE']
            if values:
                ns.add(name, kind, *values)
            elif silent:
                ns.trouble[(name.lower(), kind)] = 'SERVFAIL'


@pytest.mark.skipif(not SUITES, reason='the suites are not installed')
@pytest.mark.parametrize('scenario', scenarios() if SUITES else [])
def test_suite(martlet, nameserver, scenario):
    serve(nameserver, scenario['zonedata'])
    m = martlet(inside=True, daemon=False, main='dns_retrans = 20s\ndns_retry = 1')
    name = os.path.join(m.directory, 'message')
    with open(name, 'w') as f:
        f.write('From: u@from.example\n\nbody\n')
    os.chmod(name, 0o644)
    wrong = []
    for label, case in scenario['tests'].items():
        sender = ['--sender', case['mailfrom']] if case['mailfrom'] else []
        done = subprocess.run(m._command(['-C', m.conf, 'authcheck', '--json', '--resolver', nameserver.address, '--ip', case['host'],
                                          '--helo', case['helo'], *sender, name]), capture_output=True, text=True)
        got = json.loads(done.stdout)
        allowed = case['result'] if isinstance(case['result'], list) else [case['result']]
        if got['spf'] not in [OLD_WORDS.get(w, w) for w in allowed]:
            wrong.append((label, got['spf'], got['spf_comment'], case))
        text = case.get('explanation')
        if got['spf'] == 'fail' and text and not (got['spf_explanation'].startswith('Please') if text == 'DEFAULT' else got['spf_explanation'] == text):
            wrong.append((label, got['spf_explanation'], case))
    assert not wrong
