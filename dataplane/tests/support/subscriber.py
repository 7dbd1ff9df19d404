"""A subscriber of a venue: its lines, its request server and its snapshots, and the books they make.

Written from the documents alone, with Python's standard library: MoldUDP64 1.00, ITCH 5.0, SoupBinTCP 3.00,
GLIMPSE 5.0, and the README of the venue for the text that books are compared in.
"""

import argparse
import random
import selectors
import socket
import struct
import sys
import threading
import time

END_OF_SESSION = 0xFFFF
REQUEST_INTERVAL_S = 0.02
PATIENCE_S = 60.0


def endpoint(text):
    host, port = text.rsplit(":", 1)
    return host, int(port)


class Books:
    """Orders by reference; levels are added up when they are written."""

    def __init__(self):
        self.orders = {}
        self.stocks = {}

    def apply(self, message):
        kind = message[:1]
        locate = int.from_bytes(message[1:3], "big")
        reference = int.from_bytes(message[11:19], "big")
        if kind == b"R":
            self.stocks[locate] = message[11:19].decode().rstrip()
        elif kind in b"AF":
            side, shares, price = message[19:20], *struct.unpack(">I8xI", message[20:36])
            assert reference not in self.orders, f"order {reference} twice"
            self.orders[reference] = [locate, side, price, shares]
        elif kind in b"ECX":
            (shares,) = struct.unpack(">I", message[19:23])
            order = self.orders[reference]
            assert 0 < shares <= order[3], f"{shares} of {order[3]} shares"
            order[3] -= shares
            if order[3] == 0:
                del self.orders[reference]
        elif kind == b"D":
            del self.orders[reference]
        elif kind == b"U":
            new, shares, price = struct.unpack(">QII", message[19:35])
            locate, side, _, _ = self.orders.pop(reference)
            self.orders[new] = [locate, side, price, shares]

    def levels(self, locate, side):
        levels = {}
        for stock, of_side, price, shares in self.orders.values():
            if (stock, of_side) == (locate, side):
                count, total = levels.get(price, (0, 0))
                levels[price] = (count + 1, total + shares)
        return sorted(levels.items(), reverse=side == b"B")

    def text(self):
        lines = []
        for locate, stock in sorted(self.stocks.items()):
            sides = [("bid", "buy", b"B"), ("offer", "sell", b"S")]
            best, depth = stock, []
            for name, verb, side in sides:
                levels = self.levels(locate, side)
                words = [
                    f"{price // 10_000}.{price % 10_000:04} {shares} {count}"
                    for price, (count, shares) in levels
                ]
                best += f" {name} {words[0] if words else 'none'}"
                depth += [f"{stock} {verb} {word}" for word in words]
            lines += [best, *depth]
        return "".join(line + "\n" for line in lines)


def packets_of_soup(stream):
    """The packets of a SoupBinTCP connection: type and payload."""
    data = b""
    while True:
        while len(data) < 2 or len(data) < 2 + int.from_bytes(data[:2], "big"):
            more = stream.recv(65536)
            if not more:
                return
            data += more
        end = 2 + int.from_bytes(data[:2], "big")
        yield data[2:3], data[3:end]
        data = data[end:]


def snapshot(server, user, password):
    """The messages of a snapshot, and the number of the first one to apply to them."""
    with socket.create_connection(server, timeout=PATIENCE_S) as stream:
        login = user.ljust(6) + password.ljust(10) + " " * 10 + "1".rjust(20)
        stream.sendall(struct.pack(">H", 1 + len(login)) + b"L" + login.encode())
        messages = []
        for kind, payload in packets_of_soup(stream):
            if kind == b"J":
                sys.exit(f"the login was rejected: {payload}")
            if kind == b"S" and payload[:1] == b"G":
                return messages, int(payload[1:21])
            if kind == b"S":
                messages.append(payload)
    sys.exit("the snapshot has no end")


