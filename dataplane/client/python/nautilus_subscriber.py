"""Subscribes to the records of a feed that a node distributes over the network.

    import nautilus_subscriber as ns
    with ns.Subscriber(("198.18.0.1", 26700), records=["bbo", "last"], symbols=["AAPL"]) as feed:
        for event in feed.events(seconds=5):
            if event.kind == "bbo" and feed.is_believable():
                print(event.symbol, event.record)           # bytes; nautilus.dtype_of("bbo") reads them

Python's standard library is enough. The formats are those of dataplane/src/feed/distribution/README.md. As a
command it prints what comes: python3 nautilus_subscriber.py 198.18.0.1:26700 --records bbo --seconds 5
"""

import argparse
import random
import socket
import struct
import sys
import time
from collections import namedtuple

__all__ = ["Event", "KINDS", "Refused", "Subscriber", "Subscription"]

# By the bit of a request.
KINDS = ["bbo", "last", "status", "stats", "depth", "venue_status", "venue_stats"]
_CODES = dict(zip(b"BLSTDVW", KINDS))
REASONS = [
    "", "malformed", "version", "not entitled", "records", "depth", "symbols", "node is full",
    "too many subscriptions", "unknown", "slow", "lease over", "unsubscribed", "number is taken",
    "halted",
]
_REQUEST = struct.Struct("<4sccBBQQQIH26x")
_REPLY = struct.Struct("<4scBcxQQ10sH4xQQQ")
_MOLD = struct.Struct(">10sQH")
_HEAD = struct.Struct("<cBHI")
END_OF_SESSION = 0xFFFF
SYMBOLS_MAX = 128
SILENCE_LIMIT_S = 0.3
AGAIN_S = 0.005
RENEW_AGAIN_S = 0.05
HELD_MAX = 1024
ASKED_MAX = 4

# What happened: a record (kind of KINDS), "state" ("suspect", "live", "session"), "image" ("begins",
# "ends"), "mode" ("conflated"). symbol is None but for records of stocks.
Event = namedtuple("Event", "kind symbol record is_image left_out")


class Refused(Exception):
    """The node does not serve this subscription; the text is the reason."""


