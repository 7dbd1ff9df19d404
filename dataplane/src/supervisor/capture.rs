//! The capture process as the supervisor keeps it: started, watched, replaced.
//!
//! Like the front ([`super::front`]): its death touches no worker, whose ring keeps what was not in a file,
//! and one that outlived another supervisor is known by the record lock that it holds on its region.

use nautilus_shm::clock::monotonic_ns;
use nautilus_shm::control_region::CAPTURE_PROCESS;
use nautilus_shm::event_log::EventKind;
use nautilus_shm::metrics::table as metrics;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use super::capture_messages::{CaptureAssignment, ToCapture};
use super::handover::{Fds, FromWorker, VERSION, receive_as_supervisor, send};
use super::journal::{Event, milliseconds};
use super::reaper::Reaper;
use super::region_lock::holder_of;
use super::resources::Resources;
use super::restart::Restart;
use super::seat::{Identity, Phase, Seat};
use super::workers::Context;

/// How long it may take to finish at a clean stop: a slow disk.
const FINISH_MS: u16 = 3000;

/// The capture process, or what its death left behind.
#[derive(Debug, Default)]
pub struct CaptureKeeper {
    seat: Option<Seat>,
    started: u64,
    restart: Restart,
}

impl CaptureKeeper {
    /// None yet, or the one that outlived another supervisor.
    pub fn adopt(resources: &Resources) -> Self {
        let seat = resources.capture.as_ref();
        let seat = seat.and_then(|region| holder_of(region.fd(), CAPTURE_PROCESS as u32, 0));
        Self { seat, ..Self::default() }
    }

    /// Its process.
    pub fn seat(&self) -> Option<&Seat> {
        self.seat.as_ref()
    }

    /// Starts one when there is none and the time has come.
    pub fn keep(&mut self, context: &mut Context<'_>, reaper: &Reaper) {
        let now_ns = monotonic_ns();
        if self.seat.is_some() || !self.restart.is_due(now_ns) {
            return;
        }
        if let Err(text) = self.start(context, reaper, now_ns) {
            let delay = milliseconds(self.restart.failed(now_ns));
            let text = format!("capture: {text}; next try in {delay}");
            context.publish(&Event::new(EventKind::Notice, (0, 0), text));
        }
    }

    fn start(
        &mut self,
        context: &mut Context<'_>,
        reaper: &Reaper,
        now_ns: u64,
    ) -> Result<(), String> {
        let resolved = context.resolved;
        let resources = &*context.resources;
        let (Some(region), Some(program)) = (&resources.capture, &resolved.capture_program) else {
            return Ok(());
        };
        let mut fds = Fds::default();
        let control = resources.control.fd().try_clone_to_owned();
        fds.push("control", control.map_err(|error| error.to_string())?);
        fds.push("capture", region.try_clone().map_err(|error| error.to_string())?);
        let root = nix::unistd::geteuid().is_root();
        let user = root.then_some((resolved.worker_uid, resolved.worker_gid));
        let identity = Identity { name: "nautilus-capture", program, user };
        let mut seat = Seat::spawn(identity, CAPTURE_PROCESS as u32, resources.serial, now_ns)
            .map_err(|error| error.to_string())?;
        self.started += 1;
        seat.generation = self.started;
        let assignment = CaptureAssignment {
            version: VERSION,
            supervisor_pid: std::process::id(),
            generation: self.started,
            node: context.node_text.into(),
            queues: resources.queues_opened(),
        };
        let assign = ToCapture::Assign { fds: fds.names(), assignment };
        if let Err(error) = send(seat.socket(), &assign, &fds.borrowed()) {
            seat.kill();
            reaper.reap(seat);
            return Err(error.to_string());
        }
        context.count(metrics::CAPTURE_STARTS);
        let text = format!("capture process {} started", seat.pid);
        context.publish(&Event::new(EventKind::Notice, (self.started, 0), text));
        self.seat = Some(seat);
        Ok(())
    }

    /// Reads what it said.
    pub fn heard(&mut self, context: &Context<'_>) {
        let Some(seat) = &mut self.seat else { return };
        let pid = seat.pid;
        let notice = |text: String| {
            let text = format!("capture process {pid}: {text}");
            context.publish(&Event::new(EventKind::Notice, (0, 0), text));
        };
        match receive_as_supervisor(seat.socket()) {
            Ok((FromWorker::Ready { notes }, ..)) => notes.into_iter().for_each(notice),
            Ok((FromWorker::Serving { since_ns, .. }, ..)) => {
                seat.phase = Phase::Serving;
                seat.promoted_ns = since_ns;
            }
            Ok((FromWorker::Failed { reason }, ..)) => notice(format!("cannot go on: {reason}")),
            Ok(_) => {}
            // Its pidfd says the rest.
            Err(_) => seat.hang_up(),
        }
    }

    /// Its pidfd has fired.
    pub fn died(&mut self, context: &Context<'_>, reaper: &Reaper) {
        let Some(seat) = self.seat.take() else { return };
        let (status, words) = seat.status();
        self.restart.died(seat.promoted_ns, monotonic_ns());
        context.count(metrics::CAPTURE_DEATHS);
        let text = format!("capture process {} ended: {words}", seat.pid);
        context.publish(&Event::new(EventKind::Notice, (status, 0), text));
        reaper.reap(seat);
    }

    /// Has it finish its file, at a clean stop when the workers are gone.
    pub fn stop(self, reaper: &Reaper) {
        let Some(seat) = self.seat else { return };
        let is_told =
            seat.messages().is_some() && send(seat.socket(), &ToCapture::Finish, &[]).is_ok();
        let mut gone = [PollFd::new(seat.pidfd(), PollFlags::POLLIN)];
        if !is_told || poll(&mut gone, PollTimeout::from(FINISH_MS)).unwrap_or(0) == 0 {
            // What it has not written is lost; what it has is finished by the next one.
            seat.kill();
        }
        reaper.reap(seat);
    }
}
