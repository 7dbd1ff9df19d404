"""A subscriber of a node that loses datagrams both ways, and writes down what it holds once told to end."""

import argparse
import random
import sys
import threading

import nautilus_subscriber as ns


class Lossy(ns.Subscriber):
    """Loses so many datagrams of a thousand."""

    def __init__(self, *arguments, lose, seed, **wanted):
        super().__init__(*arguments, **wanted)
        self.random, self.lose, self.lost = random.Random(seed), lose, 0

    def is_lost(self):
        lost = self.random.randrange(1000) < self.lose
        self.lost += lost
        return lost

    def _send(self, datagram):
        if not self.is_lost():
            super()._send(datagram)

    def _receive(self):
        return [datagram for datagram in super()._receive() if not self.is_lost()]


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("node", type=ns._node)
    parser.add_argument("--records", default=",".join(ns.KINDS))
    parser.add_argument("--symbols", default="")
    parser.add_argument("--depth", type=int, default=0)
    parser.add_argument("--conflate-us", type=int)
    parser.add_argument("--lose", type=int, default=0)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--write", required=True)
    options = parser.parse_args()
    over = threading.Event()
    threading.Thread(target=lambda: (sys.stdin.read(), over.set()), daemon=True).start()
    records, states, ends, counts = {}, [], [], {"changes": 0, "left_out": 0, "images": 0, "slowed": 0}
    try:
        with Lossy(
            options.node, records=options.records.split(","), depth=options.depth,
            symbols=[symbol for symbol in options.symbols.split(",") if symbol],
            conflated=options.conflate_us is not None, interval_us=options.conflate_us or 0,
            lose=options.lose, seed=options.seed,
        ) as feed:
            session = None
            while not (over.is_set() and feed.is_believable()):
                for event in feed.step():
                    if event.kind == "state":
                        states.append(event.record)
                    elif event.kind == "image":
                        counts["images"] += event.record == "ends"
                    elif event.kind == "mode":
                        counts["slowed"] += 1
                    else:
                        counts["changes"] += not event.is_image
                        counts["left_out"] += event.left_out
                        records[event.kind, event.symbol or "-"] = event.record.hex()
                    # A record of a session or image before is none of this one.
                    if event.record == "session" or event.kind == "image" and event.record == "begins":
                        records.clear()
                if feed.subscription.session != session:
                    session = feed.subscription.session
                    if session:
                        print("session", session.decode(), flush=True)
                    elif feed.subscription.ended:
                        ends.append(feed.subscription.ended)
            with open(options.write, "w") as file:
                for (kind, symbol), record in sorted(records.items()):
                    file.write(f"{kind} {symbol} {record}\n")
            asked, lost = feed.subscription.asked, feed.lost
    except ns.Refused as refused:
        print("refused", refused)
        return
    said = " ".join(f"{name} {count}" for name, count in counts.items())
    print(f"end {said} asked {asked} lost {lost} states {','.join(states)} ends {','.join(ends)}")


main()