class Subscription:
    """One subscription without socket and clock: datagrams in, events and datagrams out.

    records: names of KINDS. symbols: at most 128; none stands for all. interval_us: where conflated.
    """

    def __init__(self, records, symbols=(), depth=0, conflated=False, interval_us=0, number=None):
        if len(symbols) > SYMBOLS_MAX:
            raise ValueError(f"{len(symbols)} symbols; at most {SYMBOLS_MAX} in one subscription")
        self._records = sum(1 << KINDS.index(name) for name in set(records))
        self._symbols = [symbol.encode().ljust(8) for symbol in symbols]
        self._mode = b"C" if conflated else b"F"
        self._depth, self._interval_us = depth, interval_us
        self._number = random.getrandbits(63) if number is None else number
        self._cookie = 0
        self.ended = None
        self.asked = self.lost_images = 0
        self._leave()

    def _leave(self):
        self.session = None
        self.expected = self._known_next = 1
        self._held = {}
        self._lease_s = 0.0
        self._asked = {}
        self._renewed = float("-inf")
        self._is_renewed = False
        self._heard = float("-inf")
        self._is_live = self._has_image = False

    def is_believable(self, now):
        """Whether the records received hold true at this time."""
        return (self._is_live and self._has_image and self.expected >= self._known_next
                and now - self._heard <= SILENCE_LIMIT_S)

    def _request(self, verb, symbols=()):
        front = _REQUEST.pack(
            b"NXD1", verb, self._mode, self._records, self._depth, self._number, self._cookie,
            self.expected, self._interval_us, len(symbols))
        return front + b"".join(symbols)

    def unsubscribe(self):
        """The datagram that ends it."""
        return self._request(b"U")

    def poll(self, now):
        """Datagrams that are due."""
        due = []
        if self.session is None:
            if now - self._renewed >= AGAIN_S:
                self._renewed = now
                due.append(self._request(b"S", self._symbols))
            return due
        quarter_s = max(self._lease_s / 4, AGAIN_S)
        # Without an answer sooner: a line that loses does not lose them all.
        if now - self._renewed >= (quarter_s if self._is_renewed else min(quarter_s, RENEW_AGAIN_S)):
            self._renewed, self._is_renewed = now, False
            due.append(self._request(b"R"))
        for first, end in self._missing():
            if now - self._asked.get(first, float("-inf")) >= AGAIN_S:
                self._asked[first] = now
                self.asked += 1
                due.append(_MOLD.pack(self.session, first, min(end - first, 128)))
        return due

    def _missing(self):
        """The first ranges of numbers that are missing, as many as a node answers at once."""
        missing, at = [], self.expected
        if at >= self._known_next:
            return missing
        for sequence in sorted(self._held) + [self._known_next]:
            if sequence > at:
                missing.append((at, sequence))
            if len(missing) == ASKED_MAX or sequence == self._known_next:
                break
            at = max(at, sequence + _MOLD.unpack_from(self._held[sequence])[2])
        return missing

    def receive(self, now, datagram):
        """Takes a datagram in; the events it brought, in order."""
        events = []
        if datagram[:4] == b"NXR1" and len(datagram) == _REPLY.size:
            self._hear(now, _REPLY.unpack(datagram), events)
        elif self.session is not None and len(datagram) >= _MOLD.size:
            self._take_packet(now, datagram, events)
        return events

    def _hear(self, now, reply, events):
        (_, verdict, reason, _, number, cookie, session, lease_ms, _, _, image_sequence) = reply
        if number != self._number:
            return
        if verdict == b"K":
            self._cookie, self._renewed = cookie, float("-inf")
        elif verdict == b"X" and self.session is None:
            raise Refused(REASONS[reason])
        elif verdict == b"A" and self.session is None:
            self.session, self._lease_s, self._heard = session, lease_ms / 1000, now
            self._is_renewed = True
        elif verdict == b"E" and self.session is not None:
            self.ended = REASONS[reason]
            self._leave()
        elif verdict in (b"A", b"G") and session == self.session:
            self._is_renewed |= verdict == b"A"
            self._skip_to(image_sequence, events)

    def _skip_to(self, image_sequence, events):
        if image_sequence > self.expected:
            # Nothing before an image is needed.
            self.expected = image_sequence
            self._known_next = max(self._known_next, image_sequence)
            self._has_image = False
            self.lost_images += 1
            self._take_held(events)

    def _take_packet(self, now, datagram, events):
        session, sequence, count = _MOLD.unpack_from(datagram)
        if session != self.session:
            return
        count = 0 if count == END_OF_SESSION else count
        self._heard = now
        self._known_next = max(self._known_next, sequence + count)
        if count == 0:
            return
        if sequence > self.expected:
            if len(self._held) < HELD_MAX:
                self._held[sequence] = datagram
            return
        self._apply(datagram, events)
        self._take_held(events)

    def _take_held(self, events):
        if not self._held:
            self._asked.clear()
        # Packets that follow each other are found by their numbers; others by looking at all.
        while (datagram := self._held.pop(self.expected, None)) is not None:
            self._apply(datagram, events)
        for sequence in [number for number in self._held if number < self.expected]:
            self._apply(self._held.pop(sequence), events)

    def _apply(self, datagram, events):
        _, sequence, count = _MOLD.unpack_from(datagram)
        at = _MOLD.size
        for number in range(sequence, sequence + count):
            (length,) = struct.unpack_from(">H", datagram, at)
            message = datagram[at + 2:at + 2 + length]
            at += 2 + length
            if number == self.expected:
                self.expected += 1
                self._interpret(message, events)

    def _interpret(self, message, events):
        kind, flags, _, left_out = _HEAD.unpack_from(message)
        rest = message[_HEAD.size:]
        self._is_live = not flags & 2
        if kind == b"C":
            events.append(Event("state", None, ["suspect", "live", "session"][rest[0]], False, 0))
        elif kind == b"I":
            self._has_image = rest[:1] == b"E"
            said = "ends" if self._has_image else "begins"
            events.append(Event("image", None, said, True, 0))
        elif kind == b"M":
            self._mode = rest[:1]
            events.append(Event("mode", None, "conflated", False, 0))
        elif kind[0] in _CODES:
            symbol = rest[32:40].decode().rstrip() or None
            events.append(Event(_CODES[kind[0]], symbol, rest, bool(flags & 1), left_out))


