//! What answering needs of a table, so that the worker answers from the table it writes and the front
//! from shared memory with the same code.

use nautilus_shm::table::{
    Hit, HotSet, ReadError, ReadHit, TableReader, TableWriter, VALUE_BYTES_MAX, ValueReader, Words,
};

/// What is known of a value beside its bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Item {
    /// The client's flags.
    pub flags: u32,
    /// Length of the value in bytes.
    pub value_bytes: u32,
    /// Version of the value: memcached's CAS unique.
    pub version: u64,
    /// 0 = client-owned.
    pub channel: u8,
    /// Deadline, `CLOCK_MONOTONIC` nanoseconds; 0 = never.
    pub expiry_ns: u64,
    /// When it was stored, `CLOCK_MONOTONIC` microseconds.
    pub written_us: u64,
    /// Second of `CLOCK_MONOTONIC` in which it was last asked for; 0 where that was not wanted.
    pub last_access_s: u32,
    /// Whether it was asked for before, since it was stored.
    pub was_fetched: bool,
    /// Whether it has been invalidated.
    pub is_stale: bool,
    /// Whether a reader has been told to fetch it anew.
    pub is_won: bool,
}

impl From<&Hit> for Item {
    fn from(hit: &Hit) -> Self {
        Self {
            flags: hit.flags,
            value_bytes: hit.value_bytes,
            version: hit.version,
            channel: hit.channel,
            expiry_ns: hit.expiry_ns,
            written_us: hit.written_us,
            last_access_s: 0,
            was_fetched: hit.was_fetched,
            is_stale: hit.is_stale,
            is_won: hit.is_won,
        }
    }
}

impl From<&ReadHit> for Item {
    fn from(hit: &ReadHit) -> Self {
        Self {
            flags: hit.flags,
            value_bytes: hit.value_bytes as u32,
            version: hit.version,
            channel: hit.channel,
            expiry_ns: hit.expiry_ns,
            written_us: hit.written_us,
            last_access_s: hit.last_access_s,
            was_fetched: hit.marks.fetched,
            is_stale: hit.marks.stale,
            is_won: hit.marks.won,
        }
    }
}

/// What a look-up should do beside looking.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Wants {
    /// Whether it counts as a use of the value.
    pub use_counts: bool,
    /// Whether [`Item::last_access_s`] is wanted.
    pub last_access: bool,
    /// Whether a value whose feed is suspect is wanted; else it is a miss.
    pub suspect: bool,
}

/// What a look-up found; `V` stands for the value's bytes.
#[derive(Clone, Copy, Debug)]
pub enum Look<V> {
    /// A value that may be used.
    Hit(Item, V),
    /// A value whose feed has a gap or is silent.
    Suspect(Item, V),
    /// Nothing.
    Miss,
    /// The table cannot be read at this moment.
    Unavailable(ReadError),
}

/// A table that can be read.
pub trait ReadTable {
    /// What stands for the bytes of a value that was found; good until the next look-up or change.
    type Value: Copy;
    /// A place in a value.
    type Reader;

    /// Looks a key of 1 to 250 bytes up, as of `now_ns` (`CLOCK_MONOTONIC`).
    fn look(&mut self, key: &[u8], now_ns: u64, wants: Wants) -> Look<Self::Value>;

    /// The start of a value.
    fn reader(&self, value: &Self::Value) -> Self::Reader;

    /// Copies the next bytes of a value into `out`; returns how many there were.
    fn read(&self, reader: &mut Self::Reader, out: &mut [u8]) -> usize;
}

/// The worker's own table. Values stay good over further look-ups.
impl<W: Words, H: HotSet> ReadTable for TableWriter<W, H> {
    type Value = Hit;
    type Reader = ValueReader;

    fn look(&mut self, key: &[u8], now_ns: u64, wants: Wants) -> Look<Hit> {
        let hash = self.hash(key);
        let hit = match wants.use_counts {
            true => self.get(hash, key, now_ns),
            false => self.peek(hash, key, now_ns),
        };
        if let Some(hit) = hit {
            let last_access_s = if wants.last_access { hit.last_access_s(now_ns) } else { 0 };
            return Look::Hit(Item { last_access_s, ..Item::from(&hit) }, hit);
        }
        match wants.suspect.then(|| self.suspect(hash, key, now_ns)).flatten() {
            Some(hit) => Look::Suspect(Item::from(&hit), hit),
            None => Look::Miss,
        }
    }

    fn reader(&self, value: &Hit) -> ValueReader {
        self.value(value)
    }

    fn read(&self, reader: &mut ValueReader, out: &mut [u8]) -> usize {
        Self::read(self, reader, out)
    }
}

/// A table of another process. Look-ups count nothing there.
#[derive(Debug)]
pub struct SharedTable<W> {
    reader: TableReader<W>,
    value: Box<[u8]>,
}

impl<W: Words> SharedTable<W> {
    /// A table and the memory for one value, which is allocated here.
    pub fn new(reader: TableReader<W>) -> Self {
        Self { reader, value: vec![1; VALUE_BYTES_MAX].into() }
    }

    /// [`TableReader::tell`].
    #[inline]
    pub fn tell(&self, ring: usize, key: &[u8]) {
        self.reader.tell(ring, key);
    }

    /// The value that was found last, of this length.
    pub fn bytes(&self, value_bytes: usize) -> &[u8] {
        &self.value[..value_bytes]
    }
}

/// The value last found is the only one that is good.
impl<W: Words> ReadTable for SharedTable<W> {
    /// Its length.
    type Value = usize;
    /// What is left of it.
    type Reader = std::ops::Range<usize>;

    fn look(&mut self, key: &[u8], now_ns: u64, wants: Wants) -> Look<usize> {
        match self.reader.look(key, now_ns, &mut self.value) {
            Ok(hit) if !hit.is_suspect => Look::Hit(Item::from(&hit), hit.value_bytes),
            Ok(hit) if wants.suspect => Look::Suspect(Item::from(&hit), hit.value_bytes),
            Ok(_) | Err(ReadError::Miss | ReadError::Suspect) => Look::Miss,
            Err(error) => Look::Unavailable(error),
        }
    }

    fn reader(&self, value: &usize) -> std::ops::Range<usize> {
        0..*value
    }

    fn read(&self, reader: &mut std::ops::Range<usize>, out: &mut [u8]) -> usize {
        let count = reader.len().min(out.len());
        out[..count].copy_from_slice(&self.value[reader.start..reader.start + count]);
        reader.start += count;
        count
    }
}
