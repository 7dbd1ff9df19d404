"""Reads a cache of a node on this host out of shared memory.

    import nautilus
    quotes = nautilus.CacheReader("/run/nautilus/node-1", "quotes")
    quotes.get("md:nasdaq:AAPL:bbo")                      # bytes
    bbo = quotes.get_record("md:nasdaq:AAPL:bbo")         # numpy.void
    bbo["bid_price"], bbo["bid_size"]

A layer of ctypes over the C ABI (include/nautilus.h), found by the variable NAUTILUS_CLIENT_LIBRARY, as
libnautilus_client.so beside this file, or where the system's loader finds it. numpy is needed for
records only. A reader may be shared by threads: each gets a handle of its own over the same mapping, and
calls run without the interpreter's lock.
"""

import ctypes
import ctypes.util
import os
import threading
from collections import namedtuple

__all__ = [
    "AttachError", "CacheReader", "Detached", "LeaseExpired", "Miss", "NautilusError", "RECORDS",
    "Suspect", "TimedOut", "VERSION_MISS", "VERSION_SUSPECT", "Value", "WriterBusy", "dtype_of",
    "key_of",
]

ABI_VERSION = 1
VALUE_BYTES_MAX = 1 << 20

# Versions that no value has, for wait_for_change: of a key that is not there, of one that is suspect.
VERSION_MISS = 0
VERSION_SUSPECT = (1 << 64) - 1

_ORIGIN = [
    ("layout_version", "<u2"), ("bytes", "<u2"), ("stock_locate", "<u2"), ("flags", "<u2"),
    ("source_sequence", "<u8"), ("capture_ns", "<u8"), ("exchange_ns", "<u8"),
    ("symbol", "S8"), ("session", "S10"),
]

# The records of market data by the last part of their key (md:{venue}:{symbol}:bbo), as numpy takes
# them: little-endian, packed. Prices are in 1e-4 of the currency unit. dataplane/src/feed/README.md
# says what each field means; a test holds the two together.
RECORDS = {
    "bbo": _ORIGIN + [
        ("reserved_0", "S6"),
        ("bid_price", "<u8"), ("ask_price", "<u8"), ("bid_size", "<u4"), ("ask_size", "<u4"),
        ("bid_orders", "<u4"), ("ask_orders", "<u4"), ("reserved_1", "S8"),
    ],
    "last": _ORIGIN + [
        ("kind", "S1"), ("side", "S1"), ("size", "<u4"), ("price", "<u8"), ("match_number", "<u8"),
        ("conditions", "u1"), ("reserved_0", "S7"),
    ],
    "status": _ORIGIN + [
        ("trading_state", "S1"), ("reg_sho", "S1"), ("reason", "S4"), ("halts", "S3"),
        ("ipo_qualifier", "S1"), ("ipo_release_s", "<u4"), ("trading_sequence", "<u8"),
        ("trading_ns", "<u8"), ("reg_sho_sequence", "<u8"), ("reg_sho_ns", "<u8"),
        ("halt_q_sequence", "<u8"), ("halt_q_ns", "<u8"), ("halt_b_sequence", "<u8"), ("halt_b_ns", "<u8"),
        ("halt_x_sequence", "<u8"), ("halt_x_ns", "<u8"), ("collar_sequence", "<u8"), ("collar_ns", "<u8"),
        ("collar_reference_price", "<u8"), ("collar_upper_price", "<u8"), ("collar_lower_price", "<u8"),
        ("collar_extension", "<u4"), ("imbalance_direction", "S1"), ("cross_type", "S1"),
        ("price_variation", "S1"), ("reserved_0", "S1"), ("ipo_sequence", "<u8"), ("ipo_ns", "<u8"),
        ("ipo_price", "<u8"), ("imbalance_sequence", "<u8"), ("imbalance_ns", "<u8"),
        ("paired_shares", "<u8"), ("imbalance_shares", "<u8"), ("far_price", "<u8"), ("near_price", "<u8"),
        ("imbalance_reference_price", "<u8"),
    ],
    "stats": _ORIGIN + [
        ("reserved_0", "S6"), ("orders", "<u8"), ("trades", "<u8"), ("shares", "<u8"), ("value", "<u8"),
        ("broken", "<u8"), ("unknown_breaks", "<u8"),
    ],
    # md:{venue}:status: what a venue says of itself.
    "venue_status": _ORIGIN + [
        ("event", "S1"), ("breach", "S1"), ("reserved_0", "S4"), ("event_sequence", "<u8"),
        ("event_ns", "<u8"), ("breach_sequence", "<u8"), ("breach_ns", "<u8"), ("levels_sequence", "<u8"),
        ("levels_ns", "<u8"), ("level_1", "<u8"), ("level_2", "<u8"), ("level_3", "<u8"),
    ],
}
# depth1 to depth10: as many levels a side, best first.
_LEVEL = [("price", "<u8"), ("size", "<u4"), ("orders", "<u4")]
DEPTH_MAX = 10
LAYOUT_VERSION = 1

