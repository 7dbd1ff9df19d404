//! The sockets: one request, one answer.

use std::os::fd::{AsRawFd, OwnedFd};

use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, bind, recv, send,
    setsockopt, socket, sockopt,
};
use nix::sys::time::TimeVal;

use super::NetlinkError;
use super::codec::{Writer, attribute, messages, u32_at};
use crate::knob::Group;

/// `NLM_F_REQUEST`, `NLM_F_ACK`.
const REQUEST: u16 = 1;
const ACK: u16 = 4;
/// `NLMSG_ERROR`.
const ERROR: u16 = 2;
/// `GENL_ID_CTRL`, `CTRL_CMD_GETFAMILY`, `CTRL_ATTR_FAMILY_ID`, `CTRL_ATTR_FAMILY_NAME`.
const CONTROLLER: u16 = 16;
const GET_FAMILY: u8 = 3;
const FAMILY_ID: u16 = 1;
const FAMILY_NAME: u16 = 2;
/// `RTM_GETLINK`, `IFLA_IFNAME`; bytes of `struct ifinfomsg`.
const GET_LINK: u16 = 18;
const LINK_NAME: u16 = 3;
const LINK_BYTES: usize = 16;
/// Bytes of `struct genlmsghdr`.
const GENERIC_BYTES: usize = 4;
/// `ETHTOOL_A_*_HEADER`, `ETHTOOL_A_HEADER_DEV_NAME`.
const HEADER: u16 = 1;
const HEADER_NAME: u16 = 2;
/// Largest answer: an interface's link message with statistics and virtual functions is some KiB.
const ANSWER_BYTES: usize = 64 * 1024;
/// The kernel answers within the call that asks; too low fails on a busy host, too high hangs there.
const ANSWER_SECONDS: i64 = 5;

/// Number of `ETHTOOL_MSG_*_GET`; the next one is `_SET`.
fn get_command(group: Group) -> Option<u8> {
    Some(match group {
        Group::Features => 11,
        Group::Rings => 15,
        Group::Channels => 17,
        Group::Coalesce => 19,
        Group::Pause => 21,
        Group::Eee => 23,
        Group::Link => return None,
    })
}

/// Sockets of both families.
#[derive(Debug)]
pub struct NetlinkSocket {
    generic: OwnedFd,
    route: OwnedFd,
    family: Option<u16>,
    sequence: u32,
}

impl NetlinkSocket {
    /// Opens both and asks for ethtool's number.
    pub fn open() -> Result<Self, NetlinkError> {
        let open = |protocol| -> Result<OwnedFd, Errno> {
            let flags = SockFlag::SOCK_CLOEXEC;
            let fd = socket(AddressFamily::Netlink, SockType::Raw, flags, protocol)?;
            bind(fd.as_raw_fd(), &NetlinkAddr::new(0, 0))?;
            setsockopt(&fd, sockopt::ReceiveTimeout, &TimeVal::new(ANSWER_SECONDS, 0))?;
            Ok(fd)
        };
        let generic = open(SockProtocol::NetlinkGeneric).map_err(NetlinkError::Open)?;
        let route = open(SockProtocol::NetlinkRoute).map_err(NetlinkError::Open)?;
        let mut opened = Self { generic, route, family: None, sequence: 0 };
        opened.family = opened.ask_family();
        Ok(opened)
    }

    fn ask_family(&mut self) -> Option<u16> {
        let message = self
            .message(CONTROLLER, REQUEST, &[GET_FAMILY, 1, 0, 0])
            .put(FAMILY_NAME, b"ethtool\0");
        let answer = self.ask(false, message).ok()?;
        let id = attribute(answer.get(GENERIC_BYTES..)?, FAMILY_ID)?;
        Some(u16::from_ne_bytes(id.try_into().ok()?))
    }

