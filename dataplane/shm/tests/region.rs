//! Regions as other processes meet them: wrong ones are refused in words, read-only means it.

// loom's atomics have another layout and no region to live in; miri has no memfd.
#![cfg(not(any(loom, miri)))]

use std::ffi::CStr;
use std::os::fd::{AsRawFd, OwnedFd};
use std::{io, ptr};

use nautilus_shm::control_region::{
    ControlRegion, HistogramId, NeighbourRequest, SUPERVISOR_PROCESS, control_spec,
};
use nautilus_shm::event_log::EventKind;
use nautilus_shm::metrics::table::{PROMOTIONS, RX_PACKETS};
use nautilus_shm::region::{
    Access, HUGE_PAGE_BYTES, REGION_HEADER_BYTES, Region, RegionError, RegionSpec,
};
use nautilus_shm::sync::{AtomicU64, Ordering};

const NAME: &CStr = c"nautilus-test";

fn spec() -> RegionSpec {
    RegionSpec {
        magic: 0x1234_5678,
        layout_version: 3,
        layout_hash: 0xabcd,
        bytes: 16 << 10,
        huge_pages: false,
    }
}

fn copy_of(region: &Region) -> OwnedFd {
    region.fd().try_clone_to_owned().unwrap()
}

fn refusal(region: &Region, spec: RegionSpec) -> String {
    Region::attach(copy_of(region), &spec, Access::ReadOnly).unwrap_err().to_string()
}

#[test]
fn both_sides_see_one_memory() {
    let made = Region::create(NAME, &spec()).unwrap();
    let attached = Region::attach(copy_of(&made), &spec(), Access::ReadWrite).unwrap();
    let offset = 8 << 10;
    made.view::<AtomicU64>(offset).unwrap().store(42, Ordering::Relaxed);
    assert_eq!(attached.view::<AtomicU64>(offset).unwrap().load(Ordering::Relaxed), 42);
    assert_eq!((made.generation(), made.heartbeat_ns()), (1, 0));
    assert_eq!(attached.advance_generation().unwrap(), 2);
    attached.beat(7).unwrap();
    assert_eq!((made.generation(), made.heartbeat_ns()), (2, 7));
}

#[test]
fn a_region_of_another_kind_version_or_size_is_refused_in_words() {
    let region = Region::create(NAME, &spec()).unwrap();
    let text = refusal(&region, RegionSpec { magic: 1, ..spec() });
    assert!(text.contains("not this kind of region"), "{text}");
    let text = refusal(&region, RegionSpec { layout_version: 4, ..spec() });
    assert!(text.contains("version is 3, this program needs 4"), "{text}");
    let text = refusal(&region, RegionSpec { layout_hash: 1, ..spec() });
    assert!(text.contains("0x000000000000abcd") && text.contains("same build"), "{text}");
    let text = refusal(&region, RegionSpec { bytes: 20 << 10, ..spec() });
    assert_eq!(text, "the descriptor holds 16384 bytes, the region needs 20480");
    let text = refusal(&region, RegionSpec { bytes: 12 << 10, ..spec() });
    assert_eq!(text, "the descriptor holds 16384 bytes, the region needs 12288");
}

#[test]
fn a_descriptor_that_could_shrink_is_refused() {
    let file = tempfile_without_seals();
    let error = Region::attach(file, &spec(), Access::ReadOnly).unwrap_err();
    assert!(matches!(error, RegionError::NotSealed), "{error}");
    let error =
        Region::attach(std::fs::File::open("/dev/null").unwrap().into(), &spec(), Access::ReadOnly)
            .unwrap_err();
    assert!(matches!(error, RegionError::NotSealed), "{error}");
}

/// A memfd of the right size that nobody sealed.
fn tempfile_without_seals() -> OwnedFd {
    use std::os::fd::FromRawFd;
    // SAFETY: a C string that lives across the call; the descriptor is ours.
    unsafe {
        let fd = libc::memfd_create(NAME.as_ptr(), libc::MFD_CLOEXEC | libc::MFD_ALLOW_SEALING);
        assert!(fd >= 0);
        assert_eq!(libc::ftruncate(fd, 16 << 10), 0);
        OwnedFd::from_raw_fd(fd)
    }
}