# A value and what is known of it; a key without one has bytes None.
Value = namedtuple("Value", "bytes version flags expiry_ns channel")


class NautilusError(Exception):
    """Base of what this module raises."""


class Miss(NautilusError, LookupError):
    """The key was never written, or is deleted, expired, flushed or evicted."""


class Suspect(NautilusError):
    """The key's feed has a gap or is silent: a value exists and must not be used."""


class WriterBusy(NautilusError):
    """The key changed under 64 tries in a row: try again."""


class Detached(NautilusError):
    """The node has not been heard for 1 s: reattach()."""


class LeaseExpired(NautilusError):
    """No value of this cache may be used on this host."""


class TimedOut(NautilusError, TimeoutError):
    """A wait ended without a change."""


class AttachError(NautilusError):
    """No cache could be attached; the text says why."""


_OK, _BUFFER_TOO_SMALL, _TIMED_OUT, _NEW_MEMORY = 0, 6, 7, 8
_ERRORS = {1: Miss, 2: Suspect, 3: WriterBusy, 4: Detached, 5: LeaseExpired}
_AUTOMATIC = 1

# A wait returns to the interpreter this often, so that Ctrl-C works.
_SLICE_NS = 100_000_000


class _Value(ctypes.Structure):
    _fields_ = [
        ("version", ctypes.c_uint64),
        ("expiry_ns", ctypes.c_uint64),
        ("value_bytes", ctypes.c_uint32),
        ("flags", ctypes.c_uint32),
        ("channel", ctypes.c_uint32),
        ("reserved", ctypes.c_uint32),
    ]


def _load(path):
    path = path or os.environ.get("NAUTILUS_CLIENT_LIBRARY")
    if path is None:
        beside = os.path.join(os.path.dirname(os.path.abspath(__file__)), "libnautilus_client.so")
        path = beside if os.path.exists(beside) else ctypes.util.find_library("nautilus_client")
    if path is None:
        raise AttachError(
            "libnautilus_client.so was not found; NAUTILUS_CLIENT_LIBRARY may name its path")
    library = ctypes.CDLL(path)
    handle, size, text = ctypes.c_void_p, ctypes.c_size_t, ctypes.c_char_p
    value = ctypes.POINTER(_Value)
    for name, result, arguments in [
        ("abi_version", ctypes.c_uint32, []),
        ("status_text", text, [ctypes.c_int]),
        ("attach", ctypes.c_int,
         [text, text, ctypes.c_uint32, ctypes.POINTER(handle), text, size]),
        ("clone", ctypes.c_int, [handle, ctypes.POINTER(handle)]),
        ("close", None, [handle]),
        ("get", ctypes.c_int, [handle, text, size, text, size, value]),
        ("wait_for_change", ctypes.c_int,
         [handle, text, size, ctypes.c_uint64, ctypes.c_uint64, text, size, value]),
        ("reattach", ctypes.c_int, [handle, text, size]),
        ("heartbeat_age_ns", ctypes.c_uint64, [handle]),
    ]:
        function = getattr(library, "nautilus_" + name)
        function.restype, function.argtypes = result, arguments
    found = library.nautilus_abi_version()
    if found != ABI_VERSION:
        raise AttachError(f"{path} has version {found} of the C ABI, this module {ABI_VERSION}")
    return library


def key_of(venue, symbol, record):
    """The key of a record: key_of("nasdaq", "AAPL", "bbo")."""
    return f"md:{venue}:{symbol}:{record}"


def dtype_of(record):
    """The numpy dtype of a record: of those in RECORDS, or "depth1" to "depth10"."""
    import numpy

    levels = record[len("depth"):] if record.startswith("depth") else ""
    if levels.isdigit() and 1 <= int(levels) <= DEPTH_MAX:
        sides = [(side, _LEVEL, (int(levels),)) for side in ("bids", "asks")]
        return numpy.dtype(_ORIGIN + [("levels", "<u1"), ("reserved_0", "S5")] + sides)
    return numpy.dtype(RECORDS[record])


class _Handle:
    """One thread's handle and buffer."""

    def __init__(self, library, pointer):
        self.library, self.pointer = library, pointer
        self.value = _Value()
        self.resize(4096)

    def resize(self, size):
        self.buffer = ctypes.create_string_buffer(size)

    def __del__(self):
        self.library.nautilus_close(self.pointer)


