//! Where would this packet go? The steering program run on a packet in memory.

use std::io;
use std::os::fd::BorrowedFd;
use std::time::Duration;

use libbpf_rs::libbpf_sys as raw;

use crate::intf::RxMeta;
use crate::sys;
use crate::verdict::Action;

/// Where the packet pretends to have arrived.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TestContext {
    /// An interface of this network namespace that is up; 1 is loopback.
    pub ifindex: u32,
    /// One of its receive queues.
    pub rx_queue: u32,
}

impl Default for TestContext {
    fn default() -> Self {
        Self { ifindex: 1, rx_queue: 0 }
    }
}

/// What the program did with the packet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TestOutcome {
    /// The program's answer.
    pub action: Action,
    /// The metadata before the packet; `None` unless it was redirected.
    pub metadata: Option<RxMeta>,
    /// The packet, without the metadata; the answer in its place if it was answered.
    pub packet: Vec<u8>,
    /// Mean time of one run.
    pub duration: Duration,
}

/// What the kernel leaves before a packet: more than the stamp, and more than an answer can grow.
const HEADROOM_BYTES: usize = 256;
const _: () = assert!(size_of::<RxMeta>() <= HEADROOM_BYTES);

pub(crate) fn test_run(
    program: BorrowedFd<'_>,
    packet: &[u8],
    context: TestContext,
    repeat: u32,
) -> io::Result<TestOutcome> {
    let mut md = raw::xdp_md {
        data_end: packet.len() as u32,
        ingress_ifindex: context.ifindex,
        rx_queue_index: context.rx_queue,
        ..Default::default()
    };
    let mut out = vec![0; packet.len() + HEADROOM_BYTES];
    let (code, bytes, duration) =
        sys::program_test_run(program, packet, &mut md, &mut out, repeat)?;
    out.truncate(bytes);
    let invalid = |what: String| io::Error::new(io::ErrorKind::InvalidData, what);
    let action =
        Action::from_xdp(code).ok_or_else(|| invalid(format!("the program returned {code}")))?;
    let metadata = match md.data - md.data_meta {
        0 => None,
        16 if out.len() >= 16 => {
            let word =
                |at: usize| u32::from_ne_bytes([out[at], out[at + 1], out[at + 2], out[at + 3]]);
            let rx_ns = u64::from_ne_bytes(std::array::from_fn(|at| out[at]));
            Some(RxMeta { rx_ns, magic: word(8), permissions: word(12) })
        }
        other => return Err(invalid(format!("{other} bytes of metadata"))),
    };
    let packet = out.split_off(if metadata.is_some() { 16 } else { 0 });
    Ok(TestOutcome { action, metadata, packet, duration })
}