#[test]
fn views_stay_inside_and_aligned() {
    let region = Region::create(NAME, &spec()).unwrap();
    let bytes = region.bytes();
    assert!(region.view::<AtomicU64>(bytes - 8).is_ok());
    assert!(region.view::<AtomicU64>(REGION_HEADER_BYTES).is_ok());
    for offset in [0, REGION_HEADER_BYTES - 8, bytes, usize::MAX - 3] {
        let error = region.view::<AtomicU64>(offset).unwrap_err();
        assert!(matches!(error, RegionError::OutOfBounds { .. }), "{offset}: {error}");
    }
    let error = region.view::<AtomicU64>(REGION_HEADER_BYTES + 4).unwrap_err();
    assert_eq!(
        error.to_string(),
        format!("offset {} is not a multiple of 8", REGION_HEADER_BYTES + 4)
    );
}

#[test]
fn a_region_cannot_change_its_size() {
    let region = Region::create(NAME, &spec()).unwrap();
    for bytes in [0, 1 << 20] {
        // SAFETY: a call on an open descriptor without pointers.
        let result = unsafe { libc::ftruncate(region.fd().as_raw_fd(), bytes) };
        assert_eq!((result, last_errno()), (-1, libc::EPERM));
    }
}

#[test]
fn read_only_cannot_write() {
    let region = Region::create(NAME, &spec()).unwrap();
    let reader = Region::attach(region.reopen_read_only().unwrap(), &spec(), Access::ReadOnly);
    let reader = reader.unwrap();
    assert!(matches!(reader.view::<AtomicU64>(4096), Err(RegionError::ReadOnly)));
    assert!(matches!(reader.beat(1), Err(RegionError::ReadOnly)));
    assert!(matches!(reader.advance_generation(), Err(RegionError::ReadOnly)));
    // The descriptor cannot be mapped for writing either, and the mapping cannot be made writable.
    let fd = region.reopen_read_only().unwrap();
    let error = Region::attach(fd, &spec(), Access::ReadWrite).unwrap_err();
    assert!(error.to_string().contains("Permission denied"), "{error}");
    // SAFETY: offset 4096 is inside the mapping; nothing is stored through the reference.
    let word = unsafe { reader.view_unwritten::<AtomicU64>(4096).unwrap() };
    let page = ptr::from_ref(word).cast_mut().cast();
    // SAFETY: the page belongs to this test's own mapping, and the call is expected to fail.
    let result = unsafe { libc::mprotect(page, 4096, libc::PROT_READ | libc::PROT_WRITE) };
    assert_eq!((result, last_errno()), (-1, libc::EACCES));
    // A store raises SIGSEGV: shown in a child, which a store that goes through would let exit 0.
    let status = in_child(|| {
        // SAFETY: back to the default action, so that no handler of the test runner prints.
        unsafe { libc::signal(libc::SIGSEGV, libc::SIG_DFL) };
        word.store(1, Ordering::Relaxed);
        0
    });
    assert!(libc::WIFSIGNALED(status) && libc::WTERMSIG(status) == libc::SIGSEGV, "{status:#x}");
}

/// What uid 65534 can do with a read-only descriptor that it was given: bit 0 reopen for writing, bit
/// 1 truncate, bit 2 reopen for reading, bit 3 map for writing, bit 4 change the mode.
fn powers_of_another_user(fd: &OwnedFd) -> i32 {
    let raw = fd.as_raw_fd();
    let path = std::ffi::CString::new(format!("/proc/self/fd/{raw}")).unwrap();
    let status = in_child(|| {
        // SAFETY: plain system calls in a forked child, with pointers that outlive them; nothing
        // allocates.
        unsafe {
            let dropped = libc::syscall(libc::SYS_setresgid, 65534, 65534, 65534) == 0
                && libc::syscall(libc::SYS_setresuid, 65534, 65534, 65534) == 0
                // Changing the uid hides /proc/self/fd, which would refuse for the wrong reason.
                && libc::prctl(libc::PR_SET_DUMPABLE, 1, 0, 0, 0) == 0;
            if !dropped {
                return 99;
            }
            let mut powers = 0;
            powers |= i32::from(libc::open(path.as_ptr(), libc::O_RDWR) >= 0);
            powers |= i32::from(libc::ftruncate(raw, 0) == 0) << 1;
            powers |= i32::from(libc::open(path.as_ptr(), libc::O_RDONLY) >= 0) << 2;
            let protection = libc::PROT_READ | libc::PROT_WRITE;
            let mapped = libc::mmap(ptr::null_mut(), 4096, protection, libc::MAP_SHARED, raw, 0);
            powers |= i32::from(mapped != libc::MAP_FAILED) << 3;
            powers |= i32::from(libc::fchmod(raw, 0o666) == 0) << 4;
            powers
        }
    });
    assert!(libc::WIFEXITED(status), "{status:#x}");
    libc::WEXITSTATUS(status)
}