class CacheReader:
    """One cache, read-only.

    path is the node's run directory or the supervisor.sock in it. The user must be on the cache's list
    (readers in the node file), or be root or the node's own. With automatic=True a read that would
    raise Detached attaches again first, at most every 20 ms.
    """

    def __init__(self, path, cache_id, automatic=False, library=None):
        self._library = _load(library)
        self._threads = threading.local()
        pointer = ctypes.c_void_p()
        error = ctypes.create_string_buffer(512)
        status = self._library.nautilus_attach(
            os.fsencode(path), cache_id.encode(), _AUTOMATIC if automatic else 0,
            ctypes.byref(pointer), error, len(error))
        if status != _OK:
            raise self._attach_error(status, error)
        # Of no thread: what others are cloned from. reattach() moves it on.
        self._first = _Handle(self._library, pointer)
        self._lock = threading.Lock()

    def get(self, key):
        """The value as bytes. Raises Miss, Suspect, Detached, WriterBusy or LeaseExpired."""
        return self.read(key).bytes

    def read(self, key):
        """The value with its version, flags, expiry and channel. Raises as get does."""
        handle, key = self._handle(), _key(key)

        def call(value):
            return self._library.nautilus_get(
                handle.pointer, key, len(key), handle.buffer, len(handle.buffer), value)

        return self._finish(handle, call)

    def get_record(self, key):
        """The value as a numpy.void with the fields of RECORDS, chosen by the end of the key."""
        parts = (key if isinstance(key, str) else key.decode()).split(":")
        of_venue = len(parts) == 3 and parts[2] == "status"
        return _record("venue_status" if of_venue else parts[-1], self.get(key))

    def wait_for_change(self, key, last_version, timeout=None):
        """Waits until the key differs from last_version and returns it as read does.

        last_version is the version of a Value, VERSION_MISS or VERSION_SUSPECT: what was last seen. A
        key that went away raises Miss, one that turned suspect Suspect; without a change within timeout
        seconds (None: ever) TimedOut is raised.
        """
        handle, key = self._handle(), _key(key)
        left_ns = None if timeout is None else max(0, int(timeout * 1e9))
        while True:
            slice_ns = _SLICE_NS if left_ns is None else min(left_ns, _SLICE_NS)

            def call(value):
                return self._library.nautilus_wait_for_change(
                    handle.pointer, key, len(key), last_version, slice_ns, handle.buffer,
                    len(handle.buffer), value)

            try:
                return self._finish(handle, call)
            except TimedOut:
                if left_ns is not None:
                    left_ns -= slice_ns
                    if left_ns <= 0:
                        raise

    def reattach(self):
        """Asks the supervisor again, after Detached; for this thread and those that read later.

        True when the node has started anew and its cache began empty, False when its supervisor was
        away and the memory is the same.
        """
        error = ctypes.create_string_buffer(512)
        status = self._library.nautilus_reattach(self._handle().pointer, error, len(error))
        if status not in (_OK, _NEW_MEMORY):
            raise self._attach_error(status, error)
        with self._lock:
            self._library.nautilus_reattach(self._first.pointer, None, 0)
        return status == _NEW_MEMORY

    def heartbeat_age_ns(self):
        """Nanoseconds since the node was last heard; reads raise Detached above 1,000,000,000."""
        return self._library.nautilus_heartbeat_age_ns(self._handle().pointer)

    def _handle(self):
        handle = getattr(self._threads, "handle", None)
        if handle is None:
            pointer = ctypes.c_void_p()
            with self._lock:
                status = self._library.nautilus_clone(self._first.pointer, ctypes.byref(pointer))
            if status != _OK:
                raise self._attach_error(status)
            handle = self._threads.handle = _Handle(self._library, pointer)
        return handle

    def _finish(self, handle, call):
        value = handle.value
        status = call(ctypes.byref(value))
        while status == _BUFFER_TOO_SMALL:
            # The value may grow meanwhile, up to the largest there can be.
            handle.resize(min(2 * value.value_bytes, VALUE_BYTES_MAX))
            status = call(ctypes.byref(value))
        if status == _OK:
            data = ctypes.string_at(handle.buffer, value.value_bytes)
            return Value(data, value.version, value.flags, value.expiry_ns, value.channel)
        text = self._library.nautilus_status_text(status).decode()
        if status == _TIMED_OUT:
            raise TimedOut(text)
        raise _ERRORS.get(status, NautilusError)(text)

    def _attach_error(self, status, error=None):
        text = error.value.decode(errors="replace") if error is not None else ""
        return AttachError(text or self._library.nautilus_status_text(status).decode())


def _key(key):
    return key.encode() if isinstance(key, str) else bytes(key)


def _record(name, data):
    import numpy

    dtype = dtype_of(name)
    if len(data) != dtype.itemsize:
        raise NautilusError(f"a {name} record of {len(data)} bytes, {dtype.itemsize} are expected")
    record = numpy.frombuffer(data, dtype)[0]
    if record["layout_version"] != LAYOUT_VERSION:
        raise NautilusError(
            f"a {name} record of layout {record['layout_version']}, this module knows {LAYOUT_VERSION}")
    return record
