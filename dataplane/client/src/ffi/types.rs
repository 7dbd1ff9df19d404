//! What crosses the C ABI: results and structures, as in `include/nautilus.h`.

use std::ffi::{CStr, c_void};

use nautilus_shm::attach::Code;

use crate::error::{AttachError, ReadError};
use crate::reader::{VERSION_MISS, VERSION_SUSPECT, Value};

/// Every result of a function.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(i32)]
pub(super) enum Status {
    Ok = 0,
    Miss = 1,
    Suspect = 2,
    WriterBusy = 3,
    Detached = 4,
    LeaseExpired = 5,
    BufferTooSmall = 6,
    TimedOut = 7,
    NewMemory = 8,
    BadArgument = 16,
    Refused = 17,
    NoCache = 18,
    Unreachable = 19,
    Incompatible = 20,
    Internal = 21,
}

impl Status {
    pub const ALL: [Self; 15] = [
        Self::Ok,
        Self::Miss,
        Self::Suspect,
        Self::WriterBusy,
        Self::Detached,
        Self::LeaseExpired,
        Self::BufferTooSmall,
        Self::TimedOut,
        Self::NewMemory,
        Self::BadArgument,
        Self::Refused,
        Self::NoCache,
        Self::Unreachable,
        Self::Incompatible,
        Self::Internal,
    ];

    pub fn text(self) -> &'static CStr {
        match self {
            Self::Ok => c"ok",
            Self::Miss => c"no such key",
            Self::Suspect => c"the feed of this key has a gap or is silent",
            Self::WriterBusy => c"the writer was faster than this reader, try again",
            Self::Detached => c"the cache is detached from its node, attach again",
            Self::LeaseExpired => c"the lease of this cache has run out",
            Self::BufferTooSmall => c"the buffer is smaller than the value",
            Self::TimedOut => c"no change in time",
            Self::NewMemory => c"attached to the memory of a node that has started anew",
            Self::BadArgument => c"a null pointer, an id that no cache can have or an unknown flag",
            Self::Refused => c"this user is not on the list of readers",
            Self::NoCache => c"this node has no such cache",
            Self::Unreachable => c"no supervisor is listening, or it does not answer",
            Self::Incompatible => c"the node is of another release",
            Self::Internal => c"a bug of this library",
        }
    }
}

impl From<ReadError> for Status {
    fn from(error: ReadError) -> Self {
        match error {
            ReadError::Miss => Self::Miss,
            ReadError::Suspect => Self::Suspect,
            ReadError::LeaseExpired => Self::LeaseExpired,
            ReadError::WriterBusy => Self::WriterBusy,
            ReadError::BufferTooSmall { .. } => Self::BufferTooSmall,
            ReadError::Detached => Self::Detached,
        }
    }
}

impl From<&AttachError> for Status {
    fn from(error: &AttachError) -> Self {
        match error {
            AttachError::CacheId(_) | AttachError::Path(_) => Self::BadArgument,
            AttachError::Connect { .. } | AttachError::Answer { .. } => Self::Unreachable,
            AttachError::Refused { code, .. } => match code {
                Code::Refused => Self::Refused,
                Code::NoCache => Self::NoCache,
                Code::NotReady => Self::Unreachable,
                // The last one answers requests that this library never makes.
                Code::Ok | Code::BadRequest | Code::Version | Code::Impossible => {
                    Self::Incompatible
                }
            },
            AttachError::Reply { .. } | AttachError::Region { .. } | AttachError::Table { .. } => {
                Self::Incompatible
            }
        }
    }
}

/// `struct nautilus_value`
#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
pub(super) struct CValue {
    pub version: u64,
    pub expiry_ns: u64,
    pub value_bytes: u32,
    pub flags: u32,
    pub channel: u32,
    pub reserved: u32,
}

impl CValue {
    pub fn of(result: Result<Value, ReadError>) -> Self {
        match result {
            Ok(value) => Self {
                version: value.version,
                expiry_ns: value.expiry_ns,
                value_bytes: value.value_bytes as u32,
                flags: value.flags,
                channel: value.channel.into(),
                reserved: 0,
            },
            Err(ReadError::Suspect) => Self { version: VERSION_SUSPECT, ..Self::default() },
            Err(ReadError::BufferTooSmall { value_bytes }) => {
                Self { value_bytes: value_bytes as u32, ..Self::default() }
            }
            Err(_) => Self { version: VERSION_MISS, ..Self::default() },
        }
    }
}

/// `struct nautilus_read`
#[derive(Debug)]
#[repr(C)]
pub(super) struct CRead {
    pub key: *const c_void,
    pub key_bytes: usize,
    pub out: *mut c_void,
    pub out_bytes: usize,
    pub value: CValue,
    pub status: i32,
    pub reserved: u32,
}