#[test]
#[ignore = "privileged: needs root to become another user"]
fn another_user_cannot_make_its_descriptor_writable() {
    let region = Region::create(NAME, &spec()).unwrap();
    let fd = region.reopen_read_only().unwrap();
    assert_eq!(powers_of_another_user(&fd), 0);
    // The control: with the mode a memfd is born with, reopening works, so mode 0600 is what refuses.
    // SAFETY: a call on an open descriptor without pointers.
    assert_eq!(unsafe { libc::fchmod(region.fd().as_raw_fd(), 0o777) }, 0);
    assert_eq!(powers_of_another_user(&fd), 0b101);
}

#[test]
fn huge_pages_are_there_or_the_error_says_where_to_get_them() {
    let spec = RegionSpec { huge_pages: true, ..spec() };
    match Region::create(NAME, &spec) {
        Ok(region) => {
            assert_eq!(region.bytes(), HUGE_PAGE_BYTES);
            let attached = Region::attach(copy_of(&region), &spec, Access::ReadOnly).unwrap();
            assert_eq!(attached.bytes(), HUGE_PAGE_BYTES);
        }
        Err(error) => {
            let text = error.to_string();
            assert!(matches!(error, RegionError::Reserve { .. }), "{text}");
            assert!(text.contains("vm.nr_hugepages"), "{text}");
        }
    }
}

#[test]
fn a_reader_of_the_control_region_sees_what_each_writer_wrote() {
    let supervisor = ControlRegion::create(c"nautilus-test-control").unwrap();
    assert_eq!(supervisor.region().bytes(), control_spec().bytes);
    let worker =
        ControlRegion::attach_writer(supervisor.fd().try_clone_to_owned().unwrap()).unwrap();
    let reader = ControlRegion::attach_reader(supervisor.reopen_read_only().unwrap()).unwrap();

    supervisor.metrics(SUPERVISOR_PROCESS).add(PROMOTIONS, 1);
    supervisor.histogram(SUPERVISOR_PROCESS, HistogramId::PromotionGap).record(900_000);
    supervisor.events().append(5, EventKind::WorkerPromoted, Some(1), (1, 900_000), "worker 1");
    supervisor.supervisor().set_last_gap(900_000);
    worker.metrics(15).add(RX_PACKETS, 10);
    worker.worker(15).beat(77);
    let request = NeighbourRequest { address: [9; 16], ifindex: 4 };
    let mut producer = worker.neighbour_requests(15).producer(1).unwrap();
    producer.push(&request.to_words()).unwrap();

    assert_eq!(reader.metrics(SUPERVISOR_PROCESS).counter(PROMOTIONS), 1);
    assert_eq!(reader.metrics(15).counter(RX_PACKETS), 10);
    assert_eq!(reader.metrics(14).counter(RX_PACKETS), 0);
    assert_eq!(reader.histogram(SUPERVISOR_PROCESS, HistogramId::PromotionGap).count(), 1);
    assert_eq!(reader.histogram(0, HistogramId::PromotionGap).count(), 0);
    assert_eq!(reader.events(0).events[0].text, "worker 1");
    assert_eq!(reader.supervisor().last_gap_ns(), 900_000);
    assert_eq!(reader.worker(15).pulse().heartbeat_ns, 77);
    assert_eq!(reader.neighbour_requests_backlog(15), 1);
    assert_eq!(reader.next_hops().unwrap().routes, []);
    let entry = supervisor.neighbour_requests(15).consumer().pop().unwrap().unwrap();
    assert_eq!(NeighbourRequest::from_words(entry.words), request);
    assert!(ControlRegion::attach_writer(supervisor.reopen_read_only().unwrap()).is_err());
    let other =
        Region::create(NAME, &RegionSpec { bytes: control_spec().bytes, ..spec() }).unwrap();
    assert!(matches!(
        ControlRegion::attach_reader(copy_of(&other)),
        Err(RegionError::Magic { .. })
    ));
}

fn last_errno() -> i32 {
    io::Error::last_os_error().raw_os_error().unwrap()
}

/// Runs `body` in a forked child and returns its wait status. `body` must not allocate or lock: the
/// child has one thread, and other threads' locks stay as they were.
fn in_child(body: impl FnOnce() -> i32) -> i32 {
    // SAFETY: the child runs only `body`, under the rule above, and leaves by _exit.
    match unsafe { libc::fork() } {
        -1 => panic!("fork: {}", io::Error::last_os_error()),
        // SAFETY: ends the child without running the parent's exit handlers.
        0 => unsafe { libc::_exit(body()) },
        child => {
            let mut status = 0;
            // SAFETY: `status` is valid for the call; `child` is ours.
            assert_eq!(unsafe { libc::waitpid(child, &mut status, 0) }, child);
            status
        }
    }
}
