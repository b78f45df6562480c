"""The MIME ACLs, decode, regex and mime_regex: structure, names, what is broken, bounds."""
import base64
import os
import random
import re

import pytest

from support.smtp import Client

pytestmark = pytest.mark.plain

ACL = """
mime:
  warn   decode = default
  accept logwrite = part $mime_part_count <$mime_content_type> <$mime_filename> multipart=$mime_is_multipart cover=$mime_is_coverletter \\
                    inner=$mime_is_rfc822 size=$mime_content_size anomaly=$mime_anomaly_level
data:
  accept logwrite = end $mime_part_count <$mime_content_type>
"""
MAIN = 'acl_smtp_mime = mime\nacl_not_smtp_mime = mime\nacl_smtp_data = data\nacl_not_smtp = data\nmessage_size_limit = 60M\n'


def send(m, text, expect=250):
    with Client(m.port, timeout=300) as c:
        c.ehlo()
        c.expect(250, 'MAIL FROM:<a@b.test>')
        c.expect(250, 'RCPT TO:<u0@local.test>')
        c.expect(354, 'DATA')
        c.send((text if isinstance(text, bytes) else text.encode()).replace(b'\n', b'\r\n') + b'\r\n.\r\n')
        code, answer = c.reply()
    assert code == expect, answer
    return answer


def parts(m):
    return re.findall(r' part (.*)', m.log())


def scan_is_empty(m):
    place = os.path.join(m.directory, 'spool', 'scan')
    return not os.path.exists(place) or not os.listdir(place)


HEAD = 'From: a@b.test\nSubject: x\nMIME-Version: 1.0\n'


def test_structure(martlet):
    m = martlet(main=MAIN, acl=ACL)
    inner = 'Subject: inner\nContent-Type: multipart/mixed; boundary=in\n\n--in\nContent-Type: text/plain; name=a.exe\n\nx\n--in--\n'
    send(m, HEAD + 'Content-Type: multipart/mixed; boundary="out"\n\npreamble\n--out\nContent-Type: multipart/alternative; boundary=alt\n\n'
         '--alt\nContent-Type: text/plain\n\none\n--alt\nContent-Type: text/html\n\ntwo\n--alt--\nepilogue\n--out\n'
         'Content-Type: message/rfc822\n\n' + inner + '--out\nContent-Type: message/rfc822\nContent-Transfer-Encoding: base64\n\n'
         + base64.encodebytes(inner.replace('a.exe', 'b.exe').encode()).decode() + '--out\nContent-Type: image/png\n\n--out--\n')
    assert parts(m) == [
        '0 <multipart/mixed> <> multipart=1 cover=1 inner=0 size=1 anomaly=0',
        '1 <multipart/alternative> <> multipart=1 cover=1 inner=0 size=1 anomaly=0',
        '2 <text/plain> <> multipart=0 cover=1 inner=0 size=1 anomaly=0',
        '3 <text/html> <> multipart=0 cover=1 inner=0 size=1 anomaly=0',
        '4 <message/rfc822> <> multipart=0 cover=0 inner=0 size=1 anomaly=0',
        '5 <message/rfc822> <> multipart=0 cover=0 inner=0 size=1 anomaly=0',
        '6 <image/png> <> multipart=0 cover=0 inner=0 size=0 anomaly=0',
        '0 <multipart/mixed> <> multipart=1 cover=1 inner=1 size=1 anomaly=0',
        '1 <text/plain> <a.exe> multipart=0 cover=1 inner=1 size=1 anomaly=0',
        '0 <multipart/mixed> <> multipart=1 cover=1 inner=1 size=1 anomaly=0',
        '1 <text/plain> <b.exe> multipart=0 cover=1 inner=1 size=1 anomaly=0',
    ]
    assert ' end 6 <>' in m.log()
    assert scan_is_empty(m)


def test_no_content_type_is_no_mime(martlet):
    m = martlet(main=MAIN, acl=ACL)
    send(m, 'Subject: x\n\nContent-Type: text/plain\n')
    assert parts(m) == [] and ' end -1 ' in m.log()


@pytest.mark.parametrize('field, name', [
    ("name*0*=utf-8'en'a%C3%A9; name*1=b; name*2*=%C3%A9", 'a\\303\\251b\\303\\251'),
    ("name*=iso-8859-1''%e4", '\\303\\244'), ("name*=utf-7''a%2BAOQ-", 'a\\303\\244'), ("name*=utf-16be''%00%e4%00b", '\\303\\244b'),
    ("name*=nosuchcharset''%e4", '\\344'), ("name*=''%00%zz", '?%zz'), ('name="=?utf-7?Q?a+AOQ-?="', 'a\\303\\244'),
    ('name="=?utf-8?B?w6Q=?= x"', '\\303\\244 x'), ('name="a\nb"', 'a b'), ('name*1=a', ''), ('name="x', 'x;'), ('name', '')])
