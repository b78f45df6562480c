"""ARC: chains that python3-dkim made and judges, gaps and duplicates, seals of our own."""
import base64
import os
import re
import subprocess

import pytest

from support.smtp import Client
from support.util import read, wait_for

pytestmark = [pytest.mark.plain, pytest.mark.root]

MESSAGE = b'From: u@a.ex\r\nTo: v@b.ex\r\nSubject: a  test\r\nDate: Fri, 20 Nov 2026 10:00:00 +0000\r\nMessage-ID: <1@a.ex>\r\n\r\nHello,\r\n\r\n  world \r\n\r\n\r\n'
MAIN = 'acl_smtp_data = check_data\ndns_retrans = 20s\ndns_retry = 1'
ACLS = """
check_data:
  warn !verify = arc/pass
       logwrite = not passed
  accept logwrite = arc <$arc_state> <$arc_state_reason> <$arc_domains> <$arc_oldest_pass>
         add_header = :at_start:${authresults{us.ex}}
"""


@pytest.fixture(scope='module')
def keys(tmp_path_factory):
    """name: (file, key for python3-dkim, text of p=)"""
    d, made = tmp_path_factory.mktemp('keys'), {}
    for name, options in {'r': ['-algorithm', 'RSA', '-pkeyopt', 'rsa_keygen_bits:2048'], 'ed': ['-algorithm', 'ed25519'],
                          'small': ['-algorithm', 'RSA', '-pkeyopt', 'rsa_keygen_bits:768']}.items():
        pem = d / name
        subprocess.run(['openssl', 'genpkey', '-out', pem, *options], check=True, capture_output=True)
        public = subprocess.run(['openssl', 'pkey', '-in', pem, '-pubout', '-outform', 'DER'], check=True, capture_output=True).stdout
        made[name] = str(pem), pem.read_bytes(), base64.b64encode(public[-32:] if name == 'ed' else public).decode()
    return made


def records(keys):
    return {f'{n}._domainkey.{d}': f'v=DKIM1; k={"ed25519" if n == "ed" else "rsa"}; p={k[2]}' for n, k in keys.items() for d in ('s.ex', 'us.ex')}


@pytest.fixture
def receiving(martlet, nameserver, keys):
    for name, text in records(keys).items():
        nameserver.add(name, 'TXT', text)
    nameserver.trouble['again._domainkey.s.ex'] = 'SERVFAIL'
    return lambda **kw: martlet(resolver=nameserver.address, daemon=False, acl=ACLS, main=MAIN, **kw)


def txt(keys):
    table = {k + '.': v.encode() for k, v in records(keys).items()}
    return lambda name, timeout=5: table.get(name.decode() if isinstance(name, bytes) else name)


def seal(keys, message, selector=b'r', key='r'):
    """With a set of python3-dkim's on top."""
    dkim = pytest.importorskip('dkim')
    host = b'h%d.ex' % len(re.findall(rb'(?m)^ARC-Seal', message))
    message = b'Authentication-Results: ' + host + b'; spf=pass; arc=' + (b'pass' if b'ARC-Seal' in message else b'none') + b'\r\n' + message
    return b''.join(dkim.arc_sign(message, selector, b's.ex', keys[key][1], host,
                                  include_headers=[b'from', b'to', b'subject', b'date', b'message-id'])) + message


def judged(m, *messages):
    text = b''.join(b'MAIL FROM:<u@a.ex>\r\nRCPT TO:<u0@local.test>\r\nDATA\r\n' + re.sub(rb'(?m)^\.', b'..', x) + b'.\r\n' for x in messages)
    m.run('-odq', '-bs', '-oMa', '192.0.2.1', input=b'EHLO h.ex\r\n' + text + b'QUIT\r\n')
    return [line.split(' arc ', 1)[1] for line in m.log().split('\n') if ' arc <' in line]


