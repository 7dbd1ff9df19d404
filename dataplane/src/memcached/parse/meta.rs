//! Lines of the meta protocol. Flags are single characters with a token behind them; each may stand
//! once. Ours stand behind an `@`, which is no letter and so none that memcached could take; most are
//! known to `mg` alone, `@t` to `ms`.

use nautilus_shm::table::KEY_BYTES_MAX;

use super::{Data, Next, Refusal, Request, data, length, words};
use crate::memcached::base64;
use crate::memcached::number;

/// Words of a line from which on memcached refuses it, the verb not counted.
const WORDS_MAX: usize = 18;

/// Bytes of an opaque token.
const OPAQUE_BYTES_MAX: usize = 31;

/// The meta commands with a key and flags.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MetaVerb {
    /// `mg`
    Get,
    /// `ms`
    Set,
    /// `md`
    Delete,
    /// `ma`
    Arithmetic,
}

/// A key of a meta command.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Key<'a> {
    /// As it stands in the text.
    Text(&'a [u8]),
    /// It stood there in base64: any bytes.
    Binary {
        /// The first `length` of these.
        bytes: [u8; base64::DECODED_BYTES_MAX],
        /// 1 to 186.
        length: u8,
    },
}

impl Key<'_> {
    /// The key: 1 to 250 bytes.
    pub fn bytes(&self) -> &[u8] {
        match self {
            Self::Text(key) => key,
            Self::Binary { bytes, length } => &bytes[..usize::from(*length)],
        }
    }

    fn decoded(text: &[u8]) -> Option<Self> {
        let mut bytes = [0; base64::DECODED_BYTES_MAX];
        let length = base64::decode(text, &mut bytes)?;
        Some(Self::Binary { bytes, length: length as u8 })
    }
}

impl std::fmt::Debug for Key<'_> {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(out, "Key({})", self.bytes().escape_ascii())
    }
}

/// Our own flags of `mg` and `ms`, see `README.md` beside this folder.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Own {
    /// `@m`: a value older than so many microseconds is a miss.
    pub age_us_max: Option<u64>,
    /// `@s`: a value whose feed is suspect is wanted all the same.
    pub wants_suspect: bool,
    /// `@t`: the value ends after so many milliseconds.
    pub ttl_ms: Option<u64>,
}

/// `mg`, `ms`, `md` or `ma`, checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Meta<'a> {
    /// Which.
    pub verb: MetaVerb,
    /// The key.
    pub key: Key<'a>,
    /// The words of the flags as they came; see [`flags`].
    pub flags: &'a [u8],
    /// The value of `ms`; empty for the others.
    pub data: Data<'a>,
    /// `q`: nothing is answered when nothing went wrong (for `mg`: to a miss).
    pub quiet: bool,
    /// `u`: this is no use of the value.
    pub is_no_use: bool,
    /// `v`
    pub wants_value: bool,
    /// `l`
    pub wants_last_access: bool,
    /// `I`
    pub invalidates: bool,
    /// `C`: the version that must be there.
    pub version: Option<u64>,
    /// `T`: a new expiry time.
    pub expiry_seconds: Option<i64>,
    /// `N`: what is missing is made, with this expiry time.
    pub vivify_seconds: Option<i64>,
    /// `R`: below so much time left, somebody is told to fetch anew.
    pub recache_seconds: Option<i64>,
    /// `F`
    pub client_flags: u32,
    /// `M`; 0 where there is none.
    pub mode: u8,
    /// `D`; 1 where there is none.
    pub delta: u64,
    /// `J`; 0 where there is none.
    pub initial: u64,
    /// Ours.
    pub own: Own,
}

/// The flags of a request, each with its token.
pub fn flags(text: &[u8]) -> impl Iterator<Item = (u8, &[u8])> {
    words(text).filter_map(|word| word.split_first().map(|(flag, token)| (*flag, token)))
}

impl<'a> Meta<'a> {
    fn new(verb: MetaVerb, key: &'a [u8], flags: &'a [u8]) -> Self {
        Self {
            verb,
            key: Key::Text(key),
            flags,
            data: Data::Whole(b""),
            quiet: false,
            is_no_use: false,
            wants_value: false,
            wants_last_access: false,
            invalidates: false,
            version: None,
            expiry_seconds: None,
            vivify_seconds: None,
            recache_seconds: None,
            client_flags: 0,
            mode: 0,
            delta: 1,
            initial: 0,
            own: Own::default(),
        }
    }

    /// Takes the flags in. Like memcached, which goes on after most mistakes and tells the last.
    fn read_flags(&mut self) -> Result<(), Refusal> {
        let mut seen = 0u128;
        let mut seen_own = 0u128;
        let mut wrong = None;
        for (flag, token) in flags(self.flags) {
            let own = flag == b'@' && matches!(self.verb, MetaVerb::Get | MetaVerb::Set);
            let (name, seen) = match token.first() {
                Some(&name) if own => (name, &mut seen_own),
                _ => (flag, &mut seen),
            };
            if name >= 127 || *seen & 1 << name != 0 {
                return Err(Refusal::DuplicateFlag);
            }
            *seen |= 1 << name;
            let result = if own { self.read_own(token) } else { self.read_flag(flag, token) };
            match result {
                Err(Refusal::InvalidFlag) => return Err(Refusal::InvalidFlag),
                // memcached says nothing special of this one.
                Err(Refusal::BadFormat) => wrong = wrong.or(Some(Refusal::BadFormat)),
                Err(refusal) => wrong = Some(refusal),
                Ok(()) => {}
            }
        }
        wrong.map_or(Ok(()), Err)
    }

