"""DMARC: policies by the tree walk of RFC 9989 and by a list of public suffixes (RFC 7489), alignment, trouble, the history file."""
import base64
import os
import re
import subprocess

import pytest

from support.util import read, write

pytestmark = [pytest.mark.plain, pytest.mark.root]

ACLS = """
check_data:
  warn dmarc_status = !off
  accept logwrite = dmarc <$dmarc_status> <$dmarc_used_domain> <$dmarc_domain_policy> <$dmarc_alignment_spf$dmarc_alignment_dkim>
         add_header = ${authresults{us.ex}}
"""
MAIN = 'acl_smtp_data = check_data\nlog_selector = +dmarc +dmarc_verbose\n'

RECORDS = {
    'p.ex': 'v=DMARC1; p=reject', 'q.ex': 'v=DMARC1;p=quarantine; sp=none', 'n.ex': 'v=DMARC1; p=none; rua=mailto:x@n.ex',
    'strict.ex': 'v=DMARC1; p=reject; adkim=s; aspf=s', 'nop.ex': 'v=DMARC1; rua=mailto:x@nop.ex', 'bare.ex': 'v=DMARC1',
    'late.ex': 'p=reject; v=DMARC1', 'lower.ex': 'v=dmarc1; p=reject', 'test.ex': 'v=DMARC1; p=reject; t=y',
    'np.ex': 'v=DMARC1; p=none; sp=quarantine; np=reject', 'exists.np.ex': None,
    'psd.ex': 'v=DMARC1; p=reject; psd=y', 'own.psd.ex': 'v=DMARC1; p=quarantine', 'island.p.ex': 'v=DMARC1; p=reject; psd=n',
    'odd.ex': 'v=DMARC1; x-new=1; p=reject; ; junk; pct=0', 'wsp.ex': 'v = DMARC1 ; p = reject ',
}


@pytest.fixture(scope='module')
def key(tmp_path_factory):
    pem = tmp_path_factory.mktemp('keys') / 'k'
    subprocess.run(['openssl', 'genpkey', '-out', pem, '-algorithm', 'RSA', '-pkeyopt', 'rsa_keygen_bits:1024'], check=True, capture_output=True)
    public = subprocess.run(['openssl', 'pkey', '-in', pem, '-pubout', '-outform', 'DER'], check=True, capture_output=True).stdout
    return pem.read_bytes(), base64.b64encode(public).decode()


@pytest.fixture
def receiving(martlet, nameserver, key):
    for domain, text in RECORDS.items():
        if text:
            nameserver.add(f'_dmarc.{domain}', 'TXT', text)
    nameserver.add('_dmarc.two.ex', 'TXT', 'v=DMARC1; p=reject', 'v=DMARC1; p=none').add('_dmarc.mixed.ex', 'TXT', 'v=spf1 -all', 'v=DMARC1; p=reject')
    nameserver.add('exists.np.ex', 'A', '192.0.2.9')
    nameserver.trouble['_dmarc.again.ex'] = 'SERVFAIL'
    for domain in ('p.ex', 'mail.p.ex', 'q.ex', 'strict.ex', 'mail.strict.ex', 'other.ex', 'island.p.ex', 'a.psd.ex', 'psd.ex', 'x.a.psd.ex'):
        nameserver.add(domain, 'TXT', 'v=spf1 ip4:192.0.2.1 -all')
        nameserver.add(f'k._domainkey.{domain}', 'TXT', 'v=DKIM1; p=' + key[1])

    def start(main='', **kw):
        return martlet(resolver=nameserver.address, daemon=False, acl=ACLS, main=MAIN + main, **kw)
    return start


def message(author, key=None, signer=None):
    text = b'From: %s\r\nSubject: x\r\n\r\nbody\r\n' % author.encode()
    if signer:
        dkim = pytest.importorskip('dkim')
        text = dkim.sign(text, b'k', signer.encode(), key[0], include_headers=[b'from']) + text
    return text


def judged(m, *mails):
    """mails: (envelope sender, message)"""
    text = b''.join(b'MAIL FROM:<%s>\r\nRCPT TO:<u0@local.test>\r\nDATA\r\n%s.\r\n' % (s.encode(), x) for s, x in mails)
    m.run('-odq', '-bs', '-oMa', '192.0.2.1', input=b'EHLO h.ex\r\n' + text + b'QUIT\r\n')
    got = [line.split(' dmarc ', 1)[1] for line in m.log().split('\n') if ' dmarc <' in line]
    assert len(got) == len(mails), m.logs()
    return got


