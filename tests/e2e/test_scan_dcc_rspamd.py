"""F05, Proof (b): a client of dccifd that is not ours, Rspamd's module, gets from the tests' server what we get from it."""
import http.client
import json

import pytest

from support.scanners import Rspamd
from support.smtp import Client
from test_scan_dcc import dccifd

pytestmark = pytest.mark.plain
HEADER = 'X-DCC-Test-Metrics: mx.test 1; bulk Body=many Fuz1=2\n'


class WithDcc(Rspamd):
    def __init__(self, directory, port):
        super().__init__(directory)
        self.dccifd = port

    def prepare(self):
        super().prepare()
        with open(self.path('conf'), 'a') as f:
            f.write(f'modules {{ path = "/usr/share/rspamd/plugins/dcc.lua"; }}\ndcc {{ servers = "127.0.0.1:{self.dccifd}"; timeout = 30s; '
                    'body_max = 10; }\nmetric { name = "default"; symbol { name = "DCC_REJECT"; weight = 2; } symbol { name = "DCC_BULK"; weight = 1; } }\n')

    def symbols(self, message):
        """What it finds: names."""
        c = http.client.HTTPConnection('127.0.0.1', self.port, timeout=60)
        c.putrequest('POST', '/checkv2')
        for name, value in [('Content-Length', str(len(message))), ('From', 'a@b.test'), ('Helo', 'client.test'), ('IP', '127.0.0.1')] + [
                ('Rcpt', r) for r in ('u0@local.test', 'u1@local.test')]:
            c.putheader(name, value)
        c.endheaders(message)
        return set(json.loads(c.getresponse().read())['symbols'])


@pytest.mark.parametrize('letter, symbol, code', [('A', 'DCC_BULK', 250), ('R', 'DCC_REJECT', 550)])
def test_the_same_server(martlet, make, stub, letter, symbol, code):
    if Rspamd.missing():
        pytest.skip('rspamd is not installed')
    server = stub(dccifd(f'{letter}\n{letter}{letter}\n{HEADER}'))
    other = make(WithDcc, server.port)
    assert symbol in other.symbols(b'Subject: x\r\n\r\nbody\r\n'), other.output()
    m = martlet(main=f'acl_smtp_data = data\ndccifd_address = {server.address}\n', acl='data:\n  deny !dcc = *\n  accept\n')
    with Client(m.port, timeout=100) as c:
        c.ehlo()
        c.expect(250, 'MAIL FROM:<a@b.test>')
        c.expect(250, 'RCPT TO:<u0@local.test>')
        c.expect(250, 'RCPT TO:<u1@local.test>')
        c.expect(354, 'DATA')
        c.send('Subject: x\r\n\r\nbody\r\n.\r\n')
        assert c.reply()[0] == code
    # But for our Received: field and the ends of lines, the same bytes.
    theirs, ours = (r.replace(b'\r\n', b'\n').split(b'\n\n', 1) for r in server.requests)
    assert theirs[0] == ours[0] == b'header\n127.0.0.1\nclient.test\na@b.test\nu0@local.test\nu1@local.test'
    assert ours[1].endswith(theirs[1]) and ours[1].startswith(b'Received: ')