    fn read_flag(&mut self, flag: u8, token: &'a [u8]) -> Result<(), Refusal> {
        let time = || number::signed(token).ok_or(Refusal::Token).map(Some);
        let unsigned = |refusal| number::unsigned(token).ok_or(refusal);
        match flag {
            b'b' => {
                let Key::Text(text) = self.key else { return Ok(()) };
                self.key = Key::decoded(text).ok_or(Refusal::KeyDecoding)?;
            }
            b'N' => self.vivify_seconds = time()?,
            b'T' => self.expiry_seconds = time()?,
            b'R' => self.recache_seconds = time()?,
            b'F' => self.client_flags = unsigned(Refusal::BadFormat)? as u32,
            b'C' => self.version = Some(unsigned(Refusal::Token)?),
            b'J' => self.initial = unsigned(Refusal::InitialValue)?,
            b'D' => self.delta = unsigned(Refusal::DeltaValue)?,
            b'M' => match token {
                [mode] => self.mode = *mode,
                _ => return Err(Refusal::ModeLength),
            },
            b'l' => self.wants_last_access = true,
            b'v' => self.wants_value = true,
            b'u' => self.is_no_use = true,
            b'q' => self.quiet = true,
            b'I' => self.invalidates = true,
            b'O' | b'P' | b'L' | b'k' | b's' | b't' | b'c' | b'f' | b'h' => {}
            _ => return Err(Refusal::InvalidFlag),
        }
        Ok(())
    }

    fn read_own(&mut self, token: &[u8]) -> Result<(), Refusal> {
        let is_get = self.verb == MetaVerb::Get;
        match token {
            [b't', ttl @ ..] if !is_get => {
                self.own.ttl_ms = Some(number::unsigned(ttl).ok_or(Refusal::Token)?);
            }
            _ if !is_get => return Err(Refusal::InvalidFlag),
            b"v" | b"a" | b"c" | b"n" => {}
            b"s" => self.own.wants_suspect = true,
            [b'm', bound @ ..] => {
                self.own.age_us_max = Some(number::unsigned(bound).ok_or(Refusal::Token)?);
            }
            _ => return Err(Refusal::InvalidFlag),
        }
        Ok(())
    }

    /// What is wrong with the tokens once the flags are known.
    fn check(&self) -> Result<(), Refusal> {
        let modes: (&[u8], Refusal) = match self.verb {
            MetaVerb::Set => (b"EAPRS", Refusal::StoreMode),
            MetaVerb::Arithmetic => (b"ID+-", Refusal::ArithmeticMode),
            MetaVerb::Get | MetaVerb::Delete => (&[], Refusal::Unknown),
        };
        if self.mode != 0 && !modes.0.is_empty() && !modes.0.contains(&self.mode) {
            return Err(modes.1);
        }
        let too_long =
            flags(self.flags).any(|(flag, token)| flag == b'O' && token.len() > OPAQUE_BYTES_MAX);
        if too_long { Err(Refusal::OpaqueTooLong) } else { Ok(()) }
    }
}

/// The verb's key and flags; how many words there are.
fn split(line: &[u8]) -> (&[u8], &[u8], usize) {
    let mut flags = line;
    let key = super::take_word(&mut flags);
    (key, flags, words(line).count())
}

pub(super) fn request(verb: MetaVerb, line: &[u8]) -> Request<'_> {
    let (key, flags, count) = split(line);
    let refused = Request::refused;
    if count == 0 {
        return refused(Refusal::Unknown);
    }
    if key.len() > KEY_BYTES_MAX {
        return refused(Refusal::KeyTooLong);
    }
    if count > WORDS_MAX {
        let is_get = verb == MetaVerb::Get;
        return refused(if is_get { Refusal::MetaGetWords } else { Refusal::MetaWords });
    }
    let mut meta = Meta::new(verb, key, flags);
    if let Err(refusal) = meta.read_flags() {
        let is_get = verb == MetaVerb::Get;
        return refused(if is_get { refusal } else { Refusal::InvalidOrDuplicateFlag });
    }
    meta.check().map_or_else(refused, |()| Request::Meta(meta))
}

pub(super) fn store<'a>(line: &'a [u8], rest: &'a [u8]) -> Next<'a> {
    let (key, mut flags, count) = split(line);
    let refused = |refusal, data_bytes| Next::Request(Request::refused(refusal), data_bytes);
    let early = match count {
        0 => Some(Refusal::Unknown),
        _ if key.len() > KEY_BYTES_MAX => Some(Refusal::KeyTooLong),
        1 => Some(Refusal::BadFormat),
        _ if count > WORDS_MAX => Some(Refusal::MetaWords),
        _ => None,
    };
    if let Some(refusal) = early {
        return refused(refusal, 0);
    }
    let Some(length) = length(super::take_word(&mut flags)) else {
        return refused(Refusal::BadFormat, 0);
    };
    let mut meta = Meta::new(MetaVerb::Set, key, flags);
    if let Err(refusal) = meta.read_flags().and_then(|()| meta.check()) {
        return refused(refusal, length + 2);
    }
    meta.data = match data(length, rest) {
        Ok(Data::Unterminated) => return refused(Refusal::BadDataChunk, length + 2),
        Ok(data) => data,
        Err(needed) => return Next::Incomplete { needed },
    };
    Next::Request(Request::Meta(meta), length + 2)
}

pub(super) fn debug(line: &[u8]) -> Request<'_> {
    let (key, flags, count) = split(line);
    if count == 0 || key.len() > KEY_BYTES_MAX {
        return Request::refused(if count == 0 { Refusal::BadFormat } else { Refusal::KeyTooLong });
    }
    if words(flags).next() != Some(b"b") {
        return Request::MetaDebug { key: Key::Text(key) };
    }
    match Key::decoded(key) {
        Some(key) => Request::MetaDebug { key },
        None => Request::refused(Refusal::BadFormat),
    }
}
