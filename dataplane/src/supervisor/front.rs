//! The front as the supervisor keeps it: started, watched, replaced.
//!
//! ```text
//!   start -> assign -> ready, serving
//!     ^                    |
//!     +---- back-off <-----+---- pidfd: dead. The listeners stay open: who waits in them is served next
//! ```
//!
//! Its death never touches a worker. A front that outlived another supervisor is known by the record lock
//! that it holds on its region: the kernel names the holder.

use std::os::fd::OwnedFd;

use nautilus_shm::clock::monotonic_ns;
use nautilus_shm::control_region::FRONT_PROCESS;
use nautilus_shm::event_log::EventKind;
use nautilus_shm::metrics::table as metrics;

use super::front_messages::{FrontAssignment, ToFront};
use super::front_resources::FrontResources;
use super::handover::{Fds, FromWorker, VERSION, receive_as_supervisor, send};
use super::journal::{Event, milliseconds};
use super::reaper::Reaper;
use super::region_lock::holder_of;
use super::restart::Restart;
use super::seat::{Identity, Phase, Seat};
use super::workers::Context;

/// How long a front that was told to leave may take.
const LEAVE_NS: u64 = 1_000_000_000;

/// The front, or what its death left behind.
#[derive(Debug, Default)]
pub struct Front {
    seat: Option<Seat>,
    /// Waits to take its place.
    next: Option<Seat>,
    restart: Restart,
    /// When the one that serves was told to leave; 0 while it was not.
    told_ns: u64,
    /// Fronts that ended, or could not be started, before they were ready to follow, and the last words.
    failures: (u32, String),
}

impl Front {
    /// None yet, or the one that outlived another supervisor, with the connection that this one left us.
    pub fn adopt(resources: Option<&FrontResources>, left: Option<OwnedFd>) -> Self {
        let seat = resources.and_then(holder);
        Self { seat: seat.map(|seat| seat.with_socket(left)), ..Self::default() }
    }

    /// Its process.
    pub fn seat(&self) -> Option<&Seat> {
        self.seat.as_ref()
    }

    /// Starts one when there is none and the time has come.
    pub fn keep(&mut self, context: &mut Context<'_>, reaper: &Reaper) {
        let now_ns = monotonic_ns();
        if self.seat.is_none()
            && self.next.as_ref().is_some_and(|seat| seat.phase != Phase::Starting)
        {
            self.follow();
        }
        let is_there = self.seat.is_some() || self.next.is_some();
        if is_there || !self.restart.is_due(now_ns) || context.resources.front.is_none() {
            return;
        }
        let started = self.start(context, reaper, now_ns, false);
        if let Err(text) = started.map(|seat| self.seat = seat) {
            let delay = milliseconds(self.restart.failed(now_ns));
            let text = format!("front: {text}; next try in {delay}");
            context.publish(&Event::new(EventKind::Notice, (0, 0), text));
        }
    }

    fn start(
        &self,
        context: &mut Context<'_>,
        reaper: &Reaper,
        now_ns: u64,
        waits: bool,
    ) -> Result<Option<Seat>, String> {
        let resolved = context.resolved;
        let resources = &*context.resources;
        let Some(front) = &resources.front else { return Ok(None) };
        let mut fds = Fds::default();
        let control = resources.control.fd().try_clone_to_owned();
        fds.push("control", control.map_err(|error| error.to_string())?);
        front.append_to(&mut fds).map_err(|error| error.to_string())?;
        resources.team.append_wakes_to(&mut fds).map_err(|error| error.to_string())?;
        for cache in resources.caches.iter().filter(|cache| cache.is_handed()) {
            cache.append_for_front(&mut fds).map_err(|error| error.to_string())?;
        }
        let root = nix::unistd::geteuid().is_root();
        let user = root.then_some((resolved.worker_uid, resolved.worker_gid));
        let identity = Identity { name: "nautilus-front", program: &resolved.front_program, user };
        let generation = if waits { 0 } else { front.advance_generation() };
        let mut seat = Seat::spawn(identity, FRONT_PROCESS as u32, resources.serial, now_ns)
            .map_err(|error| error.to_string())?;
        seat.generation = generation;
        seat.changes = resources.changes;
        let assignment = FrontAssignment {
            version: VERSION,
            supervisor_pid: std::process::id(),
            generation,
            waits,
            core: resolved.front_core,
            caches: resources.caches_handed(),
            node: context.node_text.into(),
        };
        let assign = ToFront::Assign { fds: fds.names(), assignment };
        if let Err(error) = send(seat.socket(), &assign, &fds.borrowed()) {
            seat.kill();
            reaper.reap(seat);
            return Err(error.to_string());
        }
        context.count(metrics::FRONT_STARTS);
        let text = format!("front {} started, generation {generation}", seat.pid);
        context.publish(&Event::new(EventKind::Notice, (generation, 0), text));
        Ok(Some(seat))
    }

