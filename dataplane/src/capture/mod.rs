//! Capture: what workers saw, in pcapng files, written off their cores. `README.md` has the figure.
//!
//! This file is the life of the process that writes: everything but the directory comes from the supervisor,
//! on standard input; it has no privilege.

pub mod blocks;
pub mod event;
pub mod files;
pub mod source;
pub mod tap;
pub mod writer;

use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use nautilus_sandbox::Kind;
use nautilus_shm::capture_region::CaptureRegion;
use nautilus_shm::clock::monotonic_ns;
use nautilus_shm::control_region::{CAPTURE_PROCESS, ControlRegion};
use nautilus_shm::metrics::{MetricBank, table};
use nautilus_shm::region::RegionError;
use nix::fcntl::{FcntlArg, fcntl};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::SigSet;

use crate::config::{Capture, ConfigError, NodeConfig};
use crate::front::guardian::Guardian;
use crate::kill_point;
use crate::supervisor::capture_messages::{CaptureAssignment, ToCapture, receive_as_capture};
use crate::supervisor::handover::{Fds, FromWorker, HandoverError, VERSION, send};
use crate::supervisor::region_lock::whole_file;
use files::{FileError, FileLimits, Files};
use source::Source;
use tap::frame_source;
use writer::{NodeFacts, Writer, Written};

/// The first pause after a turn that found nothing, doubled up to the last. Too low: an idle node's writer
/// takes time from others. Too high: rings fill meanwhile, at 1.25 GB/s by 10 MB.
const PAUSE_MIN: Duration = Duration::from_millis(1);
const PAUSE_MAX: Duration = Duration::from_millis(8);

/// Between two attempts to write what could not be written. Too low: a full disk is tried in vain. Too high:
/// rings fill although there is room again.
const RETRY_NS: u64 = 500_000_000;

/// Between two looks at who is left to capture for.
const GUARD_NS: u64 = 200_000_000;

/// Why a capture process ends.
#[derive(Debug, thiserror::Error)]
pub enum CaptureError {
    /// Started by hand, or the supervisor died first.
    #[error("standard input is not a supervisor's socket: {0}; start nautilus-supervisor instead")]
    NotStarted(#[source] HandoverError),
    /// A message or a descriptor did not pass.
    #[error(transparent)]
    Handover(#[from] HandoverError),
    /// A message that has no place here.
    #[error("unexpected message: the first one assigns nothing")]
    Unexpected,
    /// Another version of the messages.
    #[error(
        "the supervisor speaks version {0}, this capture process {VERSION}: run the same release"
    )]
    Version(u32),
    /// The node file as the supervisor passed it on.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The node file has no such section.
    #[error("the node file has no [capture]")]
    NothingToDo,
    /// A region.
    #[error("{0}: {1}")]
    Region(&'static str, #[source] RegionError),
    /// Another one lives.
    #[error("another capture process holds the capture region: {0}")]
    Held(#[source] std::io::Error),
}

/// Lives as a capture process on `socket`, the supervisor's end of which is told everything. Returns when told
/// to finish, or when nobody is left whose packets could be captured.
pub fn live(socket: OwnedFd) -> Result<(), CaptureError> {
    // The supervisor blocks signals for its own use; ours are the default ones.
    let _ = SigSet::empty().thread_set_mask();
    let _ = nix::sys::prctl::set_name(c"nautilus-capture");
    let (assignment, fds) = match receive_as_capture(socket.as_fd()) {
        Ok((ToCapture::Assign { assignment, .. }, fds)) => (assignment, fds),
        Ok(_) => return Err(CaptureError::Unexpected),
        Err(HandoverError::Closed) => return Ok(()),
        Err(error) => return Err(CaptureError::NotStarted(error)),
    };
    let result = write(&socket, &assignment, fds);
    if let Err(error) = &result {
        let _ = send(socket.as_fd(), &FromWorker::Failed { reason: error.to_string() }, &[]);
    }
    result
}

fn write(
    socket: &OwnedFd,
    assignment: &CaptureAssignment,
    mut fds: Fds,
) -> Result<(), CaptureError> {
    if assignment.version != VERSION {
        return Err(CaptureError::Version(assignment.version));
    }
    let config = crate::config::parse(&assignment.node, "node file")?;
    let capture = config.capture.as_ref().ok_or(CaptureError::NothingToDo)?;
    let control = ControlRegion::attach_writer(fds.take("control")?)
        .map_err(|error| CaptureError::Region("control region", error))?;
    let region = CaptureRegion::attach(fds.take("capture")?)
        .map_err(|error| CaptureError::Region("capture region", error))?;
    // Ends with the process; the next supervisor learns from it who we are.
    let lock = whole_file(nix::libc::F_WRLCK);
    fcntl(region.fd(), FcntlArg::F_SETLK(&lock))
        .map_err(|errno| CaptureError::Held(errno.into()))?;
    // Only what is there can be named: of a folder that is still to come, where it will be.
    let folder = &capture.directory;
    let there = folder.parent().filter(|_| !folder.exists()).unwrap_or(folder);
    let write = std::iter::once(there.to_owned()).chain(kill_point::folders()).collect();
    let named = nautilus_sandbox::Files { write, ..Default::default() };
    let entered = nautilus_sandbox::enter(Kind::Capture, &named);
    control.set_confinement(CAPTURE_PROCESS, entered.confinement.0);
    let files = Files::new(limits(capture, &config));
    let salvaged = files.salvage();
    let mut life = Life {
        socket,
        bank: control.metrics(CAPTURE_PROCESS),
        published: Written::default(),
        errors: 0,
        failing: false,
        deaf: false,
    };
    let _ = send(socket.as_fd(), &FromWorker::Ready { notes: entered.notes }, &[]);
    match salvaged {
        Ok(0) => {}
        Ok(count) => life.say(format!("{count} files that were left unfinished are finished")),
        Err(error) => life.failed(&error),
    }
    let mut writer = Writer::new(&region, facts(&config, assignment, capture), files);
    let serving =
        FromWorker::Serving { generation: assignment.generation, since_ns: monotonic_ns() };
    let _ = send(socket.as_fd(), &serving, &[]);
    life.run(&mut writer, &control, assignment.supervisor_pid);
    Ok(())
}

fn limits(capture: &Capture, config: &NodeConfig) -> FileLimits {
    FileLimits {
        directory: capture.directory.clone(),
        node: config.node.id.clone(),
        file_bytes: u64::from(capture.file_mb) << 20,
        files: capture.files as usize,
    }
}

fn facts(config: &NodeConfig, assignment: &CaptureAssignment, capture: &Capture) -> NodeFacts {
    let queue = |row: &crate::supervisor::handover::QueueOpened| {
        (row.worker as usize, frame_source(row.interface, row.queue))
    };
    let mut expected: Vec<(usize, Source)> = assignment.queues.iter().map(queue).collect();
    if capture.feeds && !config.feed.is_empty() {
        expected.extend((0..config.worker.count as usize).map(|worker| (worker, Source::EVENTS)));
    }
    NodeFacts {
        node: config.node.id.clone(),
        interfaces: config.interface.iter().map(|interface| interface.name.clone()).collect(),
        expected,
    }
}

/// What a capture process does until it ends.
struct Life<'a> {
    socket: &'a OwnedFd,
    bank: MetricBank<'a>,
    published: Written,
    errors: u64,
    /// The last attempt to write failed.
    failing: bool,
    /// The supervisor that started it is gone.
    deaf: bool,
}

impl Life<'_> {
    fn run(&mut self, writer: &mut Writer<'_>, control: &ControlRegion, supervisor_pid: u32) {
        let mut guardian = Guardian::new(supervisor_pid);
        let (mut pause, mut guarded_ns, mut retry_ns) = (PAUSE_MIN, 0, 0);
        loop {
            let now_ns = monotonic_ns();
            let mut is_busy = false;
            if now_ns >= retry_ns {
                match writer.turn() {
                    Ok(busy) => {
                        is_busy = busy;
                        self.succeeded(busy);
                    }
                    Err(error) => {
                        retry_ns = now_ns + RETRY_NS;
                        self.failed(&error);
                    }
                }
                self.publish(writer.written());
            }
            let is_over = now_ns >= guarded_ns && {
                guarded_ns = now_ns + GUARD_NS;
                !guardian.is_anyone_left(control)
            };
            pause = if is_busy { PAUSE_MIN } else { (2 * pause).min(PAUSE_MAX) };
            if is_over || (!is_busy && self.rest(pause)) || (is_busy && self.rest(Duration::ZERO)) {
                break;
            }
        }
        // Workers are gone, or about to be: what they left is still in the rings.
        while writer.turn().is_ok_and(|is_busy| is_busy) {}
        if let Err(error) = writer.finish() {
            self.failed(&error);
        }
        self.publish(writer.written());
    }