def test_python_dkim_chains(receiving, keys):
    one = seal(keys, MESSAGE)
    two = seal(keys, one)
    footer = seal(keys, one + b'a footer\r\n')
    m = receiving()
    got = judged(m, MESSAGE, one, two, footer, one.replace(b'world', b'World'), one.replace(b'a  test', b'a test!'), two.replace(b'spf=pass', b'spf=fail', 1), footer, MESSAGE)
    assert got == ['<none> <> <> <0>', '<pass> <> <s.ex> <1>', '<pass> <> <s.ex:s.ex> <1>', '<pass> <> <s.ex:s.ex> <2>',
                   '<fail> <AMS body hash miscompare> <s.ex> <0>', '<fail> <AMS sig nonverify> <s.ex> <0>', *got[6:]]
    assert re.match(r'<(pass|fail)>', got[6])
    assert got[7:] == [got[3], got[0]]  # nothing is left over from the message before
    log = m.log()
    assert log.count('not passed') >= 3 and ' ARC id=1@a.ex' in log
    idents = re.findall(r'(\S+) <= ', log)
    assert 'arc=none' in m.run('-Mvh', idents[0]) and 'arc_state none 0 0' in m.run('-Mvh', idents[0])
    assert re.search(r'arc=pass \(i=2\) header.s=r arc.oldest-pass=2 smtp.remote-ip=192.0.2.1', m.run('-Mvh', idents[3]))


@pytest.mark.parametrize('change, why', [
    (lambda x: re.sub(rb'(?m)i=1;', b'i=2;', x), 'i=1 (missing header)'),
    (lambda x: re.sub(rb'(?ms)^ARC-Authentication-Results:.*?\r\n(?=\S)', b'', x), 'i=1 (missing header)'),
    (lambda x: re.sub(rb'(?ms)^ARC-Message-Signature:.*?\r\n(?=\S)', b'', x), 'i=1 (missing header)'),
    (lambda x: re.sub(rb'(?ms)^ARC-Seal:.*?\r\n(?=\S)', b'', x), 'i=1 (missing header)'),
    (lambda x: re.sub(rb'(?ms)^(ARC-Seal:.*?\r\n)(?=\S)', rb'\1\1', x), 'i=1 (duplicate)'),
    (lambda x: x.replace(b'cv=none', b'cv=pass'), 'i=1 (cv)'),
    (lambda x: x.replace(b'cv=none', b'cv=fail'), 'i=1 (cv)'),
    (lambda x: x.replace(b'cv=none', b'cv=maybe'), 'i=1 (AS cv tag)'),
    (lambda x: x.replace(b'cv=none', b'cv=none; h=from'), 'i=1 (AS has a tag h=)'),
    (lambda x: x.replace(b'i=1', b'i=0'), 'usable instance number'),
    (lambda x: x.replace(b'i=1', b'i=1a'), 'usable instance number'),
    (lambda x: x.replace(b'i=1', b'i=51'), 'usable instance number'),
    (lambda x: x.replace(b'ARC-Authentication-Results: i=1;', b'ARC-Authentication-Results: x.ex; i=1;'), 'usable instance number'),
    (lambda x: re.sub(rb'(?ms)^(ARC-Seal:.*?)s=r;', rb'\1s=no;', x), 'AS i=1 pubkey unavailable'),
    (lambda x: re.sub(rb'(?ms)^(ARC-Message-Signature:.*?)s=r;', rb'\1s=again;', x), 'AMS pubkey unavailable'),
    (lambda x: x.replace(b'a=rsa-sha256', b'a=rsa-sha1'), 'AMS algorithm'),
    (lambda x: x.replace(b'a=rsa-sha256', b'a=RSA-sha256'), 'AMS algorithm'),
    (lambda x: re.sub(rb't=\d+', b't=999999999; x=1000000000', x), 'AMS expired'),
    (lambda x: x.replace(b'spf=pass', b'spf=fail'), 'AS i=1 sig nonverify')])
def test_broken(receiving, keys, change, why):
    """RFC 8617, section 5.2, steps 2 to 6."""
    good = seal(keys, MESSAGE)
    assert change(good) != good
    got = judged(receiving(), change(good))
    assert got[0].startswith('<fail> <') and why in got[0], got