def test_names(martlet, field, name):
    m = martlet(main=MAIN + 'headers_charset = utf-8\n', acl=ACL)
    send(m, HEAD + 'Content-Type: a/b;\n ' + field.replace('\n', '\n ') + '\n\nx\n')
    assert re.search(r'> <(.*)> multi', parts(m)[0]).group(1) == name


def test_regular_expressions(martlet):
    m = martlet(main='acl_smtp_mime = mime\nacl_smtp_data = data\n', acl=r"""
mime:
  warn   mime_regex = \N(?s)se(.)ret.*(wo)rd\N
         logwrite = decoded $mime_part_count $regex1 $regex2 <$regex_match_string>
  warn   regex = raw(.)
         logwrite = raw $mime_part_count $regex1
  deny   regex = REFUSE
  accept
data:
  warn   regex = nothing : ^(Subject):: .*x
         logwrite = whole $regex1 $regex2
  warn   regex = [bad : third
         logwrite = found $regex_match_string
  accept
""")
    send(m, HEAD + 'Content-Type: multipart/mixed; boundary=o\n\n--o\n\nrawA\n--o\nContent-Transfer-Encoding: base64\n\n'
         + base64.b64encode(b'a sekret\nword').decode() + '\n--o\nContent-Transfer-Encoding: quoted-printable\n\nse=63ret third wo=\nrd rawB\n--o--\n')
    log = m.log()
    assert re.findall(r' (decoded|raw|whole|found) (.*)', log) == [
        ('raw', '0 A'), ('raw', '1 A'), ('decoded', r'2 k wo <(?s)se(.)ret.*(wo)rd>'),
        ('decoded', r'3 c wo <(?s)se(.)ret.*(wo)rd>'), ('raw', '3 B'), ('whole', 'Subject'), ('found', 'third')]
    assert 'regex acl condition warning' in log
    send(m, HEAD + 'Content-Type: text/plain\n\nREFUSE\n', 550)
    assert 'rejected during MIME ACL checks' in m.log()


def test_decode_places(martlet):
    m = martlet(main='acl_smtp_mime = mime\n', acl="""
mime:
  warn   decode = @DIR@/spool/out
         logwrite = one ${readfile{$mime_decoded_filename}{|}}
  warn   decode = mine
         logwrite = two $mime_decoded_filename
  warn   decode = $mime_filename
         logwrite = three
  warn   !decode = false
         logwrite = four
  accept
""", allow_panic='Tainted filename for decode')
    os.mkdir(os.path.join(m.directory, 'spool', 'out'), 0o777)
    os.chmod(os.path.join(m.directory, 'spool', 'out'), 0o777)
    send(m, HEAD + 'Content-Type: text/plain; name="../../conf"\nContent-Transfer-Encoding: base64\n\naGVsbG8K\n')
    log = m.log()
    assert 'one hello|' in log and re.search(r'two \S+/scan/(\S+)/mine\n', log) and 'four' in log and 'three' not in log
    assert len(os.listdir(os.path.join(m.directory, 'spool', 'out'))) == 1
    assert scan_is_empty(m)


def test_results(martlet):
    m = martlet(main='acl_smtp_mime = mime\nacl_not_smtp_mime = mime\n', acl="""
mime:
  deny    condition = ${if eq{$mime_filename}{deny}}
          message = no such part
  defer   condition = ${if eq{$mime_filename}{defer}}
  discard condition = ${if eq{$mime_filename}{discard}}
  accept
""")
    text = HEAD + 'Content-Type: text/plain; name=%s\n\nx\n'
    assert send(m, text % 'deny', 550) == 'no such part'
    send(m, text % 'defer', 451)
    send(m, text % 'discard')
    assert '=> blackhole (MIME ACL discarded recipients)' in m.log()
    send(m, text % 'fine')
    m.run('-oee', 'u1@local.test', input=(text % 'deny').encode(), check=False)
    assert re.search(r'F=<\S+> rejected during MIME ACL checks: no such part', m.log())


NESTED = ''.join(f'Content-Type: multipart/mixed; boundary=b{i}\n\n--b{i}\n' for i in range(100))
MESSAGES = 'Content-Type: message/rfc822\n\n' * 100


