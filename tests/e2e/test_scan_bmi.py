"""Brightmail's verdicts (F01): providers with lines and Rspamd, opt-in data, routers, the spool, trouble."""
import base64
import json
import re

import pytest

from support import scanners
from support.scanners import GTUBE, Rspamd
from support.martlet import ID
from support.smtp import Client
from support.util import wait_for, write

pytestmark = pytest.mark.plain

RUN = """
  accept domains = +local_domains
         bmi_optin = ${if eq{$local_part}{u1}{spam:phish}{${if eq{$local_part}{u2}{a,b}{}}}}
         control = bmi_run@OPTION@
"""
ROUTERS = """
aliases:
  driver = redirect
  local_parts = u3
  data = ${if eq{$local_part}{u3}{u4@local.test,u5@local.test}}

drop:
  driver = redirect
  bmi_dont_deliver
  data = :blackhole:

rule:
  driver = accept
  bmi_rule = 7 : 8
  headers_add = X-Rules: $bmi_rules <$bmi_base64_tracker_verdict>
  transport = maildir
  local_parts = lsearch;@DIR@/users

junk:
  driver = accept
  bmi_deliver_alternate
  headers_add = $bmi_alt_location
  transport = maildir
  local_parts = lsearch;@DIR@/users

plain:
  driver = accept
  bmi_deliver_default
  headers_add = X-Plain: $bmi_deliver <$bmi_base64_verdict> <$bmi_rules>
  transport = maildir
  local_parts = lsearch;@DIR@/users
"""


def b64(text):
    return base64.b64encode(text.encode()).decode()


def lines(answer):
    """A provider that speaks F01's lines; its requests: (lines, data)."""
    def serve(c):
        head = line = b''
        while not line.startswith(b'DATA '):
            line = c.until(b'\n')
            head += line
        n = int(head.split(b'\n')[-2].split()[1])
        c.stub.requests[:] = [x for x in c.stub.requests if isinstance(x, tuple)] + [(head.decode(), c.exactly(n))]
        c.send(answer)
    return serve


@pytest.fixture
def judged(martlet):
    def start(provider, option='', **kw):
        return martlet(main=f'bmi_config_file = {provider}\nlog_selector = +bmi\n' + kw.pop('main', ''), acl_rcpt=RUN.replace('@OPTION@', option),
                       routers=ROUTERS, allow_panic='BMI:', **kw)
    return start


def send(m, *to, text='Subject: x\r\n\r\nbody\r\n', expect=250):
    with Client(m.port, timeout=100) as c:
        c.ehlo()
        c.expect(250, 'MAIL FROM:<a@b.test>')
        for r in to:
            c.expect(250, f'RCPT TO:<{r}@local.test>')
        c.expect(354, 'DATA')
        c.send(text + '.\r\n')
        code, answer = c.reply()
        assert code == expect, (answer, m.logs())


THREE = (f'VERDICT 1 deliver rules= loc= verdict={b64("fine")} tracker=\nVERDICT 2 alternate rules=5 loc={b64("X-Junk: yes")} verdict={b64("junk")} tracker={b64("t")}\n'
         f'VERDICT 3 drop rules=9,10 loc= verdict= tracker=\nDONE\n')


@pytest.mark.parametrize('unix', [False, True], ids=['inet', 'unix'])
def test_verdicts(judged, stub, unix):
    server = stub(lines(THREE), unix)
    m = judged(f'unix:{server.path}' if unix else f'inet:127.0.0.1:{server.port}')
    send(m, 'u0', 'u1', 'u2')
    assert f'X-Plain: 1 <{b64("fine")}> <>' in str(m.wait_mail('u0')[0])
    assert 'X-Junk: yes' in str(m.wait_mail('u1')[0])
    m.wait_log('=> :blackhole: <u2@local.test> R=drop')
    assert 'BMI=deliver,alternate,drop' in m.log()
    head, data = server.requests[0]
    assert head == ('BMI/1\nHELO client.test\nCLIENT 127.0.0.1\nFROM <a@b.test>\nRCPT <u0@local.test>\nRCPT <u1@local.test> spam,phish\n'
                    f'RCPT <u2@local.test> a,b\nDATA {len(data)}\n')
    assert data.startswith(b'Received: ') and data.endswith(b'Subject: x\n\nbody\n')


def test_rules_and_children(judged, stub):
    server = stub(lines(f'VERDICT 1,2 deliver rules=8 loc= verdict= tracker={b64("rules")}\nVERDICT 3 drop rules= loc= verdict= tracker=\nDONE\n'))
    m = judged(f'inet:127.0.0.1:{server.port}')
    send(m, 'u0', 'u1', 'u3')
    for user in ('u0', 'u1'):
        assert f'X-Rules: 8 <{b64("rules")}>' in str(m.wait_mail(user)[0])
    m.wait_log(r'=> :blackhole: <u4@local.test> R=drop')
    m.wait_log(r'=> :blackhole: <u5@local.test> R=drop')