def test_small_key_and_hostile(receiving, keys):
    small = seal(keys, MESSAGE, b'small', 'small')
    many = b''.join(b'ARC-Seal: i=%d; a=rsa-sha256; cv=pass; d=s.ex; s=r; b=AAAA\r\n' % (n % 50 + 1) for n in range(1000)) + MESSAGE
    gap = seal(keys, seal(keys, MESSAGE)).replace(b'i=2', b'i=3')
    got = judged(receiving(), small, many, gap)
    assert got[0].startswith('<fail> <AMS pubkey too short>') and got[1].startswith('<fail> <i=') and got[2].startswith('<fail> <i=2 (missing')


@pytest.fixture
def hops(martlet, nameserver, keys, scratch, smtp_server):
    """A Martlet that judges and seals, and what comes out at its other end."""
    for name, text in records(keys).items():
        nameserver.add(name, 'TXT', text)
    d = os.path.join(scratch, 'keys')
    os.makedirs(d)
    os.chmod(d, 0o755)
    for name, k in keys.items():
        with open(os.path.join(d, name), 'wb') as f:
            f.write(k[1])
        os.chmod(os.path.join(d, name), 0o644)
    sink = smtp_server()

    def start(arc_sign='us.ex : r : @KEYS@/r', *client, acl=ACLS, **kw):
        m = martlet(resolver=nameserver.address, acl=acl, main=MAIN, smarthost=f'127.0.0.1::{sink.port}', relay_from='127.0.0.1', arguments=[],
                    client='\n  '.join([f'arc_sign = {arc_sign}', *client]).replace('@KEYS@', d), **kw)

        def through(message):
            before = len(sink.messages)
            with Client(m.port) as c:
                c.ehlo()
                for line in ('MAIL FROM:<u@a.ex>', 'RCPT TO:<v@relay.test>'):
                    c.expect(250, line)
                c.expect(354, 'DATA')
                c.send(re.sub(rb'(?m)^\.', b'..', message))
                c.expect(250, '.')
            wait_for(lambda: len(sink.messages) > before, m.logs)
            return sink.messages[-1]['data']
        return m, through
    return start


@pytest.mark.parametrize('key', ['r', 'ed'])
def test_seals(hops, keys, key):
    """Alone, over a chain of python3-dkim's, and over our own; DKIM and a transport filter below it."""
    dkim = pytest.importorskip('dkim')
    m, through = hops(f'us.ex : {key} : @KEYS@/{key} : timestamps,expire=+3600', 'dkim_domain = us.ex', 'dkim_selector = ed', 'dkim_private_key = @KEYS@/ed')
    data = MESSAGE
    for n, sealed in enumerate([False, True, True]):
        if n == 1:
            data = seal(keys, data)
        out = through(data)
        seals = len(re.findall(rb'(?m)^ARC-Seal:', out))
        assert seals == len(re.findall(rb'(?m)^ARC-Seal:', data)) + 1
        state, results, reason = dkim.arc_verify(out, dnsfunc=txt(keys))
        if key == 'r': # python3-dkim knows no ARC with Ed25519
            assert state == dkim.CV_Pass, (reason, out)
        assert re.search(rb'(?s)^ARC-Seal: i=%d; cv=%s;.*?ARC-Authentication-Results: i=%d; us.ex;.*ARC-Message-Signature: i=%d;.*t=\d+; x=\d+;.*h=\S*DKIM-Signature' % (
            seals, b'none' if seals == 1 else b'pass', seals, seals), out), out
        data = out
    got = judged_by(hops, data)
    assert got.startswith('<pass> <> <'), got


def judged_by(hops, data):
    m, through = hops()
    through(data)
    return [line.split(' arc ', 1)[1] for line in m.log().split('\n') if ' arc <' in line][-1]