class Subscriber:
    def __init__(self, arguments):
        self.arguments = arguments
        self.random = random.Random(arguments.seed)
        self.books = Books()
        self.session = None
        self.next = 1
        self.known = 1
        self.end = None
        self.pending = {}
        self.asked_at = 0.0
        self.lost = self.asked = self.filled = 0
        self.snapshot = None

    def take(self, packet, is_reply):
        session, sequence, count = struct.unpack(">10sQH", packet[:20])
        if self.session is None:
            self.session = session
        assert session == self.session
        if count == END_OF_SESSION:
            self.end = sequence
            count = 0
        at = 20
        for number in range(sequence, sequence + count):
            (size,) = struct.unpack(">H", packet[at : at + 2])
            message = packet[at + 2 : at + 2 + size]
            at += 2 + size
            if number >= self.next:
                self.filled += is_reply and number not in self.pending
                self.pending.setdefault(number, message)
        self.known = max(self.known, sequence + count)

    def advance(self):
        while self.next in self.pending:
            self.books.apply(self.pending.pop(self.next))
            self.next += 1

    def ask(self, requests):
        now = time.monotonic()
        if self.next >= self.known or now - self.asked_at < REQUEST_INTERVAL_S:
            return
        missing = min(self.pending, default=self.known) - self.next
        packet = struct.pack(">10sQH", self.session, self.next, min(missing, 1000))
        requests.sendto(packet, endpoint(self.arguments.request))
        self.asked_at, self.asked = now, self.asked + 1

    def join_late(self):
        arguments = self.arguments
        with open(arguments.password_file, encoding="ascii") as file:
            password = file.readline().strip()
        self.snapshot = snapshot(endpoint(arguments.snapshot), arguments.user, password)

    def run(self):
        arguments = self.arguments
        wakes = selectors.DefaultSelector()
        for line in arguments.line:
            group, port = endpoint(line)
            receiver = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
            receiver.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            receiver.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 << 20)
            receiver.bind((group, port))
            membership = socket.inet_aton(group) + socket.inet_aton(arguments.interface_address)
            receiver.setsockopt(socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP, membership)
            receiver.setblocking(False)
            wakes.register(receiver, selectors.EVENT_READ, "line")
        requests = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        requests.bind((arguments.interface_address, 0))
        requests.setblocking(False)
        wakes.register(requests, selectors.EVENT_READ, "requests")
        print("ready", flush=True)
        joining = None
        deadline = time.monotonic() + PATIENCE_S
        while self.end is None or self.next < self.end:
            if time.monotonic() > deadline:
                sys.exit(f"still at {self.next} of {self.known}, end {self.end}")
            for key, _ in wakes.select(REQUEST_INTERVAL_S / 2):
                packet = key.fileobj.recv(65536)
                if key.data == "line" and self.random.randrange(1000) < arguments.lose:
                    self.lost += 1
                    continue
                self.take(packet, key.data == "requests")
            if arguments.join_at and joining is None:
                # What came until here was never heard.
                self.pending.clear()
                if self.known < arguments.join_at:
                    continue
                joining = threading.Thread(target=self.join_late)
                joining.start()
            if joining is not None and self.snapshot is None:
                if not joining.is_alive():
                    sys.exit("no snapshot")
                continue
            if joining is not None and self.next == 1:
                messages, self.next = self.snapshot
                for message in messages:
                    self.books.apply(message)
                self.pending = {n: m for n, m in self.pending.items() if n >= self.next}
            self.advance()
            self.ask(requests)
        with open(arguments.write_books, "w", encoding="ascii") as file:
            file.write(self.books.text())
        began = self.snapshot[1] if self.snapshot else 1
        print(f"lost {self.lost} asked {self.asked} filled {self.filled} began {began} end {self.end}")


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--line", action="append", required=True)
    parser.add_argument("--interface-address", required=True)
    parser.add_argument("--request", required=True)
    parser.add_argument("--snapshot")
    parser.add_argument("--user", default="")
    parser.add_argument("--password-file")
    parser.add_argument("--join-at", type=int, default=0, help="number from which to join by a snapshot")
    parser.add_argument("--lose", type=int, default=0, help="packets of a line lost, of a thousand")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--write-books", required=True)
    Subscriber(parser.parse_args()).run()


main()
