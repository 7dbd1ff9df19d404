//! `set add replace append prepend cas` and `ms`: one way to store a value, two ways to say what came
//! of it.

use nautilus_shm::metrics::labels::{CacheError, CacheVerb};
use nautilus_shm::table::{ApplyError, Hit, HotSet, Marks, Mutation, Op, TableWriter, Words};

use super::core::{Core, FeedOwned, say};
use super::counts::Outcome;
use super::reads::write_echo;
use super::sink::{Line, Sink};
use crate::memcached::parse::{self, Data, Meta, Store, StoreVerb};
use crate::memcached::reply::text_sum;

/// What should be stored.
struct Change<'a> {
    verb: StoreVerb,
    key: &'a [u8],
    flags: u32,
    expiry_ns: u64,
    data: Data<'a>,
    /// The version that must be there; 0 is none's.
    version: Option<u64>,
    /// Whether a value of an older version is stored all the same, as stale.
    may_be_stale: bool,
}

/// What came of it.
enum Stored {
    /// Under this version.
    As(u64),
    /// What must be there is not, or what must not be is.
    Refused,
    Exists,
    NotFound,
    TooLarge,
    FeedOwned,
}

impl<W: Words, H: HotSet> Core<W, H> {
    pub(super) fn classic_store<S>(&mut self, now_ns: u64, store: &Store<'_>, sink: &mut S)
    where
        S: Sink<TableWriter<W, H>>,
    {
        let verb = store.verb;
        self.counts.verb(match verb {
            StoreVerb::Set => CacheVerb::Set,
            StoreVerb::Add => CacheVerb::Add,
            StoreVerb::Replace => CacheVerb::Replace,
            StoreVerb::Append => CacheVerb::Append,
            StoreVerb::Prepend => CacheVerb::Prepend,
            StoreVerb::Cas => CacheVerb::Cas,
        });
        let change = Change {
            verb,
            key: store.key,
            flags: store.flags,
            expiry_ns: self.deadline_ns(store.expiry_seconds, now_ns),
            data: store.data,
            version: (verb == StoreVerb::Cas).then_some(store.version),
            may_be_stale: false,
        };
        let text: &[u8] = match self.store(now_ns, &change) {
            Stored::As(_) => b"STORED\r\n",
            Stored::Refused => b"NOT_STORED\r\n",
            Stored::Exists => b"EXISTS\r\n",
            Stored::NotFound => b"NOT_FOUND\r\n",
            // The client wanted the old value gone: rather none than a stale one, as memcached.
            Stored::TooLarge if verb == StoreVerb::Set => self.too_large(now_ns, store.key),
            Stored::TooLarge => super::TOO_LARGE,
            Stored::FeedOwned => self.feed_owned(),
        };
        say(sink, text, store.no_reply);
    }

    pub(super) fn meta_set<S>(&mut self, now_ns: u64, meta: &Meta<'_>, sink: &mut S)
    where
        S: Sink<TableWriter<W, H>>,
    {
        self.counts.verb(CacheVerb::Ms);
        let verb = match (meta.mode, meta.version) {
            (b'E', _) => StoreVerb::Add,
            (b'A', _) => StoreVerb::Append,
            (b'P', _) => StoreVerb::Prepend,
            (_, Some(_)) => StoreVerb::Cas,
            (b'R', None) => StoreVerb::Replace,
            (_, None) => StoreVerb::Set,
        };
        let key = meta.key.bytes();
        let change = Change {
            verb,
            key,
            flags: meta.client_flags,
            expiry_ns: match meta.own.ttl_ms {
                Some(ttl_ms) => now_ns.saturating_add(ttl_ms.saturating_mul(1_000_000)),
                None => self.deadline_ns(meta.expiry_seconds.unwrap_or(0), now_ns),
            },
            data: meta.data,
            version: meta.version,
            may_be_stale: meta.invalidates,
        };
        let (code, version): (&[u8], u64) = match self.store(now_ns, &change) {
            Stored::As(_) if meta.quiet => return,
            Stored::As(version) => (b"HD", version),
            Stored::Refused => (b"NS", 0),
            Stored::Exists => (b"EX", 0),
            Stored::NotFound => (b"NF", 0),
            Stored::TooLarge => {
                let text = self.too_large(now_ns, key);
                return sink.text(text);
            }
            Stored::FeedOwned => {
                let text = self.feed_owned();
                return sink.text(text);
            }
        };
        let mut line = Line::new(code);
        for (flag, token) in parse::flags(meta.flags) {
            if !write_echo(&mut line, meta, flag, token) && flag == b'c' {
                line.flag(b" c", version);
            }
        }
        line.push(b"\r\n");
        sink.text(line.text());
    }

    fn too_large(&mut self, now_ns: u64, key: &[u8]) -> &'static [u8] {
        match self.delete(now_ns, key) {
            Err(Some(FeedOwned)) => self.feed_owned(),
            _ => super::TOO_LARGE,
        }
    }

    fn store(&mut self, now_ns: u64, change: &Change<'_>) -> Stored {
        let value = match change.data {
            Data::Whole(value) if value.len() <= self.value_bytes_max => value,
            _ => {
                self.counts.error(CacheError::ValueTooLarge);
                return Stored::TooLarge;
            }
        };
        // A plain `set` looks at nothing but what `apply` finds.
        if change.verb == StoreVerb::Set {
            return self.put(now_ns, change, value, change.expiry_ns, Marks::default());
        }
        let held = match self.held(now_ns, change.key) {
            Ok(held) => held,
            Err(FeedOwned) => return Stored::FeedOwned,
        };
        match (change.verb, held) {
            (StoreVerb::Cas, None) => {
                self.counts.outcome(Outcome::CasMiss);
                Stored::NotFound
            }
            (StoreVerb::Cas, Some(hit)) => self.compare_and_store(now_ns, change, value, &hit),
            (StoreVerb::Add, Some(_)) | (StoreVerb::Replace, None) => Stored::Refused,
            (StoreVerb::Append | StoreVerb::Prepend, None) => Stored::Refused,
            (StoreVerb::Append | StoreVerb::Prepend, Some(hit)) => {
                // A version of 0 demands none.
                match change.version {
                    Some(version) if version != 0 && version != hit.version => Stored::Exists,
                    _ => self.extend(now_ns, change, value, &hit),
                }
            }
            (StoreVerb::Set | StoreVerb::Add | StoreVerb::Replace, _) => {
                self.put(now_ns, change, value, change.expiry_ns, Marks::default())
            }
        }
    }

    fn compare_and_store(
        &mut self,
        now_ns: u64,
        change: &Change<'_>,
        value: &[u8],
        hit: &Hit,
    ) -> Stored {
        let version = change.version.unwrap_or(0);
        let older = version != 0 && version < hit.version;
        if version == hit.version {
            self.counts.outcome(Outcome::CasHit);
            self.put(now_ns, change, value, change.expiry_ns, Marks::default())
        } else if change.may_be_stale && older {
            self.counts.outcome(Outcome::CasHit);
            let marks = Marks { fetched: false, stale: true, won: hit.is_won };
            self.put(now_ns, change, value, hit.expiry_ns, marks)
        } else {
            self.counts.outcome(Outcome::CasBadVersion);
            Stored::Exists
        }
    }

    /// Puts old and new value together; flags and deadline stay.
    fn extend(&mut self, now_ns: u64, change: &Change<'_>, value: &[u8], hit: &Hit) -> Stored {
        let old_bytes = hit.value_bytes as usize;
        let bytes = old_bytes + value.len();
        if bytes > self.value_bytes_max {
            self.counts.error(CacheError::ValueTooLarge);
            return Stored::Refused;
        }
        let (old_at, new_at) = match change.verb {
            StoreVerb::Prepend => (value.len(), 0),
            _ => (0, old_bytes),
        };
        let mut reader = self.table.value(hit);
        self.table.read(&mut reader, &mut self.scratch[old_at..old_at + old_bytes]);
        self.scratch[new_at..new_at + value.len()].copy_from_slice(value);
        let whole = &self.scratch[..bytes];
        let (flags, expiry_ns) = (hit.flags, hit.expiry_ns);
        let text_sum = text_sum(change.key, flags, whole);
        let put =
            Mutation { flags, expiry_ns, text_sum, ..Mutation::new(change.key, Op::Set(whole)) };
        match self.table.apply(self.table.hash(change.key), &put, now_ns) {
            Ok(version) => {
                self.counts.outcome(Outcome::Stored);
                Stored::As(version)
            }
            Err(ApplyError::FeedOwned) => Stored::FeedOwned,
            Err(_) => Stored::Refused,
        }
    }

    fn put(
        &mut self,
        now_ns: u64,
        change: &Change<'_>,
        value: &[u8],
        expiry_ns: u64,
        marks: Marks,
    ) -> Stored {
        let &Change { key, flags, .. } = change;
        let text_sum = text_sum(key, flags, value);
        let set = Mutation::new(key, Op::Set(value));
        let put = Mutation { flags, expiry_ns, text_sum, marks, ..set };
        match self.table.apply(self.table.hash(key), &put, now_ns) {
            Ok(version) => {
                self.counts.outcome(Outcome::Stored);
                Stored::As(version)
            }
            Err(ApplyError::FeedOwned) => Stored::FeedOwned,
            Err(_) => {
                self.counts.error(CacheError::ValueTooLarge);
                Stored::TooLarge
            }
        }
    }
}
