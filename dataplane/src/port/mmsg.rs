//! `recvmmsg` and `sendmmsg` over buffers allocated once, with the address of our side in both
//! directions (`IP_PKTINFO`, `IPV6_PKTINFO`). Nothing but these two calls, the joining of an IPv4 group by
//! interface index, and the interface that groups are sent by is in here.
#![allow(unsafe_code)]

use std::io;
use std::mem::{MaybeUninit, size_of, zeroed};
use std::os::fd::{AsRawFd, BorrowedFd};

use crate::limits::BURST_DATAGRAMS_MAX;
use crate::net::Endpoint;

/// Control bytes of one message; one `in6_pktinfo` with its header takes 40.
const CONTROL_BYTES: usize = 64;

/// A socket address of either family.
#[repr(C)]
#[derive(Clone, Copy)]
union Name {
    v4: libc::sockaddr_in,
    v6: libc::sockaddr_in6,
}

/// Aligned as `cmsghdr` needs.
#[repr(C, align(8))]
#[derive(Clone, Copy)]
struct Control([u8; CONTROL_BYTES]);

/// One message of a batch.
#[derive(Clone, Copy, Debug)]
pub struct Message {
    /// The other side.
    pub peer: Endpoint,
    /// Our side. Its port is not filled in on receive; an unspecified address leaves the choice to
    /// the kernel on send.
    pub local: Endpoint,
    /// Bytes of the payload.
    pub length: usize,
    /// Longer than its buffer; the rest is gone.
    pub truncated: bool,
}

/// What one batch call needs. About 7 KiB, made once.
pub struct Batch {
    names: [Name; BURST_DATAGRAMS_MAX],
    controls: [Control; BURST_DATAGRAMS_MAX],
}

impl Default for Batch {
    fn default() -> Self {
        // SAFETY: both are plain bytes, all-zero is valid.
        let name = unsafe { zeroed() };
        Self {
            names: [name; BURST_DATAGRAMS_MAX],
            controls: [Control([0; CONTROL_BYTES]); BURST_DATAGRAMS_MAX],
        }
    }
}

impl Batch {
    /// Receives up to `max` messages without waiting, message `n` into bytes
    /// `n * each_bytes ..` of `arena`. Returns how many.
    pub fn receive(
        &mut self,
        fd: BorrowedFd<'_>,
        arena: &mut [u8],
        each_bytes: usize,
        max: usize,
        mut message: impl FnMut(usize, Message),
    ) -> io::Result<usize> {
        let max = max.min(BURST_DATAGRAMS_MAX).min(arena.len() / each_bytes.max(1));
        let mut vectors =
            [libc::iovec { iov_base: std::ptr::null_mut(), iov_len: 0 }; BURST_DATAGRAMS_MAX];
        // SAFETY: all-zero message headers are valid and empty.
        let mut headers: [libc::mmsghdr; BURST_DATAGRAMS_MAX] = unsafe { zeroed() };
        let buffers = arena.chunks_exact_mut(each_bytes);
        for (slot, buffer) in buffers.take(max).enumerate() {
            vectors[slot] =
                libc::iovec { iov_base: buffer.as_mut_ptr().cast(), iov_len: buffer.len() };
            let header = &mut headers[slot].msg_hdr;
            header.msg_name = (&raw mut self.names[slot]).cast();
            header.msg_namelen = size_of::<Name>() as libc::socklen_t;
            header.msg_iov = &raw mut vectors[slot];
            header.msg_iovlen = 1;
            header.msg_control = self.controls[slot].0.as_mut_ptr().cast();
            header.msg_controllen = CONTROL_BYTES as _;
        }
        // SAFETY: `max` headers whose pointers name live buffers of the stated lengths.
        let count = unsafe {
            libc::recvmmsg(
                fd.as_raw_fd(),
                headers.as_mut_ptr(),
                max as libc::c_uint,
                libc::MSG_DONTWAIT as _,
                std::ptr::null_mut(),
            )
        };
        let count = usize::try_from(count).map_err(|_| io::Error::last_os_error())?;
        for (slot, header) in headers[..count].iter().enumerate() {
            let peer = name_endpoint(&self.names[slot], header.msg_hdr.msg_namelen);
            // SAFETY: the kernel filled this header's control buffer.
            let local = unsafe { local_address(&header.msg_hdr) };
            message(
                slot,
                Message {
                    peer,
                    local,
                    length: (header.msg_len as usize).min(each_bytes),
                    truncated: header.msg_hdr.msg_flags & libc::MSG_TRUNC != 0,
                },
            );
        }
        Ok(count)
    }

