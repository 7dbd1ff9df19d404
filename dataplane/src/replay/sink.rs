//! Where a replay goes: a kernel UDP socket, raw frames on an interface, or a pcap file.

use super::pcap;
use crate::net::{Endpoint, LinkAddress, build, ethernet};
use nix::ifaddrs::getifaddrs;
use nix::sys::socket::{
    AddressFamily, LinkAddr, MsgFlags, SockFlag, SockType, bind, send, setsockopt, socket, sockopt,
};
use std::ffi::OsString;
use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};

/// What can go wrong with an output. Each names the interface, address or file.
#[derive(Debug, thiserror::Error)]
pub enum SinkError {
    /// No interface of this name.
    #[error("interface {0} does not exist here (see `ip link`)")]
    NoInterface(String),
    /// The interface is not an Ethernet one.
    #[error("interface {0} has no Ethernet address")]
    NotEthernet(String),
    /// A raw socket cannot be opened.
    #[error("cannot open a raw socket on {interface} (needs CAP_NET_RAW)")]
    Raw {
        /// The interface.
        interface: String,
        /// Why.
        source: io::Error,
    },
    /// The UDP socket cannot be made.
    #[error("cannot set up a UDP socket from {from} on {interface}")]
    Udp {
        /// Address sent from.
        from: SocketAddr,
        /// The interface, or `any interface`.
        interface: String,
        /// Why.
        source: io::Error,
    },
    /// The file cannot be made.
    #[error("{path}: cannot write")]
    File {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A packet was not sent.
    #[error("sending {bytes} bytes failed")]
    Send {
        /// Length of the packet or frame.
        bytes: usize,
        /// Why.
        source: io::Error,
    },
    /// The sink sends datagrams, not frames.
    #[error("frames as they are need --raw or --write")]
    NotFrames,
}

/// The addresses that payloads leave with.
#[derive(Clone, Copy, Debug)]
pub struct Addressing {
    /// Who sends.
    pub from: Endpoint,
    /// Group and port.
    pub to: Endpoint,
    /// VLAN identifiers of raw frames, outer first, 0 for none.
    pub vlans: [u16; 2],
}

enum Output {
    Udp(UdpSocket),
    Raw(OwnedFd),
    File(BufWriter<File>, PathBuf),
}

/// One open output.
pub struct Sink {
    output: Output,
    addressing: Addressing,
    link_source: [u8; 6],
    frame: Vec<u8>,
}

/// The MAC address of a multicast group; of a unicast address the broadcast one.
fn link_destination(to: &Endpoint) -> [u8; 6] {
    ethernet::group_address(to).unwrap_or([0xff; 6])
}

fn io_error(errno: nix::Error) -> io::Error {
    io::Error::from_raw_os_error(errno as i32)
}

/// The link-layer address of an interface.
fn link_address(interface: &str) -> Result<LinkAddr, SinkError> {
    let addresses = getifaddrs()
        .map_err(|errno| SinkError::Raw { interface: interface.into(), source: io_error(errno) })?;
    let mut exists = false;
    for address in addresses.filter(|address| address.interface_name == interface) {
        exists = true;
        if let Some(link) = address.address.as_ref().and_then(|storage| storage.as_link_addr()) {
            return Ok(*link);
        }
    }
    Err(match exists {
        true => SinkError::NotEthernet(interface.into()),
        false => SinkError::NoInterface(interface.into()),
    })
}

impl Sink {
    /// A kernel UDP socket, bound to the interface if one is named.
    pub fn udp(interface: Option<&str>, addressing: Addressing) -> Result<Self, SinkError> {
        let from = SocketAddr::from(addressing.from);
        let failed = |source| {
            let interface = interface.unwrap_or("any interface").to_owned();
            SinkError::Udp { from, interface, source }
        };
        if let Some(name) = interface {
            link_address(name)?;
        }
        let socket = UdpSocket::bind(from).map_err(failed)?;
        if let Some(name) = interface {
            // Decides the route of multicast too: no address and no route of the interface is needed.
            setsockopt(&socket, sockopt::BindToDevice, &OsString::from(name))
                .map_err(|errno| failed(io_error(errno)))?;
        }
        socket.set_multicast_ttl_v4(16).map_err(failed)?;
        socket.set_multicast_loop_v4(true).map_err(failed)?;
        socket.connect(SocketAddr::from(addressing.to)).map_err(failed)?;
        Ok(Self::new(Output::Udp(socket), addressing, [0; 6]))
    }

