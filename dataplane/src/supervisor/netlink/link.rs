//! One link as `RTM_NEWLINK` describes it (`struct ifinfomsg` and `IFLA_*`).

use super::codec::{Attributes, bytes_at, u16_at, u32_at};

const FIXED_BYTES: usize = 16;

// `linux/if_link.h`; libc lacks these.
const IFLA_NUM_RX_QUEUES: u16 = 32;
const IFLA_XDP: u16 = 43;
const IFLA_INFO_KIND: u16 = 1;
const IFLA_INFO_DATA: u16 = 2;
const IFLA_INFO_SLAVE_KIND: u16 = 4;
const IFLA_XDP_ATTACHED: u16 = 2;
const IFLA_XDP_PROG_ID: u16 = 4;
const IFLA_VLAN_ID: u16 = 1;

/// A network interface.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Link {
    /// Kernel index, never reused while the namespace lives.
    pub ifindex: u32,
    /// Kernel name.
    pub name: String,
    /// Bytes of the largest IP packet.
    pub mtu: u32,
    /// Ethernet address; zeros where there is none.
    pub mac: [u8; 6],
    /// `IFF_UP`: switched on by an administrator.
    pub up: bool,
    /// `IFF_LOWER_UP`: carrier is there.
    pub carrier: bool,
    /// `IFF_LOOPBACK`.
    pub loopback: bool,
    /// Kind of a virtual device (`veth`, `bond`, `vlan`, ...); empty for a physical one.
    pub kind: String,
    /// Kind of the master it is enslaved to; empty when to none.
    pub slave_kind: String,
    /// Index of the device below a VLAN device, or of a veth's peer; 0 for none.
    pub parent: u32,
    /// 802.1Q identifier of a VLAN device, else 0.
    pub vlan: u16,
    /// Receive queues.
    pub rx_queues: u32,
    /// Id of the attached XDP program, 0 for none.
    pub xdp_program: u32,
    /// `XDP_ATTACHED_*`: 0 none, 1 driver, 2 generic, 3 offloaded, 4 several.
    pub xdp_mode: u8,
}

impl Link {
    /// The link an `RTM_NEWLINK` or `RTM_DELLINK` body describes.
    pub fn parse(body: &[u8]) -> Option<Self> {
        let mut link = Self { ifindex: u32_at(body, 4)?, rx_queues: 1, ..Self::default() };
        let flags = u32_at(body, 8)?;
        link.up = flags & libc::IFF_UP as u32 != 0;
        link.carrier = flags & libc::IFF_LOWER_UP as u32 != 0;
        link.loopback = flags & libc::IFF_LOOPBACK as u32 != 0;
        for (kind, value) in Attributes(body.get(FIXED_BYTES..)?) {
            match kind {
                libc::IFLA_IFNAME => link.name = text(value),
                libc::IFLA_MTU => link.mtu = u32_at(value, 0)?,
                libc::IFLA_ADDRESS => link.mac = bytes_at(value, 0).unwrap_or_default(),
                libc::IFLA_LINK => link.parent = u32_at(value, 0)?,
                libc::IFLA_LINKINFO => link.parse_info(value),
                IFLA_NUM_RX_QUEUES => link.rx_queues = u32_at(value, 0)?,
                IFLA_XDP => {
                    for (kind, value) in Attributes(value) {
                        match kind {
                            IFLA_XDP_ATTACHED => link.xdp_mode = *value.first()?,
                            IFLA_XDP_PROG_ID => link.xdp_program = u32_at(value, 0)?,
                            _ => {}
                        }
                    }
                }
                _ => {}
            }
        }
        Some(link)
    }

    fn parse_info(&mut self, info: &[u8]) {
        for (kind, value) in Attributes(info) {
            match kind {
                IFLA_INFO_KIND => self.kind = text(value),
                IFLA_INFO_SLAVE_KIND => self.slave_kind = text(value),
                IFLA_INFO_DATA if self.kind == "vlan" => {
                    for (kind, value) in Attributes(value) {
                        if kind == IFLA_VLAN_ID {
                            self.vlan = u16_at(value, 0).unwrap_or_default();
                        }
                    }
                }
                _ => {}
            }
        }
    }
}

fn text(value: &[u8]) -> String {
    let end = value.iter().position(|byte| *byte == 0).unwrap_or(value.len());
    String::from_utf8_lossy(&value[..end]).into_owned()
}

#[cfg(test)]
mod tests {
    use super::super::codec::Request;
    use super::*;

    /// A VLAN device 7 over a link, as a kernel with CONFIG_VLAN_8021Q sends it.
    #[test]
    fn a_vlan_device_is_known_by_its_info() {
        let mut fixed = [0u8; FIXED_BYTES];
        fixed[4..8].copy_from_slice(&5u32.to_ne_bytes());
        fixed[8..12].copy_from_slice(&1u32.to_ne_bytes());
        let nest = |kind: u16, value: &[u8]| {
            Request::new(0, 0, 0, &[]).attribute(kind, value).finish()[16..].to_vec()
        };
        let id = nest(IFLA_VLAN_ID, &7u16.to_ne_bytes());
        let mut info = nest(IFLA_INFO_KIND, b"vlan\0");
        info.resize(info.len().next_multiple_of(4), 0);
        info.extend(nest(IFLA_INFO_DATA, &id));
        let body = Request::new(16, 0, 0, &fixed)
            .attribute(libc::IFLA_IFNAME, b"eth0.7\0")
            .attribute(libc::IFLA_LINK, &2u32.to_ne_bytes())
            .attribute(libc::IFLA_LINKINFO, &info)
            .finish();
        let link = Link::parse(&body[16..]).unwrap();
        assert_eq!((link.ifindex, link.name.as_str(), link.parent), (5, "eth0.7", 2));
        assert_eq!(
            (link.kind.as_str(), link.vlan, link.up, link.carrier),
            ("vlan", 7, true, false)
        );
    }
}