    /// Sends `messages`, message `n` from bytes `n * each_bytes ..` of `arena`. Returns how many
    /// went; an error is about the first that did not.
    pub fn send(
        &mut self,
        fd: BorrowedFd<'_>,
        arena: &[u8],
        each_bytes: usize,
        messages: &[Message],
    ) -> io::Result<usize> {
        let max = messages.len().min(BURST_DATAGRAMS_MAX).min(arena.len() / each_bytes.max(1));
        let mut vectors =
            [libc::iovec { iov_base: std::ptr::null_mut(), iov_len: 0 }; BURST_DATAGRAMS_MAX];
        // SAFETY: all-zero message headers are valid and empty.
        let mut headers: [libc::mmsghdr; BURST_DATAGRAMS_MAX] = unsafe { zeroed() };
        for (slot, (message, buffer)) in
            messages.iter().zip(arena.chunks_exact(each_bytes)).take(max).enumerate()
        {
            vectors[slot] = libc::iovec {
                iov_base: buffer.as_ptr().cast_mut().cast(),
                iov_len: message.length.min(each_bytes),
            };
            let header = &mut headers[slot].msg_hdr;
            let (name, name_bytes) = endpoint_name(&message.peer);
            self.names[slot] = name;
            header.msg_name = (&raw mut self.names[slot]).cast();
            header.msg_namelen = name_bytes;
            header.msg_iov = &raw mut vectors[slot];
            header.msg_iovlen = 1;
            header.msg_control = self.controls[slot].0.as_mut_ptr().cast();
            header.msg_controllen = CONTROL_BYTES as _;
            // SAFETY: the control buffer is aligned and has room for one packet-info message.
            unsafe { put_local_address(header, &message.local) };
        }
        // SAFETY: `max` headers whose pointers name live buffers; the kernel only reads them.
        let count = unsafe {
            libc::sendmmsg(
                fd.as_raw_fd(),
                headers.as_mut_ptr(),
                max as libc::c_uint,
                libc::MSG_DONTWAIT as _,
            )
        };
        usize::try_from(count).map_err(|_| io::Error::last_os_error())
    }
}

