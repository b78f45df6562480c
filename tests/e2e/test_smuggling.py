"""SMTP smuggling: whatever else than CRLF.CRLF some server takes for the end of data begins no second message here."""
import pytest

from support.smtp import Client
from support.util import maildir, wait_for

# Each line ending that some server knows, before and after the dot; the true one on both sides is no smuggling.
LINE_ENDS = [b'\r\n', b'\n', b'\r', b'\r\r\n', b'\n\r', b'\r\0\n', b'\0\r\n', b'\n\0', b'\0', b'\x0b', b'\x0c', b'\x85', b'\xc2\x85', b'\xe2\x80\xa8']
ENDS = [before + b'.' + after for before in LINE_ENDS for after in LINE_ENDS
        if not before.endswith(b'\r\n') or not after.startswith(b'\r\n')]
ENDS += [b'\r\n\0.\r\n', b'\r\n.\0\r\n', b'\r\n .\r\n', b'\r\n\t.\r\n', b'\r\n..\r\n', b'\r\n. \r\n', b'\r\n.\x1a\r\n', b'\n\0.\n', b'\0.\0']
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


@pytest.mark.parametrize('where', ['body', 'header', 'edge of a buffer'])
def test_ends_of_data(martlet, where):
    m = martlet(main='smtp_enforce_sync = false\nheader_maxsize = 100K\n')
    for n, end in enumerate(ENDS):
        c = open_data(m)
        c.expect(354, 'DATA')
        # At the edge, the sequence straddles it.
        size = 4096 * (1 + n % 4) - 1 - n % len(end) if where[0] == 'e' else 10
        head = b'Subject: first\r\n' + (b'' if where == 'header' else b'\r\n')
        head += b'X: '[:3 if where == 'header' else 0] + b'x' * (size - len(head) if where[0] == 'e' else size)
        text = head + end + SECOND
        c.send(text[:len(head) + 1])
        c.send(text[len(head) + 1:])
        the_only_message(m, c, n + 1)


@pytest.mark.parametrize('chunked', [False, True])
def test_nothing_is_smuggled_on(martlet, smtp_server, chunked):
    """What came in and goes on to another server has no line ending but CRLF in it, and no dot that ends anything."""
    s = smtp_server()
    m = martlet(main='smtp_enforce_sync = false\n', smarthost=f'127.0.0.1::{s.port}', relay_from='127.0.0.1')
    for n, end in enumerate(ENDS):
        c = Client(m.port)
        c.ehlo()
        c.expect(250, f'MAIL FROM:<good{n}@b.test>')
        c.expect(250, 'RCPT TO:<x@relay.test>')
        text = b'Subject: first\r\n\r\nx' + end + SECOND
        if chunked:
            # The dot is in a chunk of its own.
            text += b'\r\n'
            dot = text.index(b'.')
            for part in (text[:dot], b'.'):
                c.send(f'BDAT {len(part)}\r\n'.encode() + part)
                assert c.reply()[0] == 250
            c.send(f'BDAT {len(text) - dot - 1} LAST\r\n'.encode() + text[dot + 1:])
        else:
            c.expect(354, 'DATA')
            c.send(text)
        assert c.reply()[0] == 250, end
        c.close()
    wait_for(lambda: len(s.messages) >= len(ENDS), m.logs, 120)
    assert sorted(x['mail'].split()[0] for x in s.messages) == sorted(f'<good{n}@b.test>' for n in range(len(ENDS)))
    assert not [x for x in s.commands if 'evil' in x]
    for message in s.messages:
        data = message['data']
        assert data.endswith(b'\r\n') and b'\r' not in data.replace(b'\r\n', b'') and b'\n' not in data.replace(b'\r\n', b''), data
        assert b'MAIL FROM:<evil@b.test>' in data and message['rcpt'] == ['<x@relay.test>']


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
    for n, cut in enumerate([0, 20, len(text) - len(SECOND), len(text) - len(SECOND) - 3, len(text) - 3, len(text)]):
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
    assert ' <= ' not in m.log()


def test_bad_sizes_of_chunks(martlet):
    m = martlet(main='smtp_enforce_sync = false\nsmtp_max_synprot_errors = 100\n')
    c = open_data(m)
    for size in ('', '-1', '+5', '0x10', '5 5', '5 LAST LAST', '5 FIRST', '5LAST', '99999999999999999999', '5\0', '5;'):
        c.send(b'BDAT ' + size.encode() + b'\r\n')
        assert c.reply()[0] in (500, 501, 503), size
    assert c.cmd('NOOP')[0] == 250
    c.close()
    m.wait_log('daemon started')
    assert not m.mail('u0') and not m.spool_files()