def test_several_results_and_foreign_ones(hops, keys):
    dkim = pytest.importorskip('dkim')
    m, through = hops()
    out = through(b'Authentication-Results: us.ex; dmarc=pass header.from=a.ex\r\nAuthentication-Results: other.ex; spf=fail\r\n' + MESSAGE)
    aar = re.search(rb'(?ms)^ARC-Authentication-Results: .*?\r\n(?=\S)', out).group(0)
    assert b'arc=none' in aar and b'dmarc=pass header.from=a.ex' in aar and b'spf=fail' not in aar
    assert dkim.arc_verify(out, dnsfunc=txt(keys))[0] == dkim.CV_Pass


def test_broken_chain_is_sealed_as_failed_and_not_further(hops, keys):
    m, through = hops()
    out = through(seal(keys, MESSAGE).replace(b'world', b'World'))
    assert out.startswith(b'ARC-Seal: i=2; cv=fail;')
    again = through(out)
    assert len(re.findall(rb'(?m)^ARC-Seal:', again)) == 2
    assert '<fail> <i=2 (cv)>' in m.log()


def test_unverified_chain_is_not_vouched_for(hops, keys):
    """No `verify = arc`, no arc= in a header of ours: cv=fail."""
    m, through = hops(acl='check_data:\n  accept add_header = :at_start:Authentication-Results: us.ex; spf=none\n')
    assert through(seal(keys, MESSAGE)).startswith(b'ARC-Seal: i=2; cv=fail;')


@pytest.mark.parametrize('option, line', [
    ('us.ex : : @KEYS@/r', 'ARC: no selector in arc_sign'), ('us.ex : r : @KEYS@/r : bogus', 'unknown option "bogus" for arc_sign'),
    ('us.ex : r : @KEYS@/r : expire=+x', 'unknown option'), ('us.ex : r : /nonexistent', 'unable to open file'),
    ('elsewhere.ex : r : @KEYS@/r', 'ARC: no usable Authentication-Results header for signing'), ('${if}', 'failed to expand arc_sign'), ('${if eq{1}{1}{}}', '')])
def test_trouble_leaves_it_unsealed(hops, option, line):
    m, through = hops(option, allow_panic='ARC')
    assert b'ARC-Seal' not in through(MESSAGE) and line in m.log()


def test_strict_waits_for_the_key(hops, keys):
    m, _ = hops('us.ex : r : /nonexistent : strict,timestamps', allow_panic='ARC')
    m.run('-odq', '-f', 'u@a.ex', 'v@relay.test', input=b'Authentication-Results: us.ex; spf=pass\r\n' + MESSAGE)
    ident = re.search(r'(\S+) <= ', m.log())[1]
    m.run('-qff')
    wait_for(lambda: f'{ident} == v@relay.test' in m.log(), m.logs)
    assert 'ARC: message could not be sealed, and "strict" is set' in m.log() and f'{ident} => ' not in m.log()


def test_others_may_not_speak_in_our_name(martlet):
    """control = remove_authresults"""
    m = martlet(daemon=False, main='acl_smtp_data = check_data', acl_rcpt='  accept', acl="""check_data:
  warn   control = remove_authresults/us.ex
  accept add_header = :at_start:Authentication-Results: us.ex; none
""")
    claims = [b'us.ex; spf=pass', b'US.EX 1; dkim=pass', b' us.ex(really);\r\n\tspf=pass', b'other.ex; spf=pass (us.ex; spf=pass)', b'us.ex.other.ex; none', b'(a; b) us.ex (c) 1 (d) ; spf=pass', b'"us.ex"; spf=pass', b'"u\\s.ex"; spf=pass', b'us.ex']
    message = b''.join(b'authentication-results: ' + x + b'\r\n' for x in claims) + MESSAGE
    judged(m, message)
    out = m.run('-Mvc', re.search(r'(\S+) <= ', m.log())[1])
    assert re.findall(r'(?im)^Authentication-Results:\s*(\S+?)[;( ]', out) == ['us.ex', 'other.ex', 'us.ex.other.ex'], out
