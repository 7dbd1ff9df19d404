//! Capabilities, dumps, and no way back to either. The only unsafe code of this package.
#![allow(unsafe_code)]

use std::io;

use nix::sys::prctl;
use nix::sys::resource::{Resource, setrlimit};

/// `_LINUX_CAPABILITY_VERSION_3` (capset(2)): two words a set.
const VERSION: u32 = 0x2008_0522;

#[repr(C)]
struct Header {
    version: u32,
    pid: i32,
}

#[repr(C)]
#[derive(Clone, Copy, Default)]
struct Data {
    effective: u32,
    permitted: u32,
    inheritable: u32,
}

pub fn no_new() -> Result<(), String> {
    prctl::set_no_new_privs().map_err(|errno| errno.to_string())
}

/// Memory with keys or others' values reaches no core file and no other process of the same user.
pub fn no_dump() -> Result<(), String> {
    setrlimit(Resource::RLIMIT_CORE, 0, 0).map_err(|errno| errno.to_string())?;
    prctl::set_dumpable(false).map_err(|errno| errno.to_string())
}

/// Empties every set, of the calling thread and of those it starts.
pub fn no_capabilities() -> Result<(), String> {
    // Without CAP_SETPCAP there is nothing that could come out of it: its supervisor has emptied it.
    let _ = empty_bounding_set();
    let header = Header { version: VERSION, pid: 0 };
    let none = [Data::default(); 2];
    // SAFETY: both structs have the layout of capset(2) and outlive the call, which only reads them.
    let result = unsafe { libc::syscall(libc::SYS_capset, &raw const header, none.as_ptr()) };
    checked(result).map(drop).map_err(|error| error.to_string())
}

pub fn empty_bounding_set() -> Result<(), String> {
    for capability in 0..64 {
        // SAFETY: takes integers and touches no memory of ours.
        let result = unsafe { libc::prctl(libc::PR_CAPBSET_DROP, capability, 0, 0, 0) };
        match checked(result.into()) {
            Ok(_) => {}
            // Beyond the last one that this kernel knows.
            Err(error) if error.raw_os_error() == Some(libc::EINVAL) => break,
            Err(error) => return Err(error.to_string()),
        }
    }
    Ok(())
}

fn checked(result: i64) -> io::Result<i64> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}
