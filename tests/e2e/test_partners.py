"""Mail goes to real partners: Dovecot's mailboxes (LMTP, Maildir), Debian's Exim and Postfix."""
import re

import pytest

from support.mailstore import MailStore
from support.util import maildir, wait_for

pytestmark = pytest.mark.root

TEXT = 'From: a@b.test\nSubject: to a partner\n\nfirst line\n.leading dot\n\nlast line\n'


@pytest.fixture
def store(make):
    if MailStore.program is None:
        pytest.skip('Dovecot is not installed')
    return lambda mail, user='nobody', **kw: make(MailStore, mail, user, **kw)


def whole(message):
    text = message.replace(b'\r\n', b'\n')
    return text.endswith(b'\n\nfirst line\n.leading dot\n\nlast line\n') and b'\nSubject: to a partner\n' in text


@pytest.mark.parametrize('how', ['socket', 'port'])
def test_lmtp_to_dovecot(martlet, store, how):
    s = store('maildir:~/Maildir')
    transport = (f'driver = lmtp\n  socket = {s.lmtp}' if how == 'socket' else
                 'driver = smtp\n  protocol = lmtp\n  allow_localhost\n  hosts_try_dane =')
    host = '' if how == 'socket' else f'  driver = manualroute\n  route_list = * 127.0.0.1::{s.lmtp_port}\n  self = send\n'
    m = martlet(daemon=False, relay_to='box.test', transports=f'box:\n  {transport}\n  batch_max = 10\n' if how == 'socket' else f'box:\n  {transport}\n',
                routers='box:\n' + (host or '  driver = accept\n') + '  domains = box.test\n  transport = box\n')
    m.run('-odi', '-f', 'a@b.test', 'u0@box.test', 'u1@box.test', 'nobody@box.test', input=TEXT)
    log = m.log()
    for user in ('u0', 'u1'):
        assert re.search(rf'[-=]> {user}(@box| <{user}@box)\.test.* T=box', log), log
        (got,) = s.fetch(user)
        assert whole(got), got
    assert re.search(r'\*\* nobody@box\.test .*550 5\.1\.1', log), log


def test_maildir_that_dovecot_reads(martlet, store):
    m = martlet(daemon=False)
    s = store(f'maildir:{m.directory}/mail/%n', user=m.user)
    for n in range(2):
        m.run('-odi', '-f', 'a@b.test', 'u0@local.test', input=TEXT)
    got = s.fetch('u0')
    assert len(got) == 2 and all(map(whole, got)), (got, m.logs())
    # What came while Dovecot had it open is seen, too.
    m.run('-odi', '-f', 'a@b.test', 'u0@local.test', input=TEXT)
    assert len(s.fetch('u0')) == 3


def test_delivery_to_exim_and_postfix(martlet, exim, postfix):
    e, p = exim(), postfix()
    m = martlet(daemon=False, relay_to='*', client='hosts_try_chunking = *',
                smarthost=f'"127.0.0.1::${{if eq{{$domain}}{{exim.test}}{{{e.port}}}{{{p.port}}}}}"')
    m.run('-odi', '-f', 'a@b.test', 'u1@exim.test', 'u2@postfix.test', input=TEXT)
    for user, server in (('u1', e), ('u2', p)):
        (got,) = wait_for(lambda: maildir(server.maildir(user)), lambda: server.log() + m.logs())
        assert whole(got), got
    assert m.queue() == [] and m.log().count('C="250') == 2, m.logs()


@pytest.mark.parametrize('how', ['', 'hosts_avoid_pipelining = *', 'hosts_avoid_esmtp = *'])
def test_delivery_to_opensmtpd(martlet, opensmtpd, how):
    o = opensmtpd()
    m = martlet(daemon=False, relay_to='*', smarthost=f'127.0.0.1::{o.port}', client=how)
    m.run('-odi', '-f', 'u0@local.test', 'u1@opensmtpd.test', 'u2@opensmtpd.test', 'nobody@elsewhere.test', input=TEXT)
    for user in ('u1', 'u2'):
        (got,) = wait_for(lambda: maildir(o.maildir(user)), lambda: o.log() + m.logs())
        assert whole(got), got
    log = m.log()
    assert m.queue() == [] and len(re.findall(r' [-=]> u[12]@opensmtpd\.test .* C="250 2\.0\.0', log)) == 2, m.logs()
    assert re.search(r'\*\* nobody@elsewhere\.test .*: 550 ', log), log