def test_children_that_become_recipients(martlet, stub):
    """one_time: the message forgets the alias, not its verdict."""
    server = stub(lines(f'VERDICT 1 alternate loc={b64("X-Junk: yes")}\nDONE\n'))
    hold = 'hold:\n  driver = redirect\n  local_parts = u5\n  condition = ${if exists{@DIR@/go}{no}{yes}}\n  data = :defer: not yet\n\ndrop:'
    m = martlet(main=f'bmi_config_file = inet:127.0.0.1:{server.port}\n', acl_rcpt=RUN.replace('@OPTION@', ''),
                routers=ROUTERS.replace('  local_parts = u3\n', '  local_parts = u3\n  one_time\n').replace('drop:', hold, 1), retry='* * F,1d,1s')
    send(m, 'u3')
    assert 'X-Junk: yes' in str(m.wait_mail('u4')[0])
    m.wait_log('== u5@local.test')
    (ident,) = wait_for(m.queue, 'the queue')
    wait_for(lambda: re.search(r'^u5@local\.test', m.run('-Mvh', ident), re.M), m.logs)
    write(f'{m.directory}/go', '')
    wait_for(lambda: m.run('-qff') or m.mail('u5'), m.logs)
    assert 'X-Junk: yes' in str(m.mail('u5')[0])


def test_kept_in_the_spool(judged, stub):
    server = stub(lines(THREE))
    m = judged(f'inet:127.0.0.1:{server.port}', main='queue_only\n', arguments=[])
    send(m, 'u0', 'u1', 'u2')
    found = wait_for(m.queue, 'the queue')
    header = m.run('-Mvh', re.search(ID, str(found)).group(0))
    assert len(re.findall(r'^--?bmi_verdicts \S+$', header, re.M)) == 1
    m.run('-qff')
    assert 'X-Junk: yes' in str(m.wait_mail('u1')[0]) and 'X-Plain: 1' in str(m.wait_mail('u0')[0])
    m.wait_log('=> :blackhole: <u2@local.test> R=drop')
    assert len(server.requests) == 1


def test_message_of_a_local_user(judged, stub):
    """acl_not_smtp may ask, too."""
    server = stub(lines('VERDICT 1 drop\nDONE\n'))
    m = judged(f'inet:127.0.0.1:{server.port}', main='acl_not_smtp = own\n', acl='own:\n  accept control = bmi_run\n')
    m.run('-odi', '-f', 'a@b.test', 'u0@local.test', input='Subject: x\n\nbody\n')
    m.wait_log('=> :blackhole: <u0@local.test> R=drop')
    assert 'RCPT <u0@local.test>\nDATA' in server.requests[0][0]


def test_recipients_that_prdr_refused_are_not_judged(judged, stub):
    server = stub(lines('VERDICT 1 deliver\nVERDICT 2 drop\nDONE\n'))
    m = judged(f'inet:127.0.0.1:{server.port}', main='prdr_enable\nacl_smtp_data_prdr = each\n', acl='each:\n  deny local_parts = u1\n  accept\n')
    with Client(m.port, timeout=100) as c:
        c.ehlo()
        c.expect(250, 'MAIL FROM:<a@b.test> PRDR')
        for r in ('u0', 'u1', 'u2'):
            c.expect(250, f'RCPT TO:<{r}@local.test>')
        c.expect(354, 'DATA')
        c.send('Subject: x\r\n\r\nbody\r\n.\r\n')
        assert [c.reply()[0] for _ in range(5)] == [353, 250, 550, 250, 250]
    m.wait_mail('u0')
    m.wait_log('=> :blackhole: <u2@local.test> R=drop')
    assert 'u1@' not in server.requests[0][0]


def test_not_run_is_not_asked(martlet, stub):
    server = stub(lines(THREE))
    m = martlet(main=f'bmi_config_file = inet:127.0.0.1:{server.port}\n', routers=ROUTERS)
    send(m, 'u0')
    assert 'X-Plain: 1 <> <>' in str(m.wait_mail('u0')[0]) and not server.requests


BAD = {'index': 'VERDICT 9 deliver rules= loc= verdict= tracker=\nDONE\n', 'base64': 'VERDICT 1 alternate rules= loc=YW= verdict= tracker=\nDONE\n',
       'no-done': THREE.replace('DONE\n', ''), 'words': 'VERDICT 1 explode\nDONE\n', 'rules': 'VERDICT 1 deliver rules=x\nDONE\n', 'empty': '',
       'unknown': 'HELLO\nDONE\n'}


@pytest.mark.parametrize('answer', [lines(t) for t in BAD.values()] + [scanners.close, scanners.garbage, scanners.flood],
                         ids=list(BAD) + ['close', 'garbage', 'flood'])
def test_trouble(judged, stub, answer):
    server = stub(answer)
    m = judged(f'inet:127.0.0.1:{server.port}')
    send(m, 'u0')
    assert 'X-Plain: 1 <> <>' in str(m.wait_mail('u0')[0]) and 'message accepted without verdicts' in m.log('panic')
    m = judged(f'inet:127.0.0.1:{server.port}', '/defer_on_error')
    send(m, 'u0', expect=451)


