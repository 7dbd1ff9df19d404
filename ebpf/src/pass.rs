//! The program for the far end of a veth pair and for bridge ports: passes every frame.

use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};

use libbpf_rs::skel::{OpenSkel, SkelBuilder};

use crate::link::XdpLink;

#[allow(missing_docs, unsafe_op_in_unsafe_fn, clippy::all, clippy::undocumented_unsafe_blocks)]
mod skeleton {
    include!(concat!(env!("OUT_DIR"), "/pass.skel.rs"));
}

/// A loaded `XDP_PASS`. Needs `CAP_BPF` and `CAP_NET_ADMIN`.
#[derive(Debug)]
pub struct PassProgram {
    program: OwnedFd,
}

impl PassProgram {
    /// Loads it; one serves any number of interfaces.
    pub fn load() -> io::Result<Self> {
        let mut object = MaybeUninit::uninit();
        let skeleton = skeleton::PassSkelBuilder::default()
            .open(&mut object)
            .and_then(OpenSkel::load)
            .map_err(io::Error::other)?;
        Ok(Self { program: skeleton.progs.pass.as_fd().try_clone_to_owned()? })
    }

    /// Attaches to an interface of this network namespace, natively, for as long as the link lives.
    pub fn attach(&self, ifindex: u32) -> io::Result<XdpLink> {
        XdpLink::attach(self.program.as_fd(), ifindex)
    }
}
