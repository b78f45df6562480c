"""The condition spam: spamd's protocol and Rspamd's older one, lists of servers, what is kept of an answer, bad answers."""
import os
import re
import time

import pytest

from support import scanners
from support.smtp import Client
from support.util import free_port, write

pytestmark = pytest.mark.plain

ACL = """
data:
  warn   senders = *@lenient.test
         !spam = joe/defer_ok
         logwrite = lenient
  accept senders = *@lenient.test
  warn   condition = ${if eq{$sender_address_domain}{always.test}}
         spam = joe:true
         logwrite = always
  deny   spam = joe
         message = spam <$spam_score> <$spam_score_int> <$spam_bar> <$spam_action> <$callout_address>
  accept logwrite = ham <$spam_score> <$spam_score_int> <$spam_bar> <$spam_action> <${sg{$spam_report}{\\\\n}{/}}>
"""
LOOKUP = 'acl_smtp_data = data\nspamd_address = ${lookup{$sender_address_local_part}lsearch{@DIR@/servers}{$value}{none}}\n'


def spamd(text):
    def answer(c):
        c.all()
        c.send(text)
    return answer


def rspamd(text):
    def answer(c):
        head = c.until(b'\r\n\r\n')
        c.stub.requests.append(c.exactly(int(re.search(rb'Content-length: (\d+)', head).group(1))))
        c.send(text)
    return answer


HAM = 'SPAMD/1.1 0 EX_OK\r\nSpam: False ; %s / 5.0\r\n\r\n'
SPAM = 'SPAMD/1.1 0 EX_OK\r\nContent-length: 3\r\nSpam: True ; %s / 5.0\r\n\r\n'


@pytest.fixture
def scanning(steady):
    def start(**specs):
        m = steady(main=LOOKUP, acl=ACL, allow_panic='spam acl condition')
        last = scanners.Stub(spamd(HAM % '0.0'))
        write(os.path.join(m.directory, 'servers'), ''.join(f'{k}: {v}\n' for k, v in specs.items()) + f'last: {last.address}\n')
        return m
    return start


def send(m, sender):
    with Client(m.port, timeout=100) as c:
        return c.mail(sender, 'u0@local.test', data='Subject: x\r\n\r\nbody\r\n')


@pytest.mark.parametrize('answer, want', [
    (HAM % '4.5' + 'line 1\r\nline 2\n\nline 4\n \n', 'ham <4.5> <45> <++++> <no action> <line 1/ line 2/ / line 4>'),
    (HAM % '-3.99', 'ham <-4.0> <-39> <---> <no action> <>'), (HAM % '0.0', 'ham <0.0> <0> </> <no action> <>'),
    (HAM % '0.9', 'ham <0.9> <9> </> <no action> <>'), (SPAM % '15.26', 'spam <15.3> <152> <+++++++++++++++> <reject>'),
    (SPAM % '5.0', 'spam <5.0> <50> <+++++> <reject>'), (SPAM % '9000', f'spam <9000.0> <90000> <{"+" * 50}> <reject>')])
def test_scores(scanning, stub, answer, want):
    server = stub(spamd(answer))
    m = scanning(a=server.address)
    code, text = send(m, 'a@b.test')
    if want.startswith('spam'):
        assert (code, text.replace('\n', ' ')) == (550, f'{want} <[127.0.0.1]:{server.port}>')
    else:
        assert code == 250 and want in m.log()
    request = server.requests[-1]
    assert re.match(rb'REPORT SPAMC/1\.2\r\nUser: joe\r\nContent-length: (\d+)\r\n\r\nFrom MAILER-DAEMON ', request)
    head, content = request.split(b'\r\n\r\n', 1)
    assert int(head.rsplit(b' ', 1)[1]) == len(content) and content.endswith(b'Subject: x\n\nbody\n')
    assert send(m, 'a@always.test')[0] == code and 'always' in m.log()