def test_down(judged):
    m = judged('unix:/nonexistent')
    send(m, 'u0')
    assert 'BMI: unable to connect to UNIX socket (/nonexistent)' in m.log('panic')
    send(judged('/opt/brightmail/etc/x'), 'u0')


def rspamd(actions):
    """Answers by the first recipient."""
    def serve(c):
        head = c.until(b'\r\n\r\n').decode()
        c.exactly(int(re.search(r'Content-Length: (\d+)', head).group(1)))
        who = re.search(r'Rcpt: (\w+)', head).group(1)
        body = json.dumps({'score': 1.5, 'required_score': 15.0, 'action': actions[who], 'symbols': {'A': {'name': 'A', 'score': 1}, 'B': {}}})
        c.send(f'HTTP/1.1 200 OK\r\nContent-Length: {len(body)}\r\n\r\n{body}')
    return serve


def test_rspamd_protocol(judged, stub):
    server = stub(rspamd({'u0': 'no action', 'u1': 'add header', 'u2': 'reject'}))
    m = judged(f'rspamd:http://127.0.0.1:{server.port}')
    send(m, 'u0', 'u1', 'u2', 'u6')
    assert f'<{b64("action=no action score=1.5 required_score=15.0")}>' in str(m.wait_mail('u0')[0])
    assert 'X-Rspamd-Action: add header' in str(m.wait_mail('u1')[0])
    m.wait_mail('u6')
    m.wait_log('=> :blackhole: <u2@local.test> R=drop')
    assert len(server.requests) == 3  # u0 and u6 have the same opt-in data
    heads = [r.decode() for r in server.requests]
    assert any('Rcpt: u0@local.test\r\nRcpt: u6@local.test\r\n' in h and 'Settings-ID' not in h for h in heads)
    assert any('Settings-ID: spam,phish' in h for h in heads)


def test_real_rspamd(judged, make):
    if Rspamd.missing():
        pytest.skip('rspamd is not installed')
    server = make(Rspamd)
    m = judged(f'rspamd:http://127.0.0.1:{server.port}')
    send(m, 'u0', text=f'Subject: x\r\n\r\n{GTUBE}\r\n')
    m.wait_log('=> :blackhole: <u0@local.test> R=drop')
    send(m, 'u6')
    m.wait_mail('u6')


@pytest.mark.parametrize('line', ['bmi_rule = 5:x'])
def test_bad_rule(martlet, line):
    m = martlet(daemon=False, routers=ROUTERS.replace('bmi_rule = 7 : 8', line))
    done = m.run('-bV', check=False)
    assert done.returncode != 0 and 'bmi_rule' in done.stdout


@pytest.mark.parametrize('file', ['relative', 'unix:relative', 'inet:host', 'rspamd:http://'])
def test_bad_provider(martlet, file):
    m = martlet(daemon=False, main=f'bmi_config_file = {file}\n')
    done = m.run('-bV', check=False)
    assert done.returncode != 0 and 'bmi_config_file' in done.stdout


# Statements of the RCPT and DATA ACLs: where bmi_run stands, as seen from the start of the cut-through.
PLACES = {
    'in front': ('  warn local_parts = x\n    control = bmi_run\n  warn control = cutthrough_delivery\n', ''),
    'behind': ('  warn control = cutthrough_delivery\n  warn control = bmi_run\n', ''),
    'second recipient': ('  warn control = cutthrough_delivery\n  warn local_parts = y\n    control = bmi_run\n', ''),
    'DATA': ('  warn control = cutthrough_delivery\n', '  warn control = bmi_run\n')}


@pytest.mark.parametrize('place', PLACES)
def test_no_cutthrough(martlet, smtp_server, stub, place):
    """Nothing is passed on before the verdict is there, and the one that is to be dropped is not passed on at all."""
    verdicts = stub(lines('VERDICT 1 deliver\nVERDICT 2 drop\nDONE\n'))
    next_host = smtp_server()
    rcpt, data = PLACES[place]
    m = martlet(smarthost=f'127.0.0.1::{next_host.port}', relay_to='relay.test', acl_rcpt=rcpt,
                main=f'bmi_config_file = inet:127.0.0.1:{verdicts.port}\nacl_smtp_data = data', acl=f'data:\n{data}  accept\n',
                routers='drop:\n  driver = redirect\n  bmi_dont_deliver\n  data = :blackhole:\n')
    with Client(m.port) as c:
        assert c.mail('a@b.test', 'x@relay.test', 'y@relay.test', data='Subject: x\r\n\r\nbody\r\n')[0] == 250
    m.wait_log(r' => x@relay\.test R=relay T=remote_smtp ')
    m.wait_log(r' => :blackhole: <y@relay\.test> R=drop')
    m.wait_empty()
    assert '>>' not in m.log() and len(next_host.messages) == 1 and len(verdicts.requests) == 1
    assert next_host.messages[0]['rcpt'] == ['<x@relay.test>'], next_host.messages
