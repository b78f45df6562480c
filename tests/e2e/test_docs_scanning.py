"""The examples of docs/content-scanning.md as they stand there; only ports are the tests' own.

Blocks: `main NAME` main options, `acl NAME` an ACL, `rcpt NAME` statements of the RCPT ACL, `routers NAME` the first routers."""
import os
import re

import pytest

from support import scanners
from support.martlet import TOP
from support.scanners import EICAR, GTUBE, Clamd, Rspamd, Spamd
from support.smtp import Client
from support.util import read

pytestmark = pytest.mark.plain
BLOCKS = re.findall(r'^```(\w+) ?(.*)\n((?:.*\n)*?)```$', read(os.path.join(TOP, 'docs', 'content-scanning.md')), re.M)


def example(name, **ports):
    """Keywords for a Martlet with the blocks of that name; ports: {as written: as here}."""
    found = {}
    for kind, of, text in BLOCKS:
        if of == name:
            for old, new in ports.items():
                text = re.sub(rf'([ :]){old[1:]}\b', rf'\g<1>{new}', text)
            found[{'rcpt': 'acl_rcpt'}.get(kind, kind)] = text
    assert found, name
    return found


def send(m, text, to='u0', kind='text/plain'):
    with Client(m.port, timeout=200) as c:
        return c.mail('a@b.test', f'{to}@local.test', data=text)


@pytest.fixture
def real(make):
    def start(kind):
        if kind.missing():
            pytest.skip(f'{kind.program} is not installed')
        return make(kind)
    return start


def test_every_block_is_run():
    assert {name for _, name, _ in BLOCKS} == {'mime', 'clamd', 'spamd', 'dcc', 'bmi'}


def test_mime(martlet):
    m = martlet(**example('mime'))
    part = 'Subject: x\r\nContent-Type: {}\r\n{}\r\n{}\r\n'
    assert send(m, part.format('application/octet-stream; name="A.EXE"', '', 'x')) == (550, 'attached programs are not accepted here (A.EXE)')
    assert send(m, part.format('a/b', 'Content-Transfer-Encoding: base64\r\n', 'YQ!!')) == (550, 'Broken BASE64 encoding detected')
    assert send(m, part.format('text/plain', 'Content-Transfer-Encoding: quoted-printable\r\n', 'Lotter=79 Winner')) == (550, 'we do not play')
    assert send(m, part.format('text/plain', '', 'hello'))[0] == 250


def test_clamd(real, martlet):
    m = martlet(**example('clamd', _3310=real(Clamd).port))
    assert send(m, f'Subject: x\r\n\r\n{EICAR}\r\n') == (550, 'this message contains malware (EICAR.Test.UNOFFICIAL)')
    assert send(m, 'Subject: x\r\n\r\nbody\r\n')[0] == 250


def test_spamd(real, martlet):
    m = martlet(**example('spamd', _783=1, _784=real(Spamd).port))
    assert send(m, 'Subject: martlet-spam\r\n\r\nbody\r\n')[0] == 250
    assert 'X-Spam-Score: 7.5 (+++++++)' in str(m.wait_mail('u0')[0])


def test_dcc(martlet):
    letters = iter('GRA')

    def answer(c):
        c.all()
        c.send(f'{next(letters)}\nA\nX-DCC-Test-Metrics: x\n')
    server = scanners.Stub(answer)
    m = martlet(**example('dcc', _6277=server.port))
    text = 'Subject: x\r\n\r\nbody\r\n'
    assert send(m, text) == (451, 'greylisted, please try again')
    assert send(m, text) == (550, 'this is bulk mail')
    assert send(m, text)[0] == 250
    assert 'X-DCC-Test-Metrics: x' in str(m.wait_mail('u0')[0])
    server.stop()


def test_bmi(real, martlet):
    m = martlet(**example('bmi', _11333=real(Rspamd).port))
    assert send(m, f'Subject: x\r\n\r\n{GTUBE}\r\n', 'u1')[0] == 250
    m.wait_log('=> :blackhole: <u1@local.test> R=bmi_drop')
    assert send(m, 'Subject: x\r\n\r\nhello\r\n')[0] == 250
    m.wait_mail('u0')
