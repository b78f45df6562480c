"""A small scriptable name server, for UDP and TCP: answers from a table, or with SERVFAIL, REFUSED, or not at all."""
import ipaddress
import socket
import socketserver
import struct
import threading

TYPES = {'A': 1, 'NS': 2, 'CNAME': 5, 'SOA': 6, 'PTR': 12, 'MX': 15, 'TXT': 16, 'AAAA': 28, 'SRV': 33, 'TLSA': 52}
NAMES = {v: k for k, v in TYPES.items()}
SERVFAIL, NXDOMAIN, REFUSED = 2, 3, 5


def encode_name(name):
    out = b''
    for label in name.rstrip('.').split('.'):
        if label:
            raw = label.encode('ascii')
            out += bytes([len(raw)]) + raw
    return out + b'\0'


def encode_rdata(kind, value):
    if kind == 'A':
        return ipaddress.IPv4Address(value).packed
    if kind == 'AAAA':
        return ipaddress.IPv6Address(value).packed
    if kind == 'MX':
        preference, host = value
        return struct.pack('!H', preference) + encode_name(host)
    if kind == 'SRV':
        priority, weight, port, host = value
        return struct.pack('!HHH', priority, weight, port) + encode_name(host)
    if kind == 'TXT':
        parts = value if isinstance(value, (list, tuple)) else [value[i:i + 255] for i in range(0, len(value), 255)] or ['']
        return b''.join(bytes([len(p.encode())]) + p.encode() for p in parts)
    if kind == 'SOA':
        master, mailbox, *numbers = value
        return encode_name(master) + encode_name(mailbox) + struct.pack('!5I', *numbers)
    if kind in ('CNAME', 'NS', 'PTR'):
        return encode_name(value)
    return bytes(value)