    /// Sleeps; `true` when told to finish.
    fn rest(&mut self, pause: Duration) -> bool {
        if self.deaf {
            std::thread::sleep(pause);
            return false;
        }
        let timeout = PollTimeout::try_from(pause).unwrap_or(PollTimeout::ZERO);
        let mut ready = [PollFd::new(self.socket.as_fd(), PollFlags::POLLIN)];
        if poll(&mut ready, timeout).unwrap_or(0) == 0 {
            return false;
        }
        match receive_as_capture(self.socket.as_fd()) {
            Ok((ToCapture::Finish, _)) => true,
            Ok(_) => false,
            // The supervisor is dead; workers go on, and so do we.
            Err(_) => {
                self.deaf = true;
                false
            }
        }
    }

    fn say(&self, text: String) {
        let _ = send(self.socket.as_fd(), &FromWorker::Ready { notes: vec![text] }, &[]);
    }

    /// Said once, counted each time.
    fn failed(&mut self, error: &FileError) {
        self.errors += 1;
        self.bank.add(table::CAPTURE_ERRORS, 1);
        if !self.failing {
            self.failing = true;
            self.say(format!("{error}; what workers see waits, then is dropped and counted"));
        }
    }

    fn succeeded(&mut self, is_busy: bool) {
        if self.failing && is_busy {
            self.failing = false;
            self.say(format!("files are written again, after {} failed attempts", self.errors));
            self.errors = 0;
        }
    }

    fn publish(&mut self, written: &Written) {
        let before = std::mem::replace(&mut self.published, *written);
        for (counter, now, before) in [
            (table::CAPTURE_WRITTEN, written.records, before.records),
            (table::CAPTURE_BYTES, written.bytes, before.bytes),
            (table::CAPTURE_FILES, written.files, before.files),
            (table::CAPTURE_DAMAGED, written.damaged, before.damaged),
        ] {
            self.bank.add(counter, now - before);
        }
    }
}
