"""Many SMTP sessions at a time that remember exactly which messages were acknowledged."""
import asyncio


class Load:
    """`sessions` clients send messages one after another until told to stop; every message has an id of its own.

    acknowledged: ids for which 250 was said after the final dot. unclear: ids whose answer did not come (the connection
    broke after the dot): these may or may not have been taken. Servers that are away are tried again.
    """

    def __init__(self, port, recipients, sessions=20, size=4096, per_session=20, prefix='m', address='127.0.0.1'):
        self.port, self.recipients, self.sessions, self.size = port, recipients, sessions, size
        self.per_session, self.prefix, self.address = per_session, prefix, address
        self.acknowledged, self.unclear, self.refused = [], [], []
        self.number = 0
        self.stopping = False

    async def run(self, until):
        """Sends until the coroutine `until` is done; then every session ends after its current message."""
        clients = [asyncio.ensure_future(self._client(n)) for n in range(self.sessions)]
        try:
            await until
        finally:
            self.stopping = True
            await asyncio.gather(*clients)

    async def _client(self, n):
        while not self.stopping:
            try:
                await self._session(n)
            except (ConnectionError, asyncio.IncompleteReadError, OSError, asyncio.TimeoutError, ValueError):
                await asyncio.sleep(0.02)

    async def _session(self, n):
        reader, writer = await asyncio.wait_for(asyncio.open_connection(self.address, self.port), 30)
        try:
            if await reply(reader) != 220:
                return
            await command(reader, writer, 'EHLO load.test')
            for _ in range(self.per_session):
                if self.stopping:
                    break
                await self._message(reader, writer, n)
            await command(reader, writer, 'QUIT')
        finally:
            writer.close()

    async def _message(self, reader, writer, n):
        self.number += 1
        ident = f'{self.prefix}{self.number:07d}'
        recipient = self.recipients[self.number % len(self.recipients)]
        for line in (f'MAIL FROM:<s{n}@load.test>', f'RCPT TO:<{recipient}>'):
            code = await command(reader, writer, line)
            if code != 250:
                self.refused.append((ident, code))
                await command(reader, writer, 'RSET')
                await asyncio.sleep(0.02)
                return
        code = await command(reader, writer, 'DATA')
        if code != 354:
            self.refused.append((ident, code))
            return
        head = f'Subject: {ident}\r\nX-Load: {ident}\r\n\r\n'
        lines = max(1, (self.size - len(head)) // 78)
        writer.write((head + ('z' * 76 + '\r\n') * lines + '.\r\n').encode())
        try:
            await writer.drain()
            code = await reply(reader)
        except (ConnectionError, asyncio.IncompleteReadError, OSError, asyncio.TimeoutError):
            self.unclear.append(ident)
            raise
        (self.acknowledged if code == 250 else self.refused).append(ident if code == 250 else (ident, code))


async def command(reader, writer, line):
    writer.write(line.encode() + b'\r\n')
    await writer.drain()
    return await reply(reader)


async def reply(reader):
    while True:
        line = await asyncio.wait_for(reader.readline(), 60)
        if not line.endswith(b'\n'):
            raise ConnectionError('closed')
        if line[3:4] != b'-':
            return int(line[:3])
