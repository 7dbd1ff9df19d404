//! `mg` and `md` on the worker's table, with everything they can change.

use nautilus_ebpf::intf::Permissions;
use nautilus_shm::metrics::labels::CacheVerb;
use nautilus_shm::table::{ApplyError, Hit, HotSet, Marks, Mutation, Op, TableWriter, Words};

use super::core::{Core, FeedOwned};
use super::counts::Outcome;
use super::meta_get::{Effects, Facts, Found, find};
use super::reads::{write_echoes, write_meta_miss, write_meta_value};
use super::sink::{Line, Sink};
use super::table::Item;
use crate::memcached::parse::{self, Meta, MetaVerb};
use crate::memcached::reply::text_sum;

/// Whether XDP answers such a request from a hot slot (`ebpf/src/meta.h`).
fn may_be_hot(meta: &Meta<'_>) -> bool {
    parse::flags(meta.flags).all(|(flag, _)| b"vfcskqtO".contains(&flag))
}

impl<W: Words, H: HotSet> Core<W, H> {
    pub(super) fn meta<S>(
        &mut self,
        now_ns: u64,
        permissions: Permissions,
        meta: &Meta<'_>,
        sink: &mut S,
    ) where
        S: Sink<TableWriter<W, H>>,
    {
        match meta.verb {
            MetaVerb::Get => {
                self.meta_get(now_ns, permissions.allows(Permissions::WRITE), meta, sink);
            }
            MetaVerb::Set => self.meta_set(now_ns, meta, sink),
            MetaVerb::Delete => self.meta_delete(now_ns, meta, sink),
            MetaVerb::Arithmetic => self.meta_arithmetic(now_ns, meta, sink),
        }
    }

    /// Who may not write is not told to fetch anything anew: nobody else would then.
    fn meta_get<S>(&mut self, now_ns: u64, may_write: bool, meta: &Meta<'_>, sink: &mut S)
    where
        S: Sink<TableWriter<W, H>>,
    {
        self.counts.verb(CacheVerb::Mg);
        // The worker's own table can always be read.
        let Ok((found, facts)) = find(&mut self.table, now_ns, meta) else { return };
        let facts = Facts { realtime_offset_ns: self.realtime_offset_ns, ..facts };
        match found {
            Found::Value(item, hit) => {
                self.counts.outcome(Outcome::Hit);
                self.answer_value(meta, may_write, item, &hit, facts, sink);
            }
            Found::Nothing => {
                self.counts.outcome(Outcome::Miss);
                // A value that is too old, or whose feed is suspect, is there all the same.
                let is_absent = matches!(self.held(now_ns, meta.key.bytes()), Ok(None));
                if meta.vivify_seconds.is_some() && is_absent {
                    self.answer_new(meta, facts, sink);
                } else {
                    write_meta_miss(meta, &facts, sink);
                }
            }
        }
    }

    fn answer_value<S>(
        &mut self,
        meta: &Meta<'_>,
        may_write: bool,
        item: Item,
        hit: &Hit,
        facts: Facts,
        sink: &mut S,
    ) where
        S: Sink<TableWriter<W, H>>,
    {
        let key = meta.key.bytes();
        let effects = Effects::of(meta, Some(&item), facts.now_ns, facts.realtime_offset_ns);
        if meta.expiry_seconds.is_some() {
            let expiry_ns = effects.expiry_ns;
            let touch = Mutation { expiry_ns, ..Mutation::new(key, Op::Touch) };
            if self.table.apply(self.hash(key), &touch, facts.now_ns) == Err(ApplyError::FeedOwned)
            {
                let text = self.feed_owned();
                return sink.text(text);
            }
            self.counts.outcome(Outcome::TouchHit);
        }
        let wins = effects.wins && may_write;
        if wins {
            self.table.mark_won(hit);
        }
        let facts = Facts { wins, ..facts };
        write_meta_value(&self.table, meta, &item, hit, &facts, sink);
        if H::IS_THERE && !meta.is_no_use && may_be_hot(meta) {
            let hash = self.hash(key);
            if self.table.hot_mut().asked(hash.bits(), key, hit) {
                self.table.show(key, hit);
            }
        }
    }

    /// Makes an empty value and tells this client to fill it. One change, so that no other client can
    /// find it and not be told.
    fn answer_new<S>(&mut self, meta: &Meta<'_>, facts: Facts, sink: &mut S)
    where
        S: Sink<TableWriter<W, H>>,
    {
        let key = meta.key.bytes();
        let effects = Effects::of(meta, None, facts.now_ns, facts.realtime_offset_ns);
        let put = Mutation {
            expiry_ns: effects.expiry_ns,
            text_sum: text_sum(key, 0, b""),
            marks: Marks { fetched: false, stale: false, won: true },
            ..Mutation::new(key, Op::Set(b""))
        };
        let Ok(version) = self.table.apply(self.hash(key), &put, facts.now_ns) else {
            return write_meta_miss(meta, &facts, sink);
        };
        let item = Item {
            flags: 0,
            value_bytes: 0,
            version,
            channel: 0,
            expiry_ns: 0,
            written_us: facts.now_ns / 1_000,
            last_access_s: (facts.now_ns / 1_000_000_000) as u32,
            was_fetched: false,
            is_stale: false,
            is_won: false,
        };
        let facts = Facts { wins: true, is_new: true, ..facts };
        super::reads::write_meta_head(meta, &item, &facts, sink);
        if meta.wants_value {
            sink.text(b"\r\n");
        }
        // Made and handed out: that it is asked for again is the next request's.
        if !meta.is_no_use {
            let _ = self.table.get(self.hash(key), key, facts.now_ns);
        }
    }

    fn meta_delete<S>(&mut self, now_ns: u64, meta: &Meta<'_>, sink: &mut S)
    where
        S: Sink<TableWriter<W, H>>,
    {
        self.counts.verb(CacheVerb::Md);
        let key = meta.key.bytes();
        let code: &[u8] = match self.held(now_ns, key) {
            Err(FeedOwned) => {
                let text = self.feed_owned();
                return sink.text(text);
            }
            Ok(None) => {
                self.counts.outcome(Outcome::DeleteMiss);
                b"NF"
            }
            Ok(Some(hit)) if meta.version.is_some_and(|version| version != hit.version) => {
                self.counts.outcome(Outcome::DeleteMiss);
                b"EX"
            }
            Ok(Some(hit)) => {
                if meta.invalidates {
                    let expiry_ns = match meta.expiry_seconds {
                        Some(seconds) => self.deadline_ns(seconds, now_ns),
                        None => hit.expiry_ns,
                    };
                    let stale = Mutation { expiry_ns, ..Mutation::new(key, Op::Invalidate) };
                    let _ = self.table.apply(self.hash(key), &stale, now_ns);
                } else {
                    let _ = self.delete(now_ns, key);
                }
                b"HD"
            }
        };
        if meta.quiet && code == b"HD" {
            return;
        }
        let mut line = Line::new(code);
        write_echoes(&mut line, meta);
        line.push(b"\r\n");
        sink.text(line.text());
    }
}
