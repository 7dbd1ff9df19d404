"""Uses every function of nautilus.py on the node that tests/python.rs runs: check.py RUN_DIR.

Prints what the Rust side compares, one line each, and what it waits for ("waiting", "anew").
"""

import sys
import threading

import numpy

import nautilus


def raises(error, call, *arguments, **named):
    try:
        call(*arguments, **named)
    except error as raised:
        return raised
    raise AssertionError(f"{call} did not raise {error}")


def say(line):
    print(line, flush=True)


run_dir = sys.argv[1]
for name in nautilus.RECORDS:
    dtype = nautilus.dtype_of(name)
    for field in dtype.names:
        kind, offset = dtype.fields[field]
        say(f"layout {name} {offset} {field} {kind.str.replace('|', '')}")
    say(f"size {name} {dtype.itemsize}")

text = str(raises(nautilus.AttachError, nautilus.CacheReader, run_dir, "orders"))
assert "no such cache" in text, text
raises(nautilus.AttachError, nautilus.CacheReader, "/nowhere", "quotes")
reader = nautilus.CacheReader(run_dir, "quotes")
assert reader.heartbeat_age_ns() < 1_000_000_000

assert reader.get("plain") == b"plain value" == reader.get(b"plain")
value = reader.read("plain")
assert value.flags == 7 and value.channel == 0 and value.expiry_ns == 0 and value.version > 0
assert reader.get("empty") == b""
assert reader.get("large") == bytes(i % 251 for i in range(1 << 20))
raises(nautilus.Miss, reader.get, "absent")
raises(LookupError, reader.get, "absent")
raises(nautilus.Suspect, reader.get, "suspect")

for name in nautilus.RECORDS:
    key = "md:nasdaq:status" if name == "venue_status" else nautilus.key_of("nasdaq", "AAPL", name)
    record = reader.get_record(key)
    assert isinstance(record, numpy.void)
    assert reader.get_record(key.encode()) == record
    for field in record.dtype.names:
        content = record[field]
        content = content.decode() if isinstance(content, bytes) else int(content)
        say(f"value {name} {field} {content}")
depth = reader.get_record("md:nasdaq:AAPL:depth2")
assert (depth["levels"], depth["bytes"], depth["symbol"]) == (2, 120, b"AAPL    "), depth
assert depth["bids"].tolist() == [(5_000, 10, 1), (4_999, 20, 2)], depth
assert depth["asks"].tolist() == [(5_001, 30, 3), (0, 0, 0)], depth
raises(nautilus.NautilusError, reader.get_record, "short:bbo")
raises(nautilus.NautilusError, reader.get_record, "other-layout:last")


def in_a_thread(failures):
    try:
        for _ in range(2000):
            assert reader.get("plain") == b"plain value"
    except BaseException as error:
        failures.append(error)


failures = []
threads = [threading.Thread(target=in_a_thread, args=(failures,)) for _ in range(3)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
assert not failures, failures

last = reader.read("changing").version
raises(nautilus.TimedOut, reader.wait_for_change, "changing", last, 0.15)
raises(TimeoutError, reader.wait_for_change, "changing", last, timeout=0)
say("waiting")
changed = reader.wait_for_change("changing", last, timeout=10)
assert changed.bytes == b"changed" and changed.version > last
raises(nautilus.Miss, reader.wait_for_change, "absent", 5, 10)
raises(nautilus.Suspect, reader.wait_for_change, "suspect", nautilus.VERSION_MISS)

assert reader.reattach() is False
automatic = nautilus.CacheReader(run_dir, "quotes", automatic=True)
say("anew")
while True:
    try:
        reader.get("plain")
    except nautilus.Detached:
        break
while not reader.reattach():
    pass
raises(nautilus.Miss, reader.get, "plain")
raises(nautilus.Miss, automatic.get, "plain")
say("all as expected")
