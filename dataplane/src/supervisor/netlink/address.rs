//! One address of an interface (`struct ifaddrmsg` and `IFA_*`).

use std::net::IpAddr;

use super::codec::{Attributes, ip, u32_at};

const FIXED_BYTES: usize = 8;

/// An address the kernel has given to an interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Address {
    /// The interface.
    pub ifindex: u32,
    /// The address.
    pub address: IpAddr,
    /// Leading bits of its network.
    pub bits: u8,
    /// Usable beyond the link: scope global or site, and (IPv6) not tentative.
    pub global: bool,
}

impl Address {
    /// The address an `RTM_NEWADDR` or `RTM_DELADDR` body describes.
    pub fn parse(body: &[u8]) -> Option<Self> {
        let bits = *body.get(1)?;
        let mut flags = u32::from(*body.get(2)?);
        let scope = *body.get(3)?;
        let ifindex = u32_at(body, 4)?;
        let (mut address, mut local) = (None, None);
        for (kind, value) in Attributes(body.get(FIXED_BYTES..)?) {
            match kind {
                libc::IFA_ADDRESS => address = ip(value),
                libc::IFA_LOCAL => local = ip(value),
                libc::IFA_FLAGS => flags = u32_at(value, 0)?,
                _ => {}
            }
        }
        let unusable = libc::IFA_F_TENTATIVE | libc::IFA_F_DADFAILED;
        // On point-to-point links IFA_ADDRESS is the peer's.
        Some(Self {
            ifindex,
            address: local.or(address)?,
            bits,
            global: scope < libc::RT_SCOPE_LINK && flags & unusable == 0,
        })
    }
}
