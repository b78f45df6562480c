"""martlet authcheck: what SPF, DKIM, DMARC and ARC say of a message in a file, for people and for programs."""
import base64
import json
import os
import subprocess

import pytest


pytestmark = [pytest.mark.plain, pytest.mark.root]


@pytest.fixture
def check(martlet, nameserver, tmp_path_factory):
    dkim = pytest.importorskip('dkim')
    pem = tmp_path_factory.mktemp('keys') / 'k'
    subprocess.run(['openssl', 'genpkey', '-out', pem, '-algorithm', 'RSA', '-pkeyopt', 'rsa_keygen_bits:1024'], check=True, capture_output=True)
    public = subprocess.run(['openssl', 'pkey', '-in', pem, '-pubout', '-outform', 'DER'], check=True, capture_output=True).stdout
    nameserver.add('k._domainkey.a.ex', 'TXT', 'v=DKIM1; p=' + base64.b64encode(public).decode())
    nameserver.add('a.ex', 'TXT', 'v=spf1 ip4:192.0.2.1 -all').add('_dmarc.a.ex', 'TXT', 'v=DMARC1; p=reject')
    text = b'From: u@a.ex\r\nSubject: x\r\n\r\nbody\r\n'
    signed = dkim.sign(text, b'k', b'a.ex', pem.read_bytes(), include_headers=[b'from']) + text
    m = martlet(inside=True, daemon=False, main='dns_retrans = 2s\ndns_retry = 1')

    def run(*args, message=signed, check=True):
        name = os.path.join(m.directory, 'message')
        with open(name, 'wb') as f:
            f.write(message)
        os.chmod(name, 0o644)
        done = subprocess.run(m._command(['-C', m.conf, 'authcheck', *args, name]), capture_output=True, text=True)
        assert not check or done.returncode == 0, done
        return done
    run.resolver = nameserver.address
    run.signed = signed
    return run


def test_good_and_changed(check):
    common = '--ip', '192.0.2.1', '--helo', 'h.ex', '--sender', 'b@a.ex', '--resolver', check.resolver
    text = check(*common).stdout
    assert 'SPF    pass' in text and 'DKIM   pass d=a.ex s=k' in text and 'DMARC  accept (record of a.ex, policy reject, aligned: SPF yes, DKIM yes)' in text
    assert 'ARC    none' in text and 'Authentication-Results: mx.martlet.test;' in text and 'dmarc=pass header.from=a.ex' in text
    # also with LF line ends, and in the other form
    got = json.loads(check(*common, '--json', message=check.signed.replace(b'\r\n', b'\n')).stdout)
    assert (got['spf'], got['dkim'], got['dmarc'], got['arc']) == ('pass', [{'domain': 'a.ex', 'selector': 'k', 'result': 'pass'}], 'accept', 'none')
    got = json.loads(check('--ip', '192.0.2.2', '--sender', 'b@a.ex', '--resolver', check.resolver + ':53', '--json',
                           message=check.signed.replace(b'body', b'Body')).stdout)
    assert got['spf'] == 'fail' and got['dkim'][0]['result'] == 'fail' and got['dmarc'] == 'reject' and got['dmarc_policy'] == 'reject'
    assert 'body hash mismatch' in got['authentication_results']


def test_without_a_client(check):
    got = json.loads(check('--json', '--resolver', check.resolver).stdout)
    assert got['dkim'][0]['result'] == 'pass' and got['dmarc'] == 'accept' and got['dmarc_alignment_spf'] == 'no'


@pytest.mark.parametrize('args', [['--ip', 'x'], ['--resolver', 'nowhere'], ['--bogus'], ['one', 'two'], ['--ip']])
def test_wrong_arguments(check, args):
    done = check(*args, check=False)
    assert done.returncode == 1 and 'usage: martlet authcheck' in done.stderr


def test_hostile_message(check):
    got = json.loads(check('--json', '--resolver', check.resolver, message=b'\x00\xff' * 1000 + b'"\\\n\nx').stdout)
    assert got['dkim'] == [] and got['dmarc'] == 'nofrom'


def test_examples_of_the_manual_load(martlet):
    """docs/mail-authentication.md: its configurations are accepted, together."""
    import re
    from support.martlet import TOP
    with open(os.path.join(TOP, 'docs', 'mail-authentication.md')) as f:
        blocks = re.findall(r'```exim\n(.*?)```', f.read(), re.S)
    assert len(blocks) >= 5
    sections = {}
    for block in blocks:
        parts = re.split(r'^begin (\w+)\n', block, flags=re.M)
        for name, text in zip(['main'] + parts[1::2], parts[::2]):
            sections[name] = sections.get(name, '') + text
    rest = ''.join(f'begin {name}\n{sections[name]}\n' for name in ('acl', 'routers', 'transports'))
    m = martlet(daemon=False, configuration=f'spool_directory = @DIR@/spool\nlog_file_path = @DIR@/log/%slog\n{sections["main"]}\n{rest}')
    done = subprocess.run(m._command(['-C', m.conf, '-bP', 'transports']), capture_output=True, text=True)
    assert done.returncode == 0 and 'arc_sign = lists.example.org' in done.stdout and 'dkim_timestamps = 1209600' in done.stdout, done