    /// Raw frames on an interface.
    pub fn raw(interface: &str, addressing: Addressing) -> Result<Self, SinkError> {
        let link = link_address(interface)?;
        let failed =
            |errno| SinkError::Raw { interface: interface.into(), source: io_error(errno) };
        let family = AddressFamily::Packet;
        let socket = socket(family, SockType::Raw, SockFlag::SOCK_CLOEXEC, None).map_err(failed)?;
        // Protocol 0: the socket receives nothing, it only sends.
        bind(socket.as_raw_fd(), &link).map_err(failed)?;
        let link_source = link.addr().unwrap_or_default();
        Ok(Self::new(Output::Raw(socket), addressing, link_source))
    }

    /// A pcap file of the frames that would be sent, from a locally administered MAC address.
    pub fn file(path: &Path, addressing: Addressing) -> Result<Self, SinkError> {
        let failed = |source| SinkError::File { path: path.to_path_buf(), source };
        let mut file = BufWriter::new(File::create(path).map_err(failed)?);
        file.write_all(&pcap::file_header()).map_err(failed)?;
        let output = Output::File(file, path.to_path_buf());
        Ok(Self::new(output, addressing, [0x02, 0, 0, 0, 0, 0x01]))
    }

    fn new(output: Output, addressing: Addressing, link_source: [u8; 6]) -> Self {
        Self { output, addressing, link_source, frame: Vec::new() }
    }

    /// Sets the tags of the frames to come.
    pub fn set_vlans(&mut self, vlans: [u16; 2]) {
        self.addressing.vlans = vlans;
    }

    /// Sends one payload with the sink's addresses, checksums in place. `time_ns` stamps it in a file.
    pub fn send_payload(&mut self, time_ns: u64, payload: &[u8]) -> Result<(), SinkError> {
        if let Output::Udp(socket) = &self.output {
            let bytes = payload.len();
            return socket
                .send(payload)
                .map(|_| ())
                .map_err(|source| SinkError::Send { bytes, source });
        }
        let addressing = self.addressing;
        let headers = build::header_bytes(addressing.vlans, true);
        let mut frame = std::mem::take(&mut self.frame);
        frame.clear();
        frame.resize(headers, 0);
        frame.extend_from_slice(payload);
        let link = LinkAddress {
            destination: link_destination(&addressing.to),
            source: self.link_source,
            vlans: addressing.vlans,
        };
        build::headers(&mut frame, &link, &addressing.from, &addressing.to);
        let result = self.send_frame(time_ns, &frame);
        self.frame = frame;
        result
    }

    /// Sends one frame as it is.
    pub fn send_frame(&mut self, time_ns: u64, frame: &[u8]) -> Result<(), SinkError> {
        let bytes = frame.len();
        match &mut self.output {
            Output::Udp(_) => Err(SinkError::NotFrames),
            Output::Raw(socket) => loop {
                match send(socket.as_raw_fd(), frame, MsgFlags::empty()) {
                    Ok(_) => return Ok(()),
                    // The device's queue is full: the next packet waits for it, as it would on a wire.
                    Err(nix::Error::ENOBUFS | nix::Error::EAGAIN) => std::thread::yield_now(),
                    Err(nix::Error::EINTR) => {}
                    Err(errno) => {
                        return Err(SinkError::Send { bytes, source: io_error(errno) });
                    }
                }
            },
            Output::File(file, path) => {
                let written = file
                    .write_all(&pcap::record_header(time_ns, bytes as u32))
                    .and_then(|()| file.write_all(frame));
                written.map_err(|source| SinkError::File { path: path.clone(), source })
            }
        }
    }

    /// Whether what is sent takes no time: nothing waits for a file.
    pub fn is_file(&self) -> bool {
        matches!(self.output, Output::File(..))
    }

    /// Writes out what is buffered.
    pub fn finish(&mut self) -> Result<(), SinkError> {
        match &mut self.output {
            Output::File(file, path) => {
                file.flush().map_err(|source| SinkError::File { path: path.clone(), source })
            }
            Output::Udp(_) | Output::Raw(_) => Ok(()),
        }
    }
}

/// Where payloads come from unless told otherwise.
pub const DEFAULT_SOURCE: Ipv4Addr = Ipv4Addr::new(198, 18, 0, 1);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_map_to_their_mac_addresses() {
        let mac = |group| link_destination(&Endpoint::v4(group, 1));
        assert_eq!(mac([233, 54, 12, 111]), [0x01, 0x00, 0x5e, 0x36, 0x0c, 0x6f]);
        assert_eq!(mac([239, 255, 255, 255]), [0x01, 0x00, 0x5e, 0x7f, 0xff, 0xff]);
    }

    #[test]
    fn an_interface_that_is_not_there_is_named() {
        let addressing = Addressing {
            from: Endpoint::v4([0; 4], 0),
            to: Endpoint::v4([239, 0, 0, 1], 1),
            vlans: [0; 2],
        };
        for sink in [Sink::udp(Some("no-such0"), addressing), Sink::raw("no-such0", addressing)] {
            assert!(sink.err().unwrap().to_string().contains("no-such0"));
        }
    }
}