    /// The attributes of a group's answer.
    pub fn get(&mut self, interface: &str, group: Group) -> Result<Vec<u8>, NetlinkError> {
        let name = [interface.as_bytes(), b"\0"].concat();
        let (fixed_bytes, answer) = match get_command(group) {
            Some(command) => {
                let message = self.ethtool(&name, command, REQUEST)?;
                (GENERIC_BYTES, self.ask(false, message)?)
            }
            None => {
                let message = self.message(GET_LINK, REQUEST, &[0; LINK_BYTES]);
                (LINK_BYTES, self.ask(true, message.put(LINK_NAME, &name))?)
            }
        };
        Ok(answer.get(fixed_bytes..).ok_or(NetlinkError::Cut)?.to_vec())
    }

    /// Asks for a change: `write` adds its attributes.
    pub fn set(
        &mut self,
        interface: &str,
        group: Group,
        write: impl FnOnce(Writer) -> Writer,
    ) -> Result<(), NetlinkError> {
        let command = get_command(group).ok_or(NetlinkError::Refused(Errno::EOPNOTSUPP))? + 1;
        let name = [interface.as_bytes(), b"\0"].concat();
        let message = self.ethtool(&name, command, REQUEST | ACK)?;
        self.ask_until_acknowledged(write(message))
    }

    fn ethtool(&mut self, name: &[u8], command: u8, flags: u16) -> Result<Writer, NetlinkError> {
        let family = self.family.ok_or(NetlinkError::NoFamily)?;
        let header = Writer::default().put(HEADER_NAME, name);
        Ok(self.message(family, flags, &[command, 1, 0, 0]).nest(HEADER, header))
    }

    fn message(&mut self, kind: u16, flags: u16, fixed: &[u8]) -> Writer {
        self.sequence += 1;
        Writer::message(kind, flags, self.sequence, fixed)
    }

    fn ask(&self, is_route: bool, message: Writer) -> Result<Vec<u8>, NetlinkError> {
        let fd = if is_route { &self.route } else { &self.generic };
        self.exchange(fd, message, false)?.ok_or(NetlinkError::Cut)
    }

    fn ask_until_acknowledged(&self, message: Writer) -> Result<(), NetlinkError> {
        self.exchange(&self.generic, message, true).map(|_| ())
    }

    /// Sends, and takes the first message that answers, or the acknowledgement.
    fn exchange(
        &self,
        fd: &OwnedFd,
        message: Writer,
        acknowledged: bool,
    ) -> Result<Option<Vec<u8>>, NetlinkError> {
        let fd = fd.as_raw_fd();
        send(fd, &message.into_message(), MsgFlags::empty()).map_err(NetlinkError::Refused)?;
        let mut buffer = vec![0; ANSWER_BYTES];
        loop {
            let length = match recv(fd, &mut buffer, MsgFlags::empty()) {
                Ok(length) => length,
                Err(Errno::EINTR) => continue,
                Err(errno) => return Err(NetlinkError::Refused(errno)),
            };
            for (kind, sequence, body) in messages(&buffer[..length]) {
                if sequence != self.sequence {
                    continue;
                }
                if kind == ERROR {
                    let code = u32_at(body, 0).ok_or(NetlinkError::Cut)? as i32;
                    if code == 0 {
                        return Ok(None);
                    }
                    return Err(NetlinkError::Refused(Errno::from_raw(code.saturating_neg())));
                }
                if !acknowledged {
                    return Ok(Some(body.to_vec()));
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loopback_answers_and_what_is_not_there_is_refused() {
        let mut netlink = NetlinkSocket::open().unwrap();
        let link = netlink.get("lo", Group::Link).unwrap();
        assert_eq!(attribute(&link, LINK_NAME), Some(&b"lo\0"[..]));
        let gone = netlink.get("nautilus-none", Group::Link).unwrap_err();
        assert!(matches!(gone, NetlinkError::Refused(_)), "{gone}");
        if netlink.family.is_some() {
            let features = netlink.get("lo", Group::Features).unwrap();
            assert!(crate::netlink::features::feature(&features, "rx-gro").is_ok());
        }
    }
}
