"""Real scanners, started here: clamd with signatures of our own, SpamAssassin's spamd, Rspamd."""
import os

import pytest

from support.scanners import EICAR, GTUBE, Clamd, Rspamd, Spamd
from support.smtp import Client

pytestmark = pytest.mark.plain


@pytest.fixture
def real(make):
    def start(kind):
        if kind.missing():
            pytest.skip(f'{kind.program} is not installed')
        return make(kind)
    return start


def send(m, text, sender='a@b.test'):
    with Client(m.port, timeout=200) as c:
        return c.mail(sender, 'u0@local.test', data=text)


ACL = """
data:
  deny   malware = *
         message = found $malware_name
  accept
"""


@pytest.mark.parametrize('how', ['stream', 'socket', 'local'])
def test_clamd(real, martlet, how):
    clamd = real(Clamd)
    spec = clamd.socket if how == 'socket' else f'127.0.0.1 {clamd.port}' + (':local' if how == 'local' else '')
    m = martlet(main=f'acl_smtp_data = data\nav_scanner = clamd:{spec}\nmessage_size_limit = 20M\n', acl=ACL, allow_panic='malware acl condition')
    if how != 'stream':
        # The scan directory is not for everybody.
        os.chmod(os.path.join(m.directory, 'spool'), 0o755)
    assert send(m, 'Subject: x\r\n\r\nbody\r\n')[0] == 250, m.logs()
    assert send(m, f'Subject: x\r\n\r\n{EICAR}\r\n') == (550, 'found EICAR.Test.UNOFFICIAL')
    assert send(m, 'Subject: x\r\n\r\n' + 'line\r\n' * 10000 + 'martlet-test-signature\r\n') == (550, 'found Martlet.Test.UNOFFICIAL')
    if how == 'stream':
        assert send(m, 'Subject: x\r\n\r\n' + 'line of text\r\n' * 400000)[0] == 451
        assert 'INSTREAM size limit exceeded' in m.log() or 'ClamAV returned' in m.log() or 'unable to read' in m.log()


def test_spamd(real, martlet):
    spamd = real(Spamd)
    m = martlet(main=f'acl_smtp_data = data\nspamd_address = 127.0.0.1 {spamd.port}\n', acl="""
data:
  deny   spam = nobody
         message = $spam_score $spam_action $spam_report
  accept logwrite = ham $spam_score $spam_action
""")
    code, text = send(m, 'Subject: martlet-spam\r\n\r\nbody\r\n')
    assert (code, text) == (550, '7.5 reject spamd says 7.5 of 5.0: T_SUBJECT'), m.logs()
    assert send(m, 'Subject: hello\r\n\r\nbody\r\n')[0] == 250 and 'ham 0.0 no action' in m.log()


def test_rspamd(real, martlet):
    rspamd = real(Rspamd)
    m = martlet(main=f'acl_smtp_data = data\nspamd_address = 127.0.0.1 {rspamd.port} variant=rspamd\n', acl="""
data:
  deny   spam = nobody
         message = $spam_score $spam_action
  accept logwrite = ham $spam_score $spam_action
""")
    assert send(m, f'Subject: x\r\n\r\n{GTUBE}\r\n') == (550, '15.0 reject'), m.logs()
    assert send(m, 'Subject: hello\r\n\r\nbody\r\n')[0] == 250 and 'ham 0.0 no action' in m.log(), m.logs()