class Nameserver:
    """records: {(name, type): [value, ...]}; trouble: {name or (name, type): 'SERVFAIL' | 'REFUSED' | 'TIMEOUT' | 'GARBAGE' or one of the lies}.
    `trouble` may be a function of the name, too. Lies point to `liar`, an address: 'QUESTION' answers a question that was not
    asked, 'OWNER' has records of other names, 'IDENT' another transaction's answer, 'KIND' records of other types. 'CUT' ends
    within a record and says that it is whole, 'TRUNCATED' says that it is not, over TCP as well, 'LOOP' is an alias of itself.

    A name that has records of any type, or names below it that have, exists; others are answered NXDOMAIN. `queries`
    remembers (name, type) of all that was asked. Both tables may be changed while it runs.
    """

    def __init__(self, address='127.0.0.1', port=0):
        self.records, self.trouble, self.queries, self.everything, self.liar = {}, {}, [], None, '127.0.0.1'
        self.ttl = 60
        self.authentic = False  # all answers are said to be validated (AD), but those for names in `insecure`
        self.insecure = set()
        outer = self

        class Udp(socketserver.BaseRequestHandler):
            def handle(self):
                data, sock = self.request
                answer = outer.answer(data, 1232)
                if answer:
                    sock.sendto(answer, self.client_address)

        class Tcp(socketserver.StreamRequestHandler):
            timeout = 20

            def handle(self):
                while True:
                    head = self.rfile.read(2)
                    if len(head) < 2:
                        return
                    data = self.rfile.read(struct.unpack('!H', head)[0])
                    answer = outer.answer(data, 65535)
                    if answer is None:
                        return
                    self.wfile.write(struct.pack('!H', len(answer)) + answer)

        class UdpServer(socketserver.ThreadingUDPServer):
            daemon_threads, block_on_close, max_packet_size = True, False, 4096

        class TcpServer(socketserver.ThreadingTCPServer):
            daemon_threads, block_on_close, allow_reuse_address = True, False, True

        for attempt in range(20):
            self.tcp = TcpServer((address, port), Tcp)
            self.address, self.port = self.tcp.server_address
            try:
                self.udp = UdpServer((address, self.port), Udp)
                break
            except OSError:
                # Somebody has that port for UDP.
                self.tcp.server_close()
                if port or attempt == 19:
                    raise
        self.threads = [threading.Thread(target=s.serve_forever, args=(0.05,), daemon=True) for s in (self.tcp, self.udp)]
        for t in self.threads:
            t.start()

    def add(self, name, kind, *values):
        self.records.setdefault((name.lower().rstrip('.'), kind), []).extend(values)
        return self

    def host(self, name, *addresses):
        """A and AAAA records, and the PTR records back."""
        for a in addresses:
            ip = ipaddress.ip_address(a)
            self.add(name, 'A' if ip.version == 4 else 'AAAA', a)
            self.add(ip.reverse_pointer, 'PTR', name)
        return self

    def answer(self, data, limit):
        try:
            ident, flags, count = struct.unpack('!HHH', data[:6])
            labels, at = [], 12
            while data[at]:
                labels.append(data[at + 1:at + 1 + data[at]].decode('latin-1'))
                at += 1 + data[at]
            kind = struct.unpack('!H', data[at + 1:at + 3])[0]
            question = data[12:at + 5]
        except (struct.error, IndexError):
            return None
        name = '.'.join(labels).lower()
        kind = NAMES.get(kind, str(kind))
        self.queries.append((name, kind))
        own = self.trouble if callable(self.trouble) else lambda n: self.trouble.get(n) or self.trouble.get((n, kind))
        trouble = self.everything or own(name)
        if trouble == 'TIMEOUT':
            return None
        if trouble == 'GARBAGE':
            return struct.pack('!HHHHHH', ident, 0x8580, 1, 7, 0, 0) + question + b'\xc0\xff\xff'
        code, found = {'SERVFAIL': SERVFAIL, 'REFUSED': REFUSED}.get(trouble, 0), []
        if not trouble:
            code, found = self.lookup(name, kind)
        elif code == 0:
            found = self.lie(trouble, name, kind)
        if trouble == 'QUESTION':
            question = encode_name('asked.by.nobody.test') + question[-4:]
        if trouble == 'IDENT':
            ident ^= 0x5555
        body = b''
        for owner, rtype, value in found:
            rdata = encode_rdata(rtype, value)
            body += encode_name(owner) + struct.pack('!HHIH', TYPES.get(rtype, 0), 1, self.ttl, len(rdata)) + rdata
        # QR, RD as asked, AA, RA, AD
        authentic = self.authentic and name not in self.insecure
        out = struct.pack('!HHHHHH', ident, 0x8480 | (0x20 if authentic else 0) | (flags & 0x0100) | code, 1, len(found), 0, 0) + question + body
        if trouble == 'CUT':
            return out[:-3]
        if len(out) > limit or trouble == 'TRUNCATED':
            out = struct.pack('!HHHHHH', ident, 0x8680 | (flags & 0x0100), 1, 0, 0, 0) + question
        return out

    def lie(self, how, name, kind):
        wrong = {'MX': (0, 'lies.test'), 'AAAA': '100::1'}.get(kind, self.liar)
        if how == 'OWNER' and kind in ('A', 'AAAA', 'MX'):
            return [('other.' + name, kind, wrong)]
        if how == 'KIND':
            return [(name, 'A' if kind == 'MX' else 'TXT', self.liar)]
        if how == 'LOOP':
            return [(name, 'CNAME', name)]
        return [(name, kind, wrong)] if kind in ('A', 'MX') else []

    def lookup(self, name, kind):
        found, seen = [], 0
        while seen < 10:
            seen += 1
            alias = self.records.get((name, 'CNAME'))
            if not alias or kind == 'CNAME':
                break
            found.append((name, 'CNAME', alias[0]))
            name = alias[0].lower().rstrip('.')
        values = self.records.get((name, kind), [])
        found += [(name, kind, v) for v in values]
        exists = any(n == name or n.endswith('.' + name) for n, _ in list(self.records))
        return (0 if exists or found else NXDOMAIN), found

    def stop(self):
        for s in (self.tcp, self.udp):
            s.shutdown()
            s.server_close()
