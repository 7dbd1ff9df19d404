//! One entry of the neighbour table (`struct ndmsg` and `NDA_*`).

use std::net::IpAddr;

use super::codec::{Attributes, bytes_at, ip, u16_at, u32_at};

const FIXED_BYTES: usize = 12;

/// What the kernel knows of an address on a link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Neighbour {
    /// The interface.
    pub ifindex: u32,
    /// The neighbour's address.
    pub address: IpAddr,
    /// Its link address, when the entry may be used (reachable, stale, delay, probe, permanent,
    /// noarp); `None` while it is being resolved or has failed.
    pub mac: Option<[u8; 6]>,
}

impl Neighbour {
    /// The entry an `RTM_NEWNEIGH` or `RTM_DELNEIGH` body describes; bridge entries are not.
    pub fn parse(body: &[u8]) -> Option<Self> {
        let family = i32::from(*body.first()?);
        if family != libc::AF_INET && family != libc::AF_INET6 {
            return None;
        }
        let ifindex = u32_at(body, 4)?;
        let state = u16_at(body, 8)?;
        let usable = libc::NUD_REACHABLE
            | libc::NUD_STALE
            | libc::NUD_DELAY
            | libc::NUD_PROBE
            | libc::NUD_PERMANENT
            | libc::NUD_NOARP;
        let (mut address, mut mac) = (None, None);
        for (kind, value) in Attributes(body.get(FIXED_BYTES..)?) {
            match kind {
                libc::NDA_DST => address = ip(value),
                libc::NDA_LLADDR => mac = bytes_at::<6>(value, 0),
                _ => {}
            }
        }
        Some(Self { ifindex, address: address?, mac: mac.filter(|_| state & usable != 0) })
    }
}
