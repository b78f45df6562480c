"""Corner cases of addresses (RFC 5321, section 4.1.2): what MAIL is answered is what Debian's Exim 4.96 answers.

address_syntax_recorded.json has rows of the operand, the reply, and the reply with allow_domain_literals; recorded with
`exim -oMa 127.0.0.1 -bs`.
"""
import json
import os

import pytest

from support.smtp import Client

with open(os.path.join(os.path.dirname(__file__), 'address_syntax_recorded.json')) as f:
    ROWS = json.load(f)

MAIN = 'smtp_max_synprot_errors = 1000\nsmtp_accept_max_nonmail = 10000\n'


@pytest.mark.parametrize('literals', [False, True])
def test_as_exim(martlet, literals):
    m = martlet(main=MAIN + ('allow_domain_literals\n' if literals else ''))
    wrong = []
    with Client(m.port) as c:
        c.ehlo()
        for operand, *replies in ROWS:
            code, text = c.cmd(f'MAIL FROM:{operand}'.encode() + b'\r\n')
            got = f'{code} {text}'.encode('latin-1').decode().rstrip()
            if got != replies[literals]:
                wrong.append(f'{operand!r}: {got!r}, Exim: {replies[literals]!r}')
            c.expect(250, 'RSET')
    assert not wrong, '\n'.join(wrong)


def test_header_syntax(martlet):
    """verify = header_syntax, of what an address in a header line may be and may not."""
    m = martlet(main=MAIN + 'acl_smtp_data = data', acl='data:\n  require verify = header_syntax\n  accept\n')
    good = ['a@b.test', '"x y" <a@b.test>', 'x.y z <a@b.test> (c)', 'g: a@b.test, c@d.test;', 'undisclosed: ;', '@x,@y:a@b.test', '<a@b.test>,, c@d.test',
            'a (c (d)) @ b . test', '"a b"@c.test', '=?utf-8?Q?=C3=A4?= <a@b.test>']
    bad = ['a b@c.test', '<a@b', 'a@b c@d.test', 'a@', '<a@b.test> <c@d.test>', 'a@ä.test', '"a@b.test', 'a']
    with Client(m.port) as c:
        c.ehlo()
        for value, expected in [(v, 250) for v in good] + [(v, 550) for v in bad]:
            reply = c.mail('a@b.test', 'u0@local.test', data=f'To: {value}\r\n\r\nx\r\n'.encode(), hello=False)
            assert reply[0] == expected, (value, reply)
        # SMTPUTF8 lets UTF-8 into the domains of header lines, too
        c.expect(250, 'MAIL FROM:<a@b.test> SMTPUTF8')
        c.expect(250, 'RCPT TO:<u0@local.test>')
        c.expect(354, 'DATA')
        assert c.body('To: a@ä.test\r\n\r\nx\r\n'.encode())[0] == 250
