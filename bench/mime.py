"""The MIME ACL over a message of 10 MiB with 200 parts: what it costs from the final dot to the reply, beside the same message without the ACL.

Parts are base64, quoted-printable and plain text, in turn. With `walk` the ACL looks at names and types; with `decode` each part is decoded
into a file and its text searched as well. The message is refused at the end, so that no delivery is measured."""
import base64
import random
import statistics
import time

from support.smtp import Client

SIZE, PARTS, TIMES = 10 << 20, 200, 7
WANTED = 5.0
ACLS = {
    'none': '  accept\n',
    'walk': '  deny condition = ${if match{$mime_filename}{\\N\\.exe$\\N}}\n  accept\n',
    'decode': '  warn decode = default\n  warn mime_regex = no(such)text\n  accept\n',
}


def message():
    r = random.Random(1)
    share = SIZE // PARTS
    text = [b'From: a@b.test\r\nSubject: bench\r\nMIME-Version: 1.0\r\nContent-Type: multipart/mixed; boundary="bench"\r\n']
    for n in range(PARTS):
        text.append(b'--bench\r\n')
        if n % 3 == 0:
            body = base64.encodebytes(r.randbytes(share * 3 // 4)).replace(b'\n', b'\r\n')
            head = b'Content-Type: application/octet-stream; name="file%d.bin"\r\nContent-Transfer-Encoding: base64\r\n' % n
        elif n % 3 == 1:
            body = b'A line of text =3D that is quoted, of the usual length, and so on and on=\r\n' * (share // 75)
            head = b'Content-Type: text/plain; charset=utf-8\r\nContent-Transfer-Encoding: quoted-printable\r\n'
        else:
            body = b'A line of plain text of the usual length, with nothing in it of interest.\r\n' * (share // 75)
            head = b'Content-Type: text/html; charset=us-ascii\r\n'
        text.append(head + b'\r\n' + body)
    return b''.join([text[0], b'\r\n'] + text[1:]) + b'--bench--\r\n'


def seconds(server, text):
    """From the final dot to the reply, the least of several: other work on the machine only adds."""
    took = []
    with Client(server.port, timeout=300) as c:
        c.ehlo()
        for _ in range(TIMES):
            c.expect(250, 'MAIL FROM:<a@b.test>')
            c.expect(250, f'RCPT TO:<u0@{server.domain}>')
            c.expect(354, 'DATA')
            c.send(text)
            time.sleep(0.3)  # what was sent has been read by then
            start = time.monotonic()
            c.send(b'.\r\n')
            code, answer = c.reply()
            took.append(time.monotonic() - start)
            assert code == 550, answer
    return statistics.median(sorted(took)[:3])


def measure(make, name, base, acl):
    main = 'message_size_limit = 50M\nacl_smtp_data = deny\n' + ('' if acl == 'none' else 'acl_smtp_mime = check_mime\n')
    server = make(f'{base}/{name}-mime-{acl}', main, f'  accept\ncheck_mime:\n{ACLS[acl]}unused:\n')
    server.start()
    try:
        return seconds(server, message())
    finally:
        server.stop()


def run(a, base, kinds):
    """{(scenario, server): [values]}; prints a line each, then the medians of all rounds beside each other."""
    results = {}
    for number in range(a.rounds):
        for acl in ACLS:
            for name in ('martlet', 'exim'):
                if name not in a.servers:
                    continue
                took = measure(lambda d, main, text: kinds[name](d, a.peers, main=main, acl=text), name, base, acl)
                results.setdefault((f'mime {acl}', name), []).append({'ms': took * 1000})
                print(f'{number + 1}: mime {acl:6} {name:8} ms={took * 1000:.2f}', flush=True)
    for acl in ('walk', 'decode'):
        pair = [results.get((f'mime {acl}', n)) for n in ('martlet', 'exim')]
        if all(pair):
            ours, exim = (statistics.median(r['ms'] for r in p) for p in pair)
            print(f'mime {acl:6} median of {a.rounds} rounds: {ours:.1f} ms, Exim {exim:.1f}: {exim / ours:.1f} times (wanted: {WANTED:.0f})'
                  + ('' if exim / ours >= WANTED else ' BELOW'), flush=True)
    return results
