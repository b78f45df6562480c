"""DCC: dccifd's protocol against a server of the tests (F05), the condition, header lines, failover, bad answers."""

import re

import pytest

from support import scanners
from support.martlet import ID
from support.smtp import Client
from support.util import free_port, wait_for

pytestmark = pytest.mark.plain

ACL = """
data:
  accept senders = last@b.test
  warn   set acl_m_dcc_override_client_ip = ${{if eq{{$sender_address_local_part}}{{pool}}{{192.0.2.77}}{{{override}}}}}
         set acl_m_dcc_add_header = {added}
  accept senders = *@lenient.test
         dcc = */defer_ok
         logwrite = lenient <$dcc_result>
  accept dcc = *
         logwrite = true <$dcc_result> <$dcc_recipients> <$dcc_header>
  accept condition = ${{if eq{{$dcc_result}}{{R}}}}
         logwrite = false <$dcc_result>
  defer  message = greylisted $dcc_result
"""


def dccifd(text):
    def answer(c):
        c.all()
        c.send(text)
    return answer


@pytest.fixture
def asking(steady):
    def start(address, main='', override='', added='', **kw):
        return steady(main=f'acl_smtp_data = data\ndccifd_address = {address}\n{main}', acl=ACL.format(override=override, added=added),
                      allow_panic='dcc acl condition', **kw)
    return start


def send(m, sender='a@b.test', to=('u0@local.test',), text='Subject: x\r\n\r\nbody\r\n'):
    with Client(m.port, timeout=100) as c:
        c.ehlo()
        c.expect(250, f'MAIL FROM:<{sender}>')
        for r in to:
            c.expect(250, f'RCPT TO:<{r}>')
        c.expect(354, 'DATA')
        c.send(text + '.\r\n')
        return c.reply()


HEADER = 'X-DCC-Test-Metrics: mx.test 1; bulk Body=many\n\tFuz1=2\n'


@pytest.mark.parametrize('letter, code, log', [('A', 250, 'true <A>'), ('S', 250, 'true <S>'), ('R', 250, 'false <R>'), ('G', 451, None), ('T', 451, None)])
@pytest.mark.parametrize('unix', [False, True], ids=['inet', 'unix'])
def test_answers(asking, stub, letter, code, log, unix):
    server = stub(dccifd(f'{letter}\nAAR\n{HEADER}'), unix)
    m = asking(server.address)
    got = send(m, to=('u0@local.test', 'u1@local.test', 'u2@local.test'))
    assert got[0] == code, m.logs()
    if log:
        assert log in m.log()
    if letter == 'A':
        assert '<AAR> <X-DCC-Test-Metrics: mx.test 1; bulk Body=many\\n\tFuz1=2>' in m.log()
    if letter == 'G':
        assert got[1] == 'greylisted G'
    request = server.requests[0]
    head, content = request.split(b'\n\n', 1)
    assert head == b'header\n127.0.0.1\nclient.test\na@b.test\nu0@local.test\nu1@local.test\nu2@local.test'
    assert content.startswith(b'Received: ') and content.endswith(b'Subject: x\n\nbody\n')


@pytest.mark.parametrize('direct', ['', 'dcc_direct_add_header\n'], ids=['end', 'direct'])
def test_headers(asking, stub, direct):
    server = stub(dccifd('A\nA\n' + HEADER))
    m = asking(server.address, direct, added='X-Own: one\\n two')
    assert send(m, text='X-DCC-test-metrics: forged\r\nSubject: x\r\n\r\nbody\r\n')[0] == 250
    mail = m.wait_mail('u0')[0]
    text = mail if isinstance(mail, str) else mail.decode() if isinstance(mail, bytes) else str(mail)
    assert text.count('X-DCC-Test-Metrics: mx.test 1; bulk Body=many\n\tFuz1=2\n') == 1 and 'forged' not in text
    assert 'X-Own: one\n two\n' in text


def test_a_header_that_would_split_the_message(asking, stub):
    server = stub(dccifd('A\nA\nX-DCC-A: b\n\nbody\n'))
    m = asking(server.address, added='X-A: b\\n\\nbody')
    assert send(m)[0] == 250
    assert 'is not a header line, not added' in m.log() and 'true <A> <A> <>' in m.log()
    assert 'X-A:' not in str(m.wait_mail('u0')[0])