/// Joins an IPv4 group on the interface of this index (0: the kernel's choice).
pub fn join_v4(fd: BorrowedFd<'_>, group: std::net::Ipv4Addr, ifindex: u32) -> io::Result<()> {
    let request = libc::ip_mreqn {
        imr_multiaddr: libc::in_addr { s_addr: u32::from_ne_bytes(group.octets()) },
        imr_address: libc::in_addr { s_addr: 0 },
        imr_ifindex: ifindex as libc::c_int,
    };
    // SAFETY: the kernel reads as many bytes of a live request as its size says.
    let result = unsafe {
        libc::setsockopt(
            fd.as_raw_fd(),
            libc::IPPROTO_IP,
            libc::IP_ADD_MEMBERSHIP,
            (&raw const request).cast(),
            size_of_val(&request) as libc::socklen_t,
        )
    };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Routers that what is sent to a group may pass: as many as what is sent to one receiver.
static GROUP_HOPS: libc::c_int = 64;

/// Has what is sent to groups leave by the interface of this index, whatever the routes say.
pub fn send_to_groups_by(fd: BorrowedFd<'_>, is_v4: bool, ifindex: u32) -> io::Result<()> {
    let set = |level, name, value: *const libc::c_void, bytes: usize| {
        // SAFETY: the kernel reads as many bytes of a live value as its size says.
        let result = unsafe {
            libc::setsockopt(fd.as_raw_fd(), level, name, value, bytes as libc::socklen_t)
        };
        if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
    };
    let hops = (&raw const GROUP_HOPS).cast();
    let hops_bytes = size_of_val(&GROUP_HOPS);
    let index = ifindex as libc::c_int;
    if !is_v4 {
        let interface = (&raw const index).cast();
        set(libc::IPPROTO_IPV6, libc::IPV6_MULTICAST_IF, interface, size_of_val(&index))?;
        return set(libc::IPPROTO_IPV6, libc::IPV6_MULTICAST_HOPS, hops, hops_bytes);
    }
    let any = libc::in_addr { s_addr: 0 };
    let request = libc::ip_mreqn { imr_multiaddr: any, imr_address: any, imr_ifindex: index };
    let interface = (&raw const request).cast();
    set(libc::IPPROTO_IP, libc::IP_MULTICAST_IF, interface, size_of_val(&request))?;
    set(libc::IPPROTO_IP, libc::IP_MULTICAST_TTL, hops, hops_bytes)
}

fn name_endpoint(name: &Name, bytes: libc::socklen_t) -> Endpoint {
    // SAFETY: the family is at the same place in both; the kernel wrote the address it names.
    unsafe {
        match i32::from(name.v4.sin_family) {
            libc::AF_INET if bytes as usize >= size_of::<libc::sockaddr_in>() => {
                Endpoint::v4(name.v4.sin_addr.s_addr.to_ne_bytes(), u16::from_be(name.v4.sin_port))
            }
            libc::AF_INET6 if bytes as usize >= size_of::<libc::sockaddr_in6>() => Endpoint {
                address: name.v6.sin6_addr.s6_addr,
                port: u16::from_be(name.v6.sin6_port),
            },
            _ => Endpoint::default(),
        }
    }
}

fn endpoint_name(endpoint: &Endpoint) -> (Name, libc::socklen_t) {
    // SAFETY: plain bytes, all-zero is valid.
    let mut name: Name = unsafe { MaybeUninit::zeroed().assume_init() };
    let bytes = if endpoint.is_v4() {
        name.v4 = libc::sockaddr_in {
            sin_family: libc::AF_INET as libc::sa_family_t,
            sin_port: endpoint.port.to_be(),
            sin_addr: libc::in_addr { s_addr: u32::from_ne_bytes(endpoint.v4_octets()) },
            sin_zero: [0; 8],
        };
        size_of::<libc::sockaddr_in>()
    } else {
        name.v6 = libc::sockaddr_in6 {
            sin6_family: libc::AF_INET6 as libc::sa_family_t,
            sin6_port: endpoint.port.to_be(),
            sin6_flowinfo: 0,
            sin6_addr: libc::in6_addr { s6_addr: endpoint.address },
            sin6_scope_id: 0,
        };
        size_of::<libc::sockaddr_in6>()
    };
    (name, bytes as libc::socklen_t)
}

/// The address a datagram was sent to, port 0; unspecified when the kernel did not say.
///
/// # Safety
/// The header's control buffer was filled by `recvmmsg`.
unsafe fn local_address(header: &libc::msghdr) -> Endpoint {
    // SAFETY: the macros stay inside the control buffer the header describes.
    unsafe {
        let mut control = libc::CMSG_FIRSTHDR(header);
        while !control.is_null() {
            let data = libc::CMSG_DATA(control);
            match ((*control).cmsg_level, (*control).cmsg_type) {
                (libc::IPPROTO_IP, libc::IP_PKTINFO) => {
                    let info: libc::in_pktinfo = data.cast::<libc::in_pktinfo>().read_unaligned();
                    return Endpoint::v4(info.ipi_addr.s_addr.to_ne_bytes(), 0);
                }
                (libc::IPPROTO_IPV6, libc::IPV6_PKTINFO) => {
                    let info: libc::in6_pktinfo = data.cast::<libc::in6_pktinfo>().read_unaligned();
                    return Endpoint { address: info.ipi6_addr.s6_addr, port: 0 };
                }
                _ => control = libc::CMSG_NXTHDR(header, control),
            }
        }
    }
    Endpoint::default()
}

/// Puts the source address into a header whose control buffer is empty.
///
/// # Safety
/// `msg_control` names a writable, aligned buffer of `msg_controllen` >= 40 bytes.
unsafe fn put_local_address(header: &mut libc::msghdr, local: &Endpoint) {
    // SAFETY: one message of at most 40 bytes fits by the contract; the macros give its places.
    unsafe {
        let control = libc::CMSG_FIRSTHDR(header);
        let used = if local.is_v4() {
            let info = libc::in_pktinfo {
                ipi_ifindex: 0,
                ipi_spec_dst: libc::in_addr { s_addr: u32::from_ne_bytes(local.v4_octets()) },
                ipi_addr: libc::in_addr { s_addr: 0 },
            };
            let bytes = size_of_val(&info) as libc::c_uint;
            (*control).cmsg_level = libc::IPPROTO_IP;
            (*control).cmsg_type = libc::IP_PKTINFO;
            (*control).cmsg_len = libc::CMSG_LEN(bytes) as _;
            libc::CMSG_DATA(control).cast::<libc::in_pktinfo>().write_unaligned(info);
            libc::CMSG_SPACE(bytes)
        } else {
            let info = libc::in6_pktinfo {
                ipi6_addr: libc::in6_addr { s6_addr: local.address },
                ipi6_ifindex: 0,
            };
            let bytes = size_of_val(&info) as libc::c_uint;
            (*control).cmsg_level = libc::IPPROTO_IPV6;
            (*control).cmsg_type = libc::IPV6_PKTINFO;
            (*control).cmsg_len = libc::CMSG_LEN(bytes) as _;
            libc::CMSG_DATA(control).cast::<libc::in6_pktinfo>().write_unaligned(info);
            libc::CMSG_SPACE(bytes)
        };
        header.msg_controllen = used as _;
    }
}
