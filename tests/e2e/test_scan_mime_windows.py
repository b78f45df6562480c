"""decode over parts that cross the edges of what is read at one time, and text full of dashes: each byte as a plain decoder gives it."""
import base64
import os
import quopri
import random

import pytest

from support.smtp import Client

pytestmark = pytest.mark.plain

MAIN = 'acl_smtp_mime = mime\nacl_smtp_mail = mail\nacl_smtp_data = accept\nmessage_size_limit = 60M\n'
# no_mbox_unspool leaves the files; the part with a type of its own is decoded twice, once with `regex` in front of it.
ACL = """
mail:
  accept control = no_mbox_unspool
mime:
  warn   condition = ${if eq{$mime_content_type}{x/twice}}
         regex = nothing of this kind
  warn   condition = ${if eq{$mime_content_type}{x/twice}}
         decode = first
  accept decode = default
         logwrite = part $mime_part_count anomaly=$mime_anomaly_level
"""
DASHES = [b'-', b'--', b'---', b'a--edge', b' --edge', b'-edge', b'--edg', b'--' * 40, b'-' * 76, b'x-' * 38]


def made(seed):
    """[(header lines, encoded, decoded)]"""
    r = random.Random(seed)
    parts = []
    for size in [0, 1, 57, 5000, 131072, 131072 * 3 // 4, 100000, 300001, 400000]:
        data = r.randbytes(size)
        parts.append((b'Content-Type: a/b\nContent-Transfer-Encoding: base64\n', base64.encodebytes(data), data))
        text = b''.join(r.choice(DASHES + [b'some text', b'caf\xe9 = ' * 9, b'']) + b'\n' for _ in range(size // 40))
        parts.append((b'Content-Type: text/plain\n', text, text))
        parts.append((b'Content-Type: text/plain\nContent-Transfer-Encoding: quoted-printable\n', quopri.encodestring(text), text))
    line = b'-' * 200000 + b'y' * 150000 + b'\n'
    parts.append((b'Content-Type: x/twice\n', b'--\n' + line + b'--', b'--\n' + line + b'--\n'))
    return parts


@pytest.mark.parametrize('seed', [1, 2])
def test_files_are_what_was_sent(martlet, seed):
    m = martlet(main=MAIN, acl=ACL)
    parts = made(seed)
    text = b'From: a@b.test\nContent-Type: multipart/mixed; boundary=edge.of.parts\n\n'
    for head, encoded, _ in parts:
        text += b'--edge.of.parts\n' + head + b'\n' + encoded + (b'' if encoded.endswith(b'\n') or not encoded else b'\n')
    text += b'--edge.of.parts--\n'
    with Client(m.port, timeout=300) as c:
        c.ehlo()
        c.expect(250, 'MAIL FROM:<a@b.test>')
        c.expect(250, 'RCPT TO:<u0@local.test>')
        c.expect(354, 'DATA')
        c.send(b''.join((b'.' if line.startswith(b'.') else b'') + line + b'\r\n' for line in text[:-1].split(b'\n')) + b'.\r\n')
        code, answer = c.reply()
    assert code == 250, answer
    place = os.path.join(m.directory, 'spool', 'scan')
    place = os.path.join(place, os.listdir(place)[0])
    names = sorted(n for n in os.listdir(place) if not n.endswith('.eml') and n != 'first')
    assert len(names) == len(parts) + 1  # the multipart is a part as well
    for name, (head, _, want) in zip(names[1:], parts):
        with open(os.path.join(place, name), 'rb') as f:
            assert f.read() == want, (name, head)
    with open(os.path.join(place, 'first'), 'rb') as f:
        assert f.read() == parts[-1][2]
    assert 'anomaly=1' not in m.log() and 'anomaly=2' not in m.log()
