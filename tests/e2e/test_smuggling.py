"""SMTP smuggling: whatever else than CRLF.CRLF some server takes for the end of data begins no second message here."""
import pytest

from support.smtp import Client
from support.util import maildir, wait_for

ENDS = [b'\n.\n', b'\n.\r\n', b'\r\n.\n', b'\r.\r', b'\r.\r\n', b'\r\n.\r', b'\r\n\0.\r\n', b'\r\n.\0\r\n', b'\r\n.\r\0\n', b'\n\0.\n',
        b'\r\n\x0b.\r\n', b'\r\n .\r\n', b'\r\n\xc2\x85.\r\n', b'\n\r.\n\r', b'\r\r\n.\r\r\n', b'\r\n..\r\n']
SECOND = b'MAIL FROM:<evil@b.test>\r\nRCPT TO:<u1@local.test>\r\nDATA\r\nSubject: smuggled\r\n\r\nevil\r\n.\r\n'


def open_data(m):
    c = Client(m.port)
    c.ehlo()
    c.expect(250, 'MAIL FROM:<good@b.test>')
    c.expect(250, 'RCPT TO:<u0@local.test>')
    return c


def the_only_message(m, c, number):
    """One message was taken, and the session goes on behind it."""
    assert c.reply()[0] == 250
    assert c.cmd('NOOP') == (250, 'OK')
    c.close()
    wait_for(lambda: len(maildir(f'{m.directory}/mail/u0')) == number, m.logs)
    assert not maildir(f'{m.directory}/mail/u1') and 'evil@b.test' not in m.log()


@pytest.mark.parametrize('where', [0, 4096, 16384])
def test_ends_of_data(martlet, where):
    m = martlet(main='smtp_enforce_sync = false\n')
    for n, end in enumerate(ENDS):
        c = open_data(m)
        c.expect(354, 'DATA')
        head = b'Subject: first\r\n\r\n'
        # The sequence straddles the edge of a buffer.
        pad = b'x' * max(where - len(head) - 1 - n % len(end), 1)
        text = head + pad + end + SECOND
        cut = len(head + pad) + 1
        c.send(text[:cut])
        c.send(text[cut:])
        the_only_message(m, c, n + 1)


def test_header_decides_what_ends_lines(martlet):
    """A sender of LF alone may end with LF.LF; one of CRLF may not, whatever comes later."""
    m = martlet(main='smtp_enforce_sync = false\n')
    c = open_data(m)
    c.expect(354, 'DATA')
    c.send(b'Subject: lf\n\nbody\n.\n')
    the_only_message(m, c, 1)
    c = open_data(m)
    c.expect(354, 'DATA')
    c.send(b'Subject: crlf\r\n\nbody\n.\n' + SECOND)
    the_only_message(m, c, 2)


def test_bdat_ends_by_its_count(martlet):
    m = martlet(main='smtp_enforce_sync = false\n')
    text = b'Subject: first\r\n\r\nx\r\n.\r\n' + SECOND
    for n, cut in enumerate([0, 20, len(text) - len(SECOND), len(text) - 3]):
        c = open_data(m)
        if cut:
            c.send(f'BDAT {cut}\r\n'.encode() + text[:cut])
            assert c.reply()[0] == 250
        c.send(f'BDAT {len(text) - cut} LAST\r\n'.encode() + text[cut:])
        the_only_message(m, c, n + 1)


def test_bdat_and_data_do_not_mix(martlet):
    m = martlet(main='smtp_enforce_sync = false\n')
    c = open_data(m)
    c.send(b'BDAT 18\r\nSubject: first\r\n\r\n')
    assert c.reply()[0] == 250
    c.send(b'DATA\r\n')
    assert c.reply()[0] == 503
    # Nothing of it is taken any more; the bytes of a chunk are not commands.
    c.send(f'BDAT {len(SECOND)} LAST\r\n'.encode() + SECOND)
    assert c.reply()[0] == 503
    assert c.cmd('RSET')[0] == 250
    c.close()
    c = open_data(m)
    c.send(b'BDAT 99999999999999999999\r\n')
    assert c.reply()[0] == 501
    assert c.cmd('NOOP')[0] in (250, 503)
    c.close()
    assert not maildir(f'{m.directory}/mail/u0') and not maildir(f'{m.directory}/mail/u1')