@pytest.mark.parametrize('text, count', [
    (HEAD + NESTED + 'Content-Type: text/plain\n\ndeep\n', 101),
    (HEAD + NESTED + 'Content-Type: text/plain\n\ndeep\n' + ''.join(f'--b{i}--\n' for i in reversed(range(100))), 101),
    (HEAD + MESSAGES + 'Content-Type: text/plain\n\ndeep\n', 101),
    (HEAD + 'Content-Type: multipart/mixed; boundary=b\n' + '\n--b\nContent-Type: text/plain\n' * 5000, 5001),
    (HEAD + 'Content-Type: multipart/mixed; boundary=b\n\n' + '--b\n' * 50000, 50001),
    (HEAD + 'Content-Type: multipart/mixed; boundary=b\n\n--b\n\nno end', 2),
    (HEAD + 'Content-Type: multipart/mixed; boundary=o\n\n--o\nContent-Type: multipart/mixed; boundary=i\n\n--i\n\nno end\n--o\n\nlast\n', 4),
    (HEAD + 'Content-Type: multipart/mixed; boundary=\n\n--\n\nx\n', 1),
    (HEAD + 'Content-Type: multipart/mixed; boundary=' + 'x' * 5000 + '\n\n--' + 'x' * 5000 + '\n\nx\n', 1),
    (HEAD + 'Content-Type: text/plain;' + ' name*0=x;' * 3000 + '\n\nx\n', 1),
], ids=['nested', 'nested-ended', 'messages', 'headers', 'parts', 'no-end', 'inner-no-end', 'empty-boundary', 'long-boundary', 'segments'])
def test_torture(steady, text, count):
    m = steady(main=MAIN, acl=ACL.replace('  warn   decode = default\n', ''))
    send(m, text)
    assert len(parts(m)) == count


def test_too_complex(steady):
    m = steady(main=MAIN, acl=ACL.replace('  warn   decode = default\n', ''))
    deep = HEAD + ''.join(f'Content-Type: multipart/mixed; boundary=b{i}\n\n--b{i}\n' for i in range(300))
    assert 'too complex' in send(m, deep, 550)
    assert 'too complex' in send(m, HEAD + 'Content-Type: multipart/mixed; boundary=b\n\n' + '--b\nContent-Type: message/rfc822\n\n' * 1100, 550)


def test_parts_in_each_other_are_not_read_for_ever(steady):
    m = steady(main=MAIN, acl="""
mime:
  accept decode = default
data:
  accept
""", allow_panic='File too large')
    deep = HEAD + ''.join(f'Content-Type: multipart/mixed; boundary=b{i:03}\n\n--b{i:03}\n' for i in range(200))
    send(m, deep + '\n' + 'line of text\n' * 150000, 451)
    assert 'File too large' in m.log() and scan_is_empty(m)


@pytest.mark.parametrize('encoding, text, anomaly', [
    ('base64', random.Random(1).randbytes(300000).replace(b'\n', b'').replace(b'\0', b''), 2), ('base64', b'====\n' * 10000, 2), ('base64', b'YQ==\n', 0),
    ('quoted-printable', b'=XY' * 50000, 1), ('quoted-printable', b'=' * 50000, 1), ('quoted-printable', b'a=\n' * 5000, 0),
    ('no-such-encoding', b'x' * 200000, 0)], ids=['random', 'padding', 'base64', 'bad-digits', 'equals', 'quoted', 'unknown'])
def test_broken_encodings(steady, encoding, text, anomaly):
    m = steady(main=MAIN, acl=ACL)
    send(m, HEAD.encode() + b'Content-Type: a/b\nContent-Transfer-Encoding: ' + encoding.encode() + b'\n\n' + text.replace(b'\r', b'') + b'\n')
    assert parts(m)[0].endswith(f'anomaly={anomaly}')
    assert scan_is_empty(m)


def test_the_file_is_what_was_sent(martlet):
    m = martlet(main='acl_smtp_mime = mime\n', acl="""
mime:
  accept decode = /@DIR@/spool/decoded
""".replace('/@DIR@', '@DIR@'))
    content = os.urandom(3000000)
    send(m, (HEAD + 'Content-Type: a/b\nContent-Transfer-Encoding: base64\n\n').encode() + base64.encodebytes(content))
    with open(os.path.join(m.directory, 'spool', 'decoded'), 'rb') as f:
        assert f.read() == content


def test_no_mbox_unspool(martlet):
    m = martlet(main='acl_smtp_mime = mime\n', acl="""
mime:
  accept decode = default
         control = no_mbox_unspool
""")
    send(m, HEAD + 'Content-Type: text/plain\n\nkept\n')
    kept = os.path.join(m.directory, 'spool', 'scan')
    names = os.listdir(os.path.join(kept, os.listdir(kept)[0]))
    assert len(names) == 1 and names[0].endswith('-00000')