class Subscriber:
    """A subscription over a UDP socket. node is (host, port) of the feed's endpoint."""

    def __init__(self, node, records=("bbo",), **wanted):
        self.subscription = Subscription(records, **wanted)
        family = socket.getaddrinfo(*node, type=socket.SOCK_DGRAM)[0][0]
        self._socket = socket.socket(family, socket.SOCK_DGRAM)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 << 20)
        self._socket.connect(node)
        self._socket.settimeout(0.002)

    def is_believable(self):
        """Whether the records received hold true now."""
        return self.subscription.is_believable(time.monotonic())

    def events(self, seconds=None):
        """Yields what comes, for so many seconds or until it is closed. Raises Refused."""
        end = None if seconds is None else time.monotonic() + seconds
        while end is None or time.monotonic() < end:
            yield from self.step()

    def step(self):
        """Sends what is due, waits 2 ms at most, and returns what has come."""
        events = []
        for datagram in self.subscription.poll(time.monotonic()):
            self._send(datagram)
        for datagram in self._receive():
            events += self.subscription.receive(time.monotonic(), datagram)
        return events

    def _send(self, datagram):
        try:
            self._socket.send(datagram)
        except OSError:
            # A node that is not there yet: it is tried again.
            time.sleep(AGAIN_S)

    def _receive(self):
        datagrams = []
        try:
            datagrams.append(self._socket.recv(2048))
            while len(datagrams) < 256:
                datagrams.append(self._socket.recv(2048, socket.MSG_DONTWAIT))
        except OSError:
            pass
        return datagrams

    def close(self):
        """Says that nothing more is wanted."""
        if self.subscription.session is not None:
            self._send(self.subscription.unsubscribe())
        self._socket.close()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()


def _node(text):
    host, port = text.rsplit(":", 1)
    return host.strip("[]"), int(port)


def main():
    parser = argparse.ArgumentParser(description="Prints the records of a feed as they come.")
    parser.add_argument("node", type=_node, help="ADDRESS:PORT of the feed's endpoint")
    parser.add_argument("--records", default="bbo", help="of " + ",".join(KINDS))
    parser.add_argument("--symbols", default="", help="comma between them; none: all")
    parser.add_argument("--depth", type=int, default=0, help="levels a side of depth records")
    parser.add_argument("--conflate-us", type=int, help="the newest record, once in so long")
    parser.add_argument("--seconds", type=float, help="how long; for ever without")
    options = parser.parse_args()
    subscriber = Subscriber(
        options.node, records=options.records.split(","), depth=options.depth,
        symbols=[symbol for symbol in options.symbols.split(",") if symbol],
        conflated=options.conflate_us is not None, interval_us=options.conflate_us or 0)
    try:
        with subscriber as feed:
            for event in feed.events(options.seconds):
                said = event.record.hex() if isinstance(event.record, bytes) else event.record
                believed = "live" if feed.is_believable() else "suspect"
                print(event.kind, event.symbol or "-", believed, said, flush=True)
    except Refused as refused:
        sys.exit(f"refused: {refused}")
    except KeyboardInterrupt:
        pass


if __name__ == "__main__":
    main()