def test_rspamd(scanning, stub):
    server = stub(rspamd('RSPAMD/1.3 0 EX_OK\r\nMetric: default; True; 12.40 / 15.00 / 16.00\r\nAction: add header\r\nSymbol: FOO\r\n'))
    m = scanning(a=server.address + ' variant=rspamd')
    assert send(m, 'a@b.test')[0] == 250
    assert 'ham <12.4> <124> <++++++++++++> <add header> <Action: add header/ Symbol: FOO>' in m.log()
    assert re.match(rb'CHECK RSPAMC/1\.3\r\nContent-length: \d+\r\nQueue-Id: \S+\r\nFrom: <a@b\.test>\r\nRecipient-Number: 1\r\n'
                    rb'Rcpt: <u0@local\.test>\r\nHelo: client\.test\r\n(Hostname: \S+\r\n)?IP: 127\.0\.0\.1\r\n\r\n$', server.requests[0])


def test_servers(scanning, stub):
    good, spam, unix = stub(spamd(HAM % '1.0')), stub(spamd(SPAM % '9.0')), stub(spamd(SPAM % '9.0'), unix=True)
    down = f'127.0.0.1 {free_port()}'
    hour = time.localtime().tm_hour
    other = f'{(hour + 2) % 24}-{(hour + 3) % 24}' if hour < 21 else '1-2'
    m = scanning(prefer=f'{good.address}:{spam.address} pri=2', weight=f'{good.address} weight=0:{spam.address} weight=5',
                 time=f'{good.address}:{spam.address} pri=9 time={other}', down=f'{down} pri=2 retry=1s tmo=5s:{spam.address}',
                 unix=f'{unix.address} pri=3 : {good.address}', alldown=down, bad=f'foo:{good.address} pri=x wrong:{good.address} variant=x tmo=y retry=z time=3',
                 none='foo', separator=f'<; 127.0.0.1 {spam.port} pri=2; ::1 1 pri=3')
    for name, code in (('prefer', 550), ('weight', 550), ('time', 250), ('down', 550), ('unix', 550), ('alldown', 451), ('bad', 250), ('none', 451),
                       ('separator', 550)):
        for _ in range(3):
            assert send(m, f'{name}@b.test')[0] == code, (name, m.logs())
    log = m.log()
    for text in ("invalid spamd address: 'foo'", "invalid spamd parameter: 'pri=x'", "invalid spamd parameter: 'wrong'", "invalid spamd parameter: 'variant=x'",
                 "invalid spamd timeout value: 'y'", "invalid spamd retry value: 'z'", "invalid spamd time value: '3'",
                 'spamd: failed to connect to any address for 127.0.0.1: Connection refused', 'all spamd servers failed', 'no useable spamd server addresses'):
        assert text in log, text


@pytest.mark.parametrize('variant', ['', ' variant=rspamd'], ids=['spamd', 'rspamd'])
def test_bad_servers(scanning, stub, variant):
    specs = {name: stub(getattr(scanners, name)).address + ' tmo=3s' + variant for name in ('close', 'garbage', 'flood', 'never')}
    for name, text in (('half', 'SPAMD/1.1 0 EX_OK\r\nSpam: Tr'), ('number', 'SPAMD/1.1 0 EX_OK\r\nSpam: True ; x / 5\r\n\r\n'),
                       ('refuses', 'SPAMD/1.0 76 Bad header line\r\n\r\n')) if not variant else (
                       ('half', 'RSPAMD/1.3 0 EX_OK\r\nMetric: def'), ('number', 'RSPAMD/1.3 0 EX_OK\r\nMetric: default; True; x / 5 / 6\r\n'),
                       ('refuses', 'RSPAMD/1.3 76 Bad header line\r\n\r\n')):
        specs[name] = stub((rspamd if variant else spamd)(text)).address + variant
    m = scanning(**specs)
    for name in specs:
        assert send(m, f'{name}@b.test')[0] == 451, name
        assert send(m, f'{name}@lenient.test')[0] == 250, name
    assert m.log().count(' lenient') == len(specs)


def test_kept_for_delivery_and_asked_once(martlet, stub):
    server = stub(spamd(HAM % '3.2' + 'the report\n'))
    m = martlet(main=f'acl_smtp_data = data\nspamd_address = {server.address}\n', acl="""
data:
  warn spam = joe
  warn spam = joe
  warn spam = 0
  warn spam = other
  accept
""", maildir='headers_add = X-Score: <$spam_score> <$spam_score_int> <$spam_bar> <$spam_action>\n')
    assert send(m, 'a@b.test')[0] == 250
    assert 'X-Score: <3.2> <32> <+++> <no action>' in str(m.wait_mail('u0')[0])
    assert len(server.requests) == 2
