//! The few `bpf()` calls that libbpf-rs offers only on objects it loaded itself: they must also work
//! on descriptors that came from another process. All of this crate's FFI is here.

use std::ffi::c_void;
use std::io;
use std::mem::{MaybeUninit, size_of};
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::time::Duration;

use libbpf_rs::libbpf_sys as raw;

use crate::intf::Plain;

/// What the verifier and the JIT made of a loaded program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProgramStatistics {
    /// Instructions the verifier walked; the kernel's limit is 1,000,000.
    pub verified_instructions: u32,
    /// Bytes of kernel bytecode.
    pub translated_bytes: u32,
    /// Bytes of machine code; 0 with the JIT off.
    pub jited_bytes: u32,
}

/// libbpf 1.x returns the negated errno.
fn check(result: i32) -> io::Result<i32> {
    if result < 0 { Err(io::Error::from_raw_os_error(-result)) } else { Ok(result) }
}

fn own(result: i32) -> io::Result<OwnedFd> {
    let fd = check(result)?;
    // SAFETY: every caller passes the result of a call that creates a descriptor for us.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

fn pointer<T: Plain>(value: &T) -> *const c_void {
    std::ptr::from_ref(value).cast()
}

/// `BPF_MAP_UPDATE_ELEM`, creating or replacing. The caller has checked the map's sizes.
pub(crate) fn map_update<K: Plain, V: Plain>(
    map: BorrowedFd<'_>,
    key: &K,
    value: &V,
) -> io::Result<()> {
    // SAFETY: the sizes of K and V were checked against the map's when it was opened.
    check(unsafe { raw::bpf_map_update_elem(map.as_raw_fd(), pointer(key), pointer(value), 0) })
        .map(drop)
}

/// `BPF_MAP_DELETE_ELEM`; an absent key is not an error, the result says whether it was there.
pub(crate) fn map_delete<K: Plain>(map: BorrowedFd<'_>, key: &K) -> io::Result<bool> {
    // SAFETY: the size of K was checked against the map's when it was opened.
    match check(unsafe { raw::bpf_map_delete_elem(map.as_raw_fd(), pointer(key)) }) {
        Ok(_) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

/// `BPF_MAP_LOOKUP_ELEM` into `values`: one, or one per possible CPU for a per-CPU map.
pub(crate) fn map_lookup<K: Plain, V: Plain + Default>(
    map: BorrowedFd<'_>,
    key: &K,
    values: &mut [V],
) -> io::Result<bool> {
    const { assert!(size_of::<V>().is_multiple_of(4)) };
    // SAFETY: `values` has room for one value per CPU where the map is per-CPU (callers allocate by
    // `possible_cpus`, and a Tally's 16 bytes are already the 8-byte multiple the kernel uses).
    let result = check(unsafe {
        raw::bpf_map_lookup_elem(map.as_raw_fd(), pointer(key), values.as_mut_ptr().cast())
    });
    match result {
        Ok(_) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

/// `BPF_MAP_LOOKUP_ELEM` of a value that begins with a `bpf_spin_lock`, copied under it.
pub(crate) fn map_lookup_locked<K: Plain, V: Plain>(
    map: BorrowedFd<'_>,
    key: &K,
    value: &mut V,
) -> io::Result<()> {
    let (flags, value) = (raw::BPF_F_LOCK.into(), std::ptr::from_mut(value).cast());
    // SAFETY: the sizes of K and V are those the map was made with.
    check(unsafe { raw::bpf_map_lookup_elem_flags(map.as_raw_fd(), pointer(key), value, flags) })
        .map(drop)
}

/// The value of an array's entry, too large for the stack.
pub(crate) fn map_value<K: Plain, V: Plain>(map: BorrowedFd<'_>, key: &K) -> io::Result<Box<V>> {
    let mut value = Box::<V>::new_uninit();
    // SAFETY: the box has room for a V, whose size was checked against the map's when it was opened.
    check(unsafe {
        raw::bpf_map_lookup_elem(map.as_raw_fd(), pointer(key), value.as_mut_ptr().cast())
    })?;
    // SAFETY: the kernel has filled all of it, and any bytes are a V.
    Ok(unsafe { value.assume_init() })
}

/// `CLOCK_MONOTONIC` in nanoseconds, the program's clock.
pub(crate) fn monotonic_ns() -> u64 {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `time` is writable; the clock always exists.
    unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &raw mut time) };
    time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64
}

/// Every key of a hash or trie, as of no single moment: writers may go on meanwhile.
pub(crate) fn map_keys<K: Plain + Default>(map: BorrowedFd<'_>) -> io::Result<Vec<K>> {
    let mut keys = Vec::new();
    let mut previous: Option<K> = None;
    loop {
        let mut next = K::default();
        let from = previous.as_ref().map_or(std::ptr::null(), pointer);
        let to = std::ptr::from_mut(&mut next).cast();
        // SAFETY: both point at a K, whose size was checked against the map's; null means first.
        match check(unsafe { raw::bpf_map_get_next_key(map.as_raw_fd(), from, to) }) {
            Ok(_) => keys.push(next),
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(keys),
            Err(error) => return Err(error),
        }
        previous = Some(next);
    }
}

/// Every value of a per-CPU array, `values.len() / keys.len()` for each key, in one call. `keys` is scratch
/// as long as the map, V a value of the map whose size is a multiple of 8 bytes.
pub(crate) fn map_lookup_all<V: Plain>(
    map: BorrowedFd<'_>,
    keys: &mut [u32],
    values: &mut [V],
) -> io::Result<()> {
    let mut count = u32::try_from(keys.len()).map_err(|_| io::ErrorKind::InvalidInput)?;
    let (expected, mut next) = (count, 0u32);
    // SAFETY: `keys` has room for `count` keys of 4 bytes, and `values` for one value per key and
    // possible CPU (the caller allocates by `possible_cpus`).
    let result = check(unsafe {
        raw::bpf_map_lookup_batch(
            map.as_raw_fd(),
            std::ptr::null_mut(),
            (&raw mut next).cast(),
            keys.as_mut_ptr().cast(),
            values.as_mut_ptr().cast(),
            &raw mut count,
            std::ptr::null(),
        )
    });
    match result {
        // The kernel says so at the end of the map.
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ if count == expected => Ok(()),
        _ => Err(io::ErrorKind::UnexpectedEof.into()),
    }
}

/// Lets the kernel count a map as one of the program's, used or not.
pub(crate) fn bind_map(program: BorrowedFd<'_>, map: BorrowedFd<'_>) -> io::Result<()> {
    let (program, map) = (program.as_raw_fd(), map.as_raw_fd());
    // SAFETY: takes integers and no options.
    check(unsafe { raw::bpf_prog_bind_map(program, map, std::ptr::null()) }).map(drop)
}

/// The kernel's name for what a descriptor is: `bpf_link`, `bpf-prog`, `bpf-map`, ... The info call
/// does not say: it answers for any of them, and a program's first words read as a link's.
pub(crate) fn require_kind(fd: BorrowedFd<'_>, kind: &str) -> io::Result<()> {
    let target = std::fs::read_link(format!("/proc/self/fd/{}", fd.as_raw_fd()))?;
    if target.as_os_str() == format!("anon_inode:{kind}").as_str() {
        return Ok(());
    }
    let what = format!("it is {}, not a {kind}", target.display());
    Err(io::Error::new(io::ErrorKind::InvalidInput, what))
}

/// A map by its number in the kernel. Needs `CAP_SYS_ADMIN`.
pub(crate) fn map_by_id(id: u32) -> io::Result<OwnedFd> {
    // SAFETY: takes and returns integers.
    own(unsafe { raw::bpf_map_get_fd_by_id(id) })
}

/// A program by its number in the kernel. Needs `CAP_SYS_ADMIN`.
pub(crate) fn program_by_id(id: u32) -> io::Result<OwnedFd> {
    // SAFETY: takes and returns integers.
    own(unsafe { raw::bpf_prog_get_fd_by_id(id) })
}

/// Attaches by a link, in native mode only.
pub(crate) fn link_xdp(program: BorrowedFd<'_>, ifindex: u32) -> io::Result<OwnedFd> {
    let ifindex = i32::try_from(ifindex).map_err(|_| io::ErrorKind::InvalidInput)?;
    let options = raw::bpf_link_create_opts {
        sz: size_of::<raw::bpf_link_create_opts>() as raw::size_t,
        flags: raw::XDP_FLAGS_DRV_MODE,
        ..Default::default()
    };
    // SAFETY: `options` is initialised, sized and outlives the call.
    own(unsafe {
        raw::bpf_link_create(program.as_raw_fd(), ifindex, raw::BPF_XDP, &raw const options)
    })
}

/// Has an interface take frames for any MAC, for as long as the descriptor lives (packet(7)). The socket
/// itself receives none: it has no protocol.
pub(crate) fn promiscuous(ifindex: u32) -> io::Result<OwnedFd> {
    let mr_ifindex = i32::try_from(ifindex).map_err(|_| io::ErrorKind::InvalidInput)?;
    // SAFETY: takes integers; the result is checked.
    let fd = unsafe { libc::socket(libc::AF_PACKET, libc::SOCK_RAW | libc::SOCK_CLOEXEC, 0) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: just opened, owned by nobody else.
    let fd = unsafe { OwnedFd::from_raw_fd(fd) };
    let mr_type = libc::PACKET_MR_PROMISC as u16;
    let membership = libc::packet_mreq { mr_ifindex, mr_type, mr_alen: 0, mr_address: [0; 8] };
    // SAFETY: the option is live and its size stated.
    let result = unsafe {
        libc::setsockopt(
            fd.as_raw_fd(),
            libc::SOL_PACKET,
            libc::PACKET_ADD_MEMBERSHIP,
            (&raw const membership).cast(),
            size_of_val(&membership) as u32,
        )
    };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(fd) }
}

/// (program id, ifindex) of an XDP link; ifindex 0 once its interface is gone.
pub(crate) fn link_target(link: BorrowedFd<'_>) -> io::Result<(u32, u32)> {
    require_kind(link, "bpf_link")?;
    let mut info = MaybeUninit::<raw::bpf_link_info>::zeroed();
    let mut bytes = size_of::<raw::bpf_link_info>() as u32;
    // SAFETY: `info` has `bytes` writable bytes.
    check(unsafe {
        raw::bpf_link_get_info_by_fd(link.as_raw_fd(), info.as_mut_ptr(), &raw mut bytes)
    })?;
    // SAFETY: plain C integers and a union of such; all-zero bytes are valid.
    let info = unsafe { info.assume_init() };
    if info.type_ != raw::BPF_LINK_TYPE_XDP {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "not an XDP link"));
    }
    // SAFETY: the kernel fills the `xdp` member for this link type.
    Ok((info.prog_id, unsafe { info.__bindgen_anon_1.xdp.ifindex }))
}

/// What the kernel knows of a program, with the numbers of its maps.
pub(crate) fn program_info(
    program: BorrowedFd<'_>,
) -> io::Result<(String, ProgramStatistics, Vec<u32>)> {
    require_kind(program, "bpf-prog")?;
    let mut map_ids = [0u32; 32];
    let mut info = raw::bpf_prog_info {
        nr_map_ids: map_ids.len() as u32,
        map_ids: map_ids.as_mut_ptr().expose_provenance() as u64,
        ..Default::default()
    };
    let mut bytes = size_of::<raw::bpf_prog_info>() as u32;
    // SAFETY: `info` has `bytes` writable bytes, and `map_ids` room for the `nr_map_ids` it states.
    check(unsafe {
        raw::bpf_prog_get_info_by_fd(program.as_raw_fd(), &raw mut info, &raw mut bytes)
    })?;
    let name = info.name.iter().take_while(|c| **c != 0).map(|c| char::from(*c as u8)).collect();
    let statistics = ProgramStatistics {
        verified_instructions: info.verified_insns,
        translated_bytes: info.xlated_prog_len,
        jited_bytes: info.jited_prog_len,
    };
    Ok((name, statistics, map_ids.into_iter().take(info.nr_map_ids as usize).collect()))
}

/// The kernel's hash of the program's instructions: equal for equal programs, whatever maps they have.
pub(crate) fn program_tag(program: BorrowedFd<'_>) -> io::Result<[u8; 8]> {
    let mut info = raw::bpf_prog_info::default();
    let mut bytes = size_of::<raw::bpf_prog_info>() as u32;
    // SAFETY: `info` has `bytes` writable bytes.
    check(unsafe {
        raw::bpf_prog_get_info_by_fd(program.as_raw_fd(), &raw mut info, &raw mut bytes)
    })?;
    Ok(info.tag)
}

/// Runs a program on a packet in memory. `context` goes in and comes out; returns the program's
/// return value, the bytes written to `out` and the mean time of a run.
pub(crate) fn program_test_run(
    program: BorrowedFd<'_>,
    packet: &[u8],
    context: &mut raw::xdp_md,
    out: &mut [u8],
    repeat: u32,
) -> io::Result<(u32, usize, Duration)> {
    let mut context_out = raw::xdp_md::default();
    let mut options = raw::bpf_test_run_opts {
        sz: size_of::<raw::bpf_test_run_opts>() as raw::size_t,
        data_in: packet.as_ptr().cast(),
        data_size_in: packet.len() as u32,
        data_out: out.as_mut_ptr().cast(),
        data_size_out: out.len() as u32,
        ctx_in: std::ptr::from_ref(context).cast(),
        ctx_size_in: size_of::<raw::xdp_md>() as u32,
        ctx_out: (&raw mut context_out).cast(),
        ctx_size_out: size_of::<raw::xdp_md>() as u32,
        repeat: repeat.try_into().unwrap_or(i32::MAX),
        ..Default::default()
    };
    // SAFETY: every pointer comes with the length of the live buffer behind it.
    check(unsafe { raw::bpf_prog_test_run_opts(program.as_raw_fd(), &raw mut options) })?;
    *context = context_out;
    let duration = Duration::from_nanos(options.duration.into());
    Ok((options.retval, options.data_size_out as usize, duration))
}

/// Has the program run on one frame as if it had arrived, and done what it says.
pub(crate) fn program_run_live(
    program: BorrowedFd<'_>,
    frame: &[u8],
    ifindex: u32,
    rx_queue: u32,
) -> io::Result<()> {
    let context = raw::xdp_md {
        data_end: frame.len() as u32,
        ingress_ifindex: ifindex,
        rx_queue_index: rx_queue,
        ..Default::default()
    };
    let mut options = raw::bpf_test_run_opts {
        sz: size_of::<raw::bpf_test_run_opts>() as raw::size_t,
        data_in: frame.as_ptr().cast(),
        data_size_in: frame.len() as u32,
        ctx_in: std::ptr::from_ref(&context).cast(),
        ctx_size_in: size_of::<raw::xdp_md>() as u32,
        repeat: 1,
        flags: raw::BPF_F_TEST_XDP_LIVE_FRAMES,
        batch_size: 1,
        ..Default::default()
    };
    // SAFETY: every pointer comes with the length of the live buffer behind it; nothing is written back.
    check(unsafe { raw::bpf_prog_test_run_opts(program.as_raw_fd(), &raw mut options) }).map(drop)
}
