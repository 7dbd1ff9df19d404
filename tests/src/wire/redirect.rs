//! The peer's XDP program: every frame to the socket of its queue, else to the kernel.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use anyhow::Context;
use libbpf_rs::libbpf_sys::{
    BPF_ALU64, BPF_CALL, BPF_DW, BPF_EXIT, BPF_IMM, BPF_JMP, BPF_K, BPF_LD, BPF_LDX, BPF_MEM,
    BPF_MOV, BPF_PROG_TYPE_XDP, BPF_PSEUDO_MAP_FD, BPF_W, XDP_PASS, bpf_insn, bpf_map_create_opts,
    bpf_prog_load,
};
use libbpf_rs::{MapCore, MapFlags, MapHandle, MapType, Xdp, XdpFlags};

/// Offset of `rx_queue_index` in `struct xdp_md` (linux/bpf.h).
const RX_QUEUE_INDEX: i16 = 16;

/// `bpf_redirect_map` in `enum bpf_func_id` (linux/bpf.h).
const REDIRECT_MAP: i32 = 51;

/// Attaches the program to `ifindex` with `socket` behind queue 0. It stays until the interface
/// goes: the lab deletes it with its namespace.
pub fn attach(ifindex: i32, socket: BorrowedFd<'_>) -> anyhow::Result<()> {
    let opts = bpf_map_create_opts {
        sz: std::mem::size_of::<bpf_map_create_opts>() as u64,
        ..Default::default()
    };
    let map = MapHandle::create(MapType::Xskmap, Some("peer_xsks"), 4, 4, 1, &opts)
        .context("creating the peer's XSKMAP")?;
    map.update(&0u32.to_ne_bytes(), &socket.as_raw_fd().to_ne_bytes(), MapFlags::ANY)
        .context("putting the peer's socket into its XSKMAP")?;
    let program = load(map.as_fd())?;
    Xdp::new(program.as_fd())
        .attach(ifindex, XdpFlags::DRV_MODE)
        .with_context(|| format!("attaching the peer's XDP program to ifindex {ifindex}"))
}

fn load(map: BorrowedFd<'_>) -> anyhow::Result<OwnedFd> {
    let instruction = |code: u32, dst: u8, src: u8, off: i16, imm: i32| {
        let mut insn = bpf_insn { code: code as u8, off, imm, ..Default::default() };
        insn.set_dst_reg(dst);
        insn.set_src_reg(src);
        insn
    };
    let program = [
        // r2 = ctx->rx_queue_index; r1 = map; r3 = XDP_PASS; return bpf_redirect_map(r1, r2, r3)
        instruction(BPF_LDX | BPF_MEM | BPF_W, 2, 1, RX_QUEUE_INDEX, 0),
        instruction(BPF_LD | BPF_DW | BPF_IMM, 1, BPF_PSEUDO_MAP_FD as u8, 0, map.as_raw_fd()),
        instruction(0, 0, 0, 0, 0),
        instruction(BPF_ALU64 | BPF_MOV | BPF_K, 3, 0, 0, XDP_PASS as i32),
        instruction(BPF_JMP | BPF_CALL, 0, 0, 0, REDIRECT_MAP),
        instruction(BPF_JMP | BPF_EXIT, 0, 0, 0, 0),
    ];
    // SAFETY: name and licence are NUL-terminated, `program` holds as many instructions as said and
    // outlives the call, and null options mean the defaults.
    let fd = unsafe {
        bpf_prog_load(
            BPF_PROG_TYPE_XDP,
            c"peer_redirect".as_ptr(),
            c"Dual MIT/GPL".as_ptr(),
            program.as_ptr(),
            program.len() as _,
            std::ptr::null_mut(),
        )
    };
    if fd < 0 {
        return Err(std::io::Error::from_raw_os_error(-fd))
            .context("loading the peer's XDP program");
    }
    // SAFETY: the call returned a descriptor nobody else owns.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}
