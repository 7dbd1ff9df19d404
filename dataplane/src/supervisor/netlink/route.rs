//! One unicast route of the main table (`struct rtmsg` and `RTA_*`).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::codec::{Attributes, ip, u32_at};
use crate::net::Prefix;

const FIXED_BYTES: usize = 12;

/// Where packets of a prefix go. Of a multipath route the first path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Route {
    /// Destinations.
    pub prefix: Prefix,
    /// Interface to leave by.
    pub ifindex: u32,
    /// Router on that interface; `None` when the destination is on the link.
    pub gateway: Option<IpAddr>,
    /// Lower is preferred.
    pub metric: u32,
}

impl Route {
    /// The route an `RTM_NEWROUTE` or `RTM_DELROUTE` body describes; `None` for other tables than
    /// main, and for local, broadcast, multicast and unreachable routes.
    pub fn parse(body: &[u8]) -> Option<Self> {
        let family = i32::from(*body.first()?);
        let bits = *body.get(1)?;
        let mut table = u32::from(*body.get(4)?);
        let kind = *body.get(7)?;
        let flags = u32_at(body, 8)?;
        let any: IpAddr = match family {
            libc::AF_INET => Ipv4Addr::UNSPECIFIED.into(),
            libc::AF_INET6 => Ipv6Addr::UNSPECIFIED.into(),
            _ => return None,
        };
        let (mut destination, mut ifindex, mut gateway, mut metric) = (any, 0, None, 0);
        for (kind, value) in Attributes(body.get(FIXED_BYTES..)?) {
            match kind {
                libc::RTA_DST => destination = ip(value)?,
                libc::RTA_OIF => ifindex = u32_at(value, 0)?,
                libc::RTA_GATEWAY => gateway = ip(value),
                libc::RTA_PRIORITY => metric = u32_at(value, 0)?,
                libc::RTA_TABLE => table = u32_at(value, 0)?,
                // struct rtnexthop: length, flags, hops, ifindex; then its own attributes.
                libc::RTA_MULTIPATH => {
                    ifindex = u32_at(value, 4)?;
                    let length = usize::from(super::codec::u16_at(value, 0)?);
                    gateway = Attributes(value.get(8..length)?)
                        .find(|(kind, _)| *kind == libc::RTA_GATEWAY)
                        .and_then(|(_, value)| ip(value));
                }
                _ => {}
            }
        }
        let wanted = table == u32::from(libc::RT_TABLE_MAIN)
            && kind == libc::RTN_UNICAST
            && flags & libc::RTM_F_CLONED == 0
            && ifindex != 0;
        let prefix = Prefix::containing(destination, bits)?;
        wanted.then_some(Self { prefix, ifindex, gateway, metric })
    }
}