    /// Reads what it said.
    pub fn heard(&mut self, context: &Context<'_>) {
        if let Some(seat) = &mut self.seat {
            hear(seat, context);
        }
    }

    /// Reads what the one that waits has said.
    pub fn heard_next(&mut self, context: &Context<'_>) {
        if let Some(seat) = &mut self.next {
            hear(seat, context);
        }
    }

    /// Tells it of a change of the caches. One that cannot be told, because it was started by another
    /// supervisor, is replaced: its connections end.
    pub fn tell(&self, message: &ToFront, fds: &Fds) {
        let Some(seat) = &self.seat else { return };
        let is_deaf = seat.messages().is_none();
        if is_deaf || send(seat.socket(), message, &fds.borrowed()).is_err() {
            seat.kill();
        }
    }

    /// Has it look at the control region now. The number of this look; none where it cannot be told.
    pub fn look(&self) -> Option<u64> {
        let seat = self.seat.as_ref().filter(|seat| seat.phase == Phase::Serving)?;
        seat.messages()?;
        // A supervisor before us may have asked as well: no number comes twice.
        let number = monotonic_ns();
        send(seat.socket(), &ToFront::Look { number }, &[]).ok().map(|()| number)
    }

    /// Whether it has obeyed what the control region said at this look.
    pub fn has_looked(&self, number: u64) -> bool {
        self.seat.as_ref().is_some_and(|seat| seat.looked >= number)
    }

    /// Whether it has made every change up to this one. One that will be started makes none: it is given
    /// everything.
    pub fn has_made(&self, change: u64) -> bool {
        self.seat.as_ref().is_none_or(|seat| seat.changes >= change)
    }

    /// Has another one started that waits.
    pub fn prepare(&mut self, context: &mut Context<'_>, reaper: &Reaper) {
        let now_ns = monotonic_ns();
        if self.next.is_none() && self.restart.is_due(now_ns) {
            match self.start(context, reaper, now_ns, true) {
                Ok(seat) => self.next = seat,
                Err(text) => self.next_failed(text, now_ns),
            }
        }
    }

    /// The same, and once it is ready the one that serves leaves.
    pub fn exchange(&mut self, context: &mut Context<'_>, reaper: &Reaper) {
        self.prepare(context, reaper);
        let now_ns = monotonic_ns();
        let Some(next) = &self.next else { return };
        let Some(old) = self.seat.as_ref().filter(|_| next.phase != Phase::Starting) else {
            return;
        };
        if self.told_ns == 0 {
            self.told_ns = now_ns;
            // It waits for the lock of the region, which the other one gives back.
            if send(next.socket(), &ToFront::Serve, &[]).is_err() {
                next.kill();
                return;
            }
            context.resources.control.supervisor().life().set_front_leave(old.generation);
        } else if now_ns - self.told_ns > LEAVE_NS {
            old.kill();
        }
    }

    /// The one that waits takes the place of the one that is dead.
    fn follow(&mut self) {
        let Some(seat) = self.next.take() else { return };
        if self.told_ns == 0 && send(seat.socket(), &ToFront::Serve, &[]).is_err() {
            seat.kill();
        }
        self.told_ns = 0;
        self.seat = Some(seat);
    }