# author, envelope sender, DKIM signer, result by the tree walk
WALK = [
    ('u@p.ex', 'b@p.ex', None, '<accept> <p.ex> <reject> <yesno>'),
    ('u@p.ex', 'b@mail.p.ex', None, '<accept> <p.ex> <reject> <yesno>'),
    ('u@mail.p.ex', 'b@p.ex', None, '<accept> <p.ex> <reject> <yesno>'),
    ('u@P.EX', 'b@other.ex', 'p.ex', '<accept> <p.ex> <reject> <noyes>'),
    ('u@p.ex', 'b@other.ex', 'mail.p.ex', '<accept> <p.ex> <reject> <noyes>'),
    ('u@p.ex', 'b@other.ex', 'other.ex', '<reject> <p.ex> <reject> <nono>'),
    ('u@p.ex', 'b@island.p.ex', 'island.p.ex', '<reject> <p.ex> <reject> <nono>'),
    ('u@island.p.ex', 'b@p.ex', None, '<reject> <island.p.ex> <reject> <nono>'),
    ('u@sub.q.ex', '', None, '<none> <q.ex> <none> <nono>'),
    ('u@q.ex', '', None, '<quarantine> <q.ex> <quarantine> <nono>'),
    ('u@n.ex', '', None, '<none> <n.ex> <none> <nono>'),
    ('u@strict.ex', 'b@mail.strict.ex', 'mail.strict.ex', '<reject> <strict.ex> <reject> <nono>'),
    ('u@strict.ex', 'b@strict.ex', None, '<accept> <strict.ex> <reject> <yesno>'),
    ('u@nop.ex', '', None, '<none> <nop.ex> <none> <nono>'),
    ('u@bare.ex', '', None, '<none> <bare.ex> <none> <nono>'),
    ('u@late.ex', '', None, '<norecord> <> <> <nono>'),
    ('u@lower.ex', '', None, '<norecord> <> <> <nono>'),
    ('u@two.ex', '', None, '<norecord> <> <> <nono>'),
    ('u@mixed.ex', '', None, '<reject> <mixed.ex> <reject> <nono>'),
    ('u@test.ex', '', None, '<quarantine> <test.ex> <quarantine> <nono>'),
    ('u@missing.np.ex', '', None, '<reject> <np.ex> <reject> <nono>'),
    ('u@exists.np.ex', '', None, '<quarantine> <np.ex> <quarantine> <nono>'),
    ('u@a.psd.ex', 'b@x.a.psd.ex', None, '<accept> <psd.ex> <reject> <yesno>'),
    ('u@a.psd.ex', 'b@psd.ex', 'psd.ex', '<reject> <psd.ex> <reject> <nono>'),
    ('u@own.psd.ex', 'b@a.psd.ex', None, '<quarantine> <own.psd.ex> <quarantine> <nono>'),
    ('u@odd.ex', '', None, '<reject> <odd.ex> <reject> <nono>'),
    ('u@wsp.ex', '', None, '<reject> <wsp.ex> <reject> <nono>'),
    ('u@again.ex', '', None, '<temperror> <> <> <nono>'),
    ('u@a.b.c.d.e.f.g.h.i.j.p.ex', '', None, '<reject> <p.ex> <reject> <nono>'),
    ('nobody', '', None, '<nofrom> <> <> <nono>'),
    ('u@p.ex, v@q.ex', '', None, '<nofrom> <> <> <nono>'),
    ('u@p.ex, v@P.ex', '', None, '<reject> <p.ex> <reject> <nono>'),
    ('"a@b" <u@p.ex>', '', None, '<reject> <p.ex> <reject> <nono>'),
    ('u@nothing.ex', '', None, '<norecord> <> <> <nono>'),
]


def test_tree_walk(receiving, key):
    got = judged(receiving(), *[(sender, message(author, key, signer)) for author, sender, signer, _ in WALK])
    assert [(w, g) for w, g in zip(WALK, got) if w[3] != g] == []


# the same with a list of public suffixes; b.ex is one
LIST = [
    ('u@p.ex', 'b@mail.p.ex', None, '<accept> <p.ex> <reject> <yesno>'),
    ('u@x.y.q.ex', '', None, '<none> <q.ex> <none> <nono>'),
    ('u@p.ex', 'b@island.p.ex', None, '<accept> <p.ex> <reject> <yesno>'),
    ('u@nop.ex', '', None, '<none> <nop.ex> <none> <nono>'),
    ('u@bare.ex', '', None, '<norecord> <> <> <nono>'),
    ('u@missing.np.ex', '', None, '<quarantine> <np.ex> <quarantine> <nono>'),
    ('u@test.ex', '', None, '<reject> <test.ex> <reject> <nono>'),
    ('u@again.ex', '', None, '<temperror> <> <> <nono>'),
    ('u@a.psd.ex', 'b@psd.ex', None, '<reject> <a.psd.ex>'),
]


