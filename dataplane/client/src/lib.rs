//! Reads a node's cache out of shared memory, in about a tenth of a microsecond and without asking
//! anybody. `README.md` beside this crate has the plan; start at [`CacheReader`].
//!
//! ```no_run
//! use nautilus_client::{CacheReader, ReadError};
//!
//! let mut quotes = CacheReader::attach("/run/nautilus/node-1", "quotes")?;
//! let mut record = [0; 128];
//! match quotes.get(b"md:nasdaq:AAPL:bbo", &mut record) {
//!     Ok(value) => println!("{:?}", &record[..value.value_bytes]),
//!     Err(ReadError::Suspect) => println!("do not trade on this"),
//!     Err(error) => println!("{error}"),
//! }
//! # Ok::<(), nautilus_client::AttachError>(())
//! ```
#![deny(unsafe_code)]

mod attach;
mod error;
mod ffi;
mod look;
mod many;
mod reader;
mod telling;
mod wait;

pub use error::{AttachError, ReadError, WaitError};
pub use look::Look;
pub use many::Read;
pub use nautilus_shm::table::{KEY_BYTES_MAX, VALUE_BYTES_MAX};
pub use reader::{CacheReader, Reattached, VERSION_MISS, VERSION_SUSPECT, Value};
pub use wait::{PAUSE_NS_MAX, SPIN_NS};