def test_recipients_in_order(martlet, stub):
    server = stub(dccifd('S\nARA\n'))
    m = martlet(main=f'acl_smtp_data = data\ndccifd_address = {server.address}\nsmtputf8_advertise_hosts = *\n', acl_rcpt='accept',
                acl=ACL.format(override='', added=''), routers='all:\n  driver = redirect\n  data = :blackhole:\n')
    with Client(m.port, timeout=100) as c:
        c.ehlo()
        c.expect(250, 'MAIL FROM:<a@b.test> SMTPUTF8')
        for r in ('u0', 'f\u00fcr', 'u1'):
            c.send(f'RCPT TO:<{r}@local.test>\r\n'.encode())
            assert c.reply()[0] == 250
        c.expect(354, 'DATA')
        c.send('Subject: x\r\n\r\nbody\r\n.\r\n')
        assert c.reply()[0] == 250
    assert 'true <S> <ARA>' in m.log()
    assert server.requests[0].split(b'\n\n')[0].split(b'\n')[4:] == [b'u0@local.test', 'f\u00fcr@local.test'.encode(), b'u1@local.test']


def test_each_recipient_alone(martlet, stub):
    """With PRDR the letter is that recipient's, also when an earlier one was refused before dccifd was asked; one question for all."""
    server = stub(dccifd(f'S\nAARG\n{HEADER}'))
    m = martlet(main=f'acl_smtp_data = data\nacl_smtp_data_prdr = each\nprdr_enable\ndccifd_address = {server.address}\n', acl='''
data:
  accept dcc = *
         logwrite = all <$dcc_result>
each:
  deny   local_parts = u1
         message = not u1
  defer  !dcc = *
         condition = ${if eq{$dcc_result}{G}}
         message = greylisted
  deny   !dcc = *
         message = bulk $dcc_result
  accept logwrite = fine <$dcc_result>
''')
    with Client(m.port, timeout=100) as c:
        c.ehlo()
        c.expect(250, 'MAIL FROM:<a@b.test> PRDR')
        for r in ('u1', 'u0', 'u2', 'u3'):
            c.expect(250, f'RCPT TO:<{r}@local.test>')
        c.expect(354, 'DATA')
        c.send('Subject: x\r\n\r\nbody\r\n.\r\n')
        assert [c.reply() for _ in range(6)][1:5] == [(550, 'not u1'), (250, 'PRDR R=<u0@local.test> acceptance'), (550, 'bulk R'), (450, 'greylisted')]
    assert 'fine <A>' in m.log() and 'all <S>' in m.log() and len(server.requests) == 1
    assert str(m.wait_mail('u0')[0]).count('X-DCC-Test-Metrics') == 1


def test_header_in_the_spool(martlet, stub):
    server = stub(dccifd('A\nA\n' + HEADER))
    m = martlet(main=f'acl_smtp_data = data\ndccifd_address = {server.address}\nqueue_only\n', acl=ACL.format(override='', added=''))
    assert send(m)[0] == 250
    header = m.run('-Mvh', re.search(ID, str(wait_for(m.queue, 'the queue'))).group(0))
    assert re.search(r'^\d+  X-DCC-Test-Metrics: mx.test 1; bulk Body=many$', header, re.M)
    m.run('-qff')


def test_client_address(asking, stub):
    server = stub(dccifd('A\nA\n'))
    m = asking(server.address, override='what', main='dccifd_options = header spam\n')
    assert send(m, 'pool@b.test')[0] == 250 and send(m)[0] == 250
    assert server.requests[0].startswith(b'header spam\n192.0.2.77\n') and server.requests[1].startswith(b'header spam\n127.0.0.1\n')
    assert 'is not an IP address: "what"' in m.log()


def test_failover(asking, stub):
    down, good = f'127.0.0.1 {free_port()}', stub(dccifd('A\nA\n'))
    m = asking(f'/nonexistent : {down} : {good.address}')
    assert send(m)[0] == 250 and 'unable to connect to UNIX socket (/nonexistent)' in m.log()
    m = asking(f'/nonexistent : {down}')
    assert send(m)[0] == 451 and send(m, 'a@lenient.test')[0] == 250 and 'lenient <>' in m.log()


@pytest.mark.parametrize('answer', [scanners.close, scanners.garbage, scanners.flood, dccifd('Q\n'), dccifd(''), dccifd('AA\nA\n'), dccifd('A\nXYZ\n'),
                                    dccifd('A\nA\nX-DCC: ' + 'x' * 1000000 + '\n')],
                         ids=['close', 'garbage', 'flood', 'unknown', 'empty', 'two-letters', 'bad-letters', 'long-header'])
def test_bad_answers(asking, stub, answer):
    m = asking(stub(answer).address)
    assert send(m)[0] == 451
    assert 'dcc acl condition' in m.log('panic')
    assert send(m, 'a@lenient.test')[0] == 250


@pytest.mark.parametrize('address', ['127.0.0.1 70000', 'localhost 6277', '127.0.0.1', 'path', '127.0.0.1 x', '/a : b'])
def test_bad_addresses(martlet, address):
    m = martlet(daemon=False, main=f'dccifd_address = {address}\n')
    done = m.run('-bV', check=False)
    assert done.returncode != 0 and 'dccifd_address' in done.stdout