def test_public_suffixes_and_history(receiving, key):
    m = receiving('dmarc_tld_file = @DIR@/suffixes\ndmarc_history_file = @DIR@/spool/history\n')
    write(os.path.join(m.directory, 'suffixes'), 'ex\npsd.ex\n')
    got = judged(m, *[(sender, message(author, key, signer)) for author, sender, signer, _ in LIST[:-1]])
    assert [(w, g) for w, g in zip(LIST, got) if w[3] != g] == []
    jobs = read(os.path.join(m.directory, 'spool', 'history')).split('job ')[1:]
    assert len(jobs) == len(LIST) - 1
    first = dict(line.split(' ', 1) for line in jobs[0].split('\n')[1:-1])
    assert first['from'] == 'p.ex' and first['mfrom'] == 'mail.p.ex' and first['spf'] == '0' and first['policy'] == '15' and first['p'] == '114'
    assert first['pdomain'] == 'p.ex' and first['align_spf'] == '4' and first['align_dkim'] == '5' and first['adkim'] == '114' and first['action'] == '2'
    assert 'rua mailto:x@nop.ex' in jobs[3] and 'policy 14' in jobs[4] and 'ipaddr 192.0.2.1' in jobs[4]


def test_results_and_log(receiving, key):
    m = receiving()
    judged(m, ('b@p.ex', message('u@p.ex')), ('', message('u@p.ex')), ('', message('u@nothing.ex')))
    log = m.log()
    assert re.search(r'<= b@p.ex .* DMARC($|\s)', log) and ' DMARC=reject' in log and ' DMARC=norecord' in log
    assert "DMARC results: spf_domain=p.ex dmarc_domain=p.ex spf_align=yes dkim_align=no enforcement='Accept'" in log
    heads = [m.run('-Mvh', i) for i in re.findall(r'(\S+) <= ', log)]
    assert 'dmarc=pass header.from=p.ex' in heads[0] and 'dmarc=fail header.from=p.ex' in heads[1] and 'dmarc=none header.from=nothing.ex' in heads[2]


@pytest.mark.parametrize('main', ['dmarc_tld_file =', ''])
def test_off(receiving, main):
    m = receiving(main, acl_rcpt='' if main else '  warn control = dmarc_disable_verify')
    assert judged(m, ('', message('u@p.ex'))) == ['<off> <> <> <nono>']
    assert 'dmarc=' not in m.run('-Mvh', re.search(r'(\S+) <= ', m.log()).group(1)) and ' DMARC' not in m.log()


def test_wrong_settings(receiving):
    m = receiving('dmarc_tld_file = /nonexistent', allow_panic='public suffixes')
    assert judged(m, ('', message('u@p.ex'))) == ['<temperror> <> <> <nono>']


def test_odd_lists(receiving, scratch):
    """An empty list of suffixes, and one that is not text."""
    for name, text in (('empty', b''), ('comments', b'// nothing\n\n')):
        write(os.path.join(scratch, name), text.decode())
        os.chmod(os.path.join(scratch, name), 0o644)
        m = receiving(f'dmarc_tld_file = {scratch}/{name}', allow_panic='public suffixes')
        assert judged(m, ('', message('u@p.ex'))) == ['<temperror> <> <> <nono>']
    with open(os.path.join(scratch, 'odd'), 'wb') as f:
        f.write(b'\xff\xfe\x00\xe9*.\n!.\n' + bytes(range(256)) + b'\nex\n*.\xc3\xa9\n' + b'a' * 100000 + b'\n')
    os.chmod(os.path.join(scratch, 'odd'), 0o644)
    m = receiving(f'dmarc_tld_file = {scratch}/odd', allow_panic='public suffixes')
    assert judged(m, ('', message('u@p.ex')))[0].split('>')[0] in ('<reject', '<temperror')


def test_hostile(receiving, nameserver):
    nameserver.add('_dmarc.big.ex', 'TXT', 'v=DMARC1; p=reject; ' + 'x=' + 'y' * 200)
    many = ', '.join(f'u{n}@p.ex' for n in range(2000))
    got = judged(receiving(), ('', message('u@big.ex')), ('', message(many)), ('', message('u@' + 'a.' * 120 + 'p.ex')), ('', message('(' * 1000 + 'u@p.ex')))
    assert got[0].startswith('<reject> <big.ex>') and got[1].startswith('<nofrom>') and got[3].startswith('<nofrom>')
    assert got[2].startswith('<reject> <p.ex>') or got[2].startswith('<nofrom>')
