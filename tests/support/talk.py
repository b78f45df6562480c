"""martlet -be as a conversation: one process is asked line by line, keeping its connections and what it remembers."""
import os
import re
import select


class Conversation:
    """martlet -be that is asked line by line."""

    def __init__(self, m):
        self.process = m.popen('-be')
        self.buffer = b''
        self.answer()

    def say(self, line):
        self.process.stdin.write(line.encode() + b'\n')
        self.process.stdin.flush()

    def answer(self):
        """What comes in front of the next prompt."""
        while not self.buffer.endswith(b'\n> ') and self.buffer != b'> ':
            ready, _, _ = select.select([self.process.stdout], [], [], 120)
            assert ready, f'no answer, only {self.buffer!r}'
            piece = os.read(self.process.stdout.fileno(), 1 << 16)
            assert piece, f'it ended: {self.buffer[-2000:]!r}'
            self.buffer += piece
        text, self.buffer = self.buffer[:-2], b''
        return text.decode('latin-1').rstrip('\n')

    def ask(self, line):
        self.say(line)
        return self.answer()

    def peak(self):
        with open(f'/proc/{self.process.pid}/status') as f:
            return int(re.search(r'VmHWM:\s+(\d+)', f.read()).group(1))

    def end(self):
        self.process.stdin.close()
        self.process.wait(60)