    /// The pidfd of the one that waits has fired.
    pub fn next_died(&mut self, context: &Context<'_>, reaper: &Reaper) {
        let Some(seat) = self.next.take() else { return };
        self.told_ns = 0;
        let (status, words) = seat.status();
        let text = format!("front {} ended before it served: {words}", seat.pid);
        context.publish(&Event::new(EventKind::Notice, (status, 0), &text));
        reaper.reap(seat);
        self.next_failed(text, monotonic_ns());
    }

    fn next_failed(&mut self, text: String, now_ns: u64) {
        self.failures = (self.failures.0 + 1, text);
        self.restart.wait(now_ns);
    }

    /// What the last of so many said that were to follow and came to nothing.
    pub fn failure_of_next(&self, at_least: u32) -> Option<String> {
        let (count, words) = &self.failures;
        (*count >= at_least).then(|| words.clone())
    }

    /// The one that waits.
    pub fn next(&self) -> Option<&Seat> {
        self.next.as_ref()
    }

    /// Takes the one that waits out, to be ended.
    pub fn take_next(&mut self) -> Option<Seat> {
        self.next.take()
    }

    /// Has another one started.
    pub fn replace(&self) {
        self.seat.iter().for_each(Seat::kill);
    }

    /// Its pidfd has fired.
    pub fn died(&mut self, context: &Context<'_>, reaper: &Reaper) {
        let Some(seat) = self.seat.take() else { return };
        let (status, words) = seat.status();
        let delay_ns = self.restart.died(seat.promoted_ns, monotonic_ns());
        let mut text = format!("front {} ended: {words}", seat.pid);
        if delay_ns > 0 {
            let deaths = self.restart.young_deaths();
            text += &format!(
                "; {deaths} died young in a row, next start in {}",
                milliseconds(delay_ns)
            );
        }
        for wake in &context.resources.team.wakes {
            // It may have died between waking the worker and taking that back.
            let _ = nix::unistd::read(wake, &mut [0; 8]);
        }
        context.count(metrics::FRONT_DEATHS);
        context.publish(&Event::new(EventKind::Notice, (status, 0), text));
        reaper.reap(seat);
        // Who waits in the listeners is taken by the next one at once.
        if self.next.as_ref().is_some_and(|seat| seat.phase != Phase::Starting) {
            self.follow();
        }
    }

    /// Kills it, at a clean stop; its connections end.
    pub fn stop(self, reaper: &Reaper) {
        for seat in [self.seat, self.next].into_iter().flatten() {
            seat.kill();
            reaper.reap(seat);
        }
    }
}

/// Reads what a front has said.
fn hear(seat: &mut Seat, context: &Context<'_>) {
    let pid = seat.pid;
    let notice = |text: String| {
        context.publish(&Event::new(EventKind::Notice, (0, 0), format!("front {pid}{text}")));
    };
    match receive_as_supervisor(seat.socket()) {
        Ok((FromWorker::Ready { notes }, ..)) => {
            seat.phase = Phase::Ready;
            notes.iter().for_each(|note| notice(format!(": {note}")));
        }
        Ok((FromWorker::Serving { since_ns, generation }, ..)) => {
            seat.generation = generation;
            seat.phase = Phase::Serving;
            seat.promoted_ns = since_ns;
            notice(" serves".into());
        }
        Ok((FromWorker::Changed { number, refused }, ..)) => {
            seat.changes = seat.changes.max(number);
            if !refused.is_empty() {
                notice(format!(" did not take a change of the caches: {refused}"));
                // The next one begins with all of them.
                seat.kill();
            }
        }
        Ok((FromWorker::Looked { number }, ..)) => seat.looked = seat.looked.max(number),
        Ok((FromWorker::Failed { reason }, ..)) => notice(format!(" cannot go on: {reason}")),
        Ok((FromWorker::Holding { .. }, ..)) => {}
        // Its pidfd says the rest.
        Err(_) => seat.hang_up(),
    }
}

/// The process that holds the lock of the front region, as an adopted seat.
fn holder(resources: &FrontResources) -> Option<Seat> {
    let region = &resources.regions[0];
    holder_of(region.fd(), FRONT_PROCESS as u32, region.front_generation())
}
