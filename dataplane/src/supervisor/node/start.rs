//! The beginning of a supervisor: a node is set up, parked, or taken over from a worker that outlived the
//! supervisor before.

use std::path::Path;
use std::rc::Rc;

use nautilus_shm::attach::SUPERVISOR_SOCKET;
use nautilus_shm::cells::SupervisorIdentity;
use nautilus_shm::clock::monotonic_ns;
use nautilus_shm::control_region::ControlRegion;
use nautilus_shm::event_log::EventKind;
use nautilus_shm::metrics::table as metrics;

use super::draining::Draining;
use super::exec::{Origin, become_remembered};
use super::life::Life;
use super::swap::Swap;
use super::{Node, NodeError, check, signals};
use crate::config::{Begin, PortKind};
use crate::supervisor::attach::{Access, Readers};
use crate::supervisor::cache_changes::CacheChanges;
use crate::supervisor::capture::CaptureKeeper;
use crate::supervisor::counters;
use crate::supervisor::explain::Explains;
use crate::supervisor::fill::fill;
use crate::supervisor::front::Front;
use crate::supervisor::host::{Host, allowed_cores, settle};
use crate::supervisor::host_changes::HostChanges;
use crate::supervisor::interfaces::Interfaces;
use crate::supervisor::journal::{Event, say};
use crate::supervisor::kill_switch;
use crate::supervisor::near::near;
use crate::supervisor::neighbours::Neighbours;
use crate::supervisor::netlink::NetlinkSocket;
use crate::supervisor::reaper::Reaper;
use crate::supervisor::remembered::{Remembered, SwapUnderWay};
use crate::supervisor::resources::Resources;
use crate::supervisor::run_dir::RunDir;
use crate::supervisor::seat::Seat;
use crate::supervisor::take_back::{TakenBack, take_over};
use crate::supervisor::workers::{Workers, last_generation};

impl Node {
    /// Starts the node of `path`, or takes it over from a worker that outlived its supervisor.
    /// `origin` is what the supervisor before said.
    pub fn start(path: &Path, mut origin: Origin) -> Result<Self, NodeError> {
        // Before the dump, so that nothing between the two is missed.
        let changes = NetlinkSocket::for_changes()?;
        let (resolved, node_text, mirror) = check(path)?;
        let node = resolved.config.node.id.clone();
        let mut notes: Vec<String> = resolved.choices.iter().map(ToString::to_string).collect();
        if resolved.config.port.kind == PortKind::Xdp {
            notes.extend(Host::probe()?.withdrawn);
        }
        // Inherited by every worker: nothing they execute can gain a privilege.
        nix::sys::prctl::set_no_new_privs()
            .map_err(|errno| NodeError::System("give up new privileges", errno))?;
        let signals = signals()?;
        let run_dir = RunDir::take(&resolved.run_dir)?;
        let (mut known, said) = Remembered::read(&run_dir);
        notes.extend(said);
        notes.extend(become_remembered(&mut known, &origin, (&run_dir, &resolved), path));
        let begin = known.begin.unwrap_or(resolved.config.supervisor.start);
        let cores = allowed_cores();
        if begin == Begin::Serving {
            notes.extend(settle(&resolved));
        }
        let reaper = Rc::new(Reaper::start().map_err(NodeError::Reaper)?);

        let (mut taken, said) = take_over(&run_dir, &resolved);
        notes.extend(said);
        let unfinished = taken.forget_unfinished();
        let started_ns = monotonic_ns();
        let mut stale = Vec::new();
        let mut seats: Vec<Option<Seat>> = Vec::new();
        seats.resize_with(resolved.config.worker.count as usize, || None);
        let (resources, generation) = match taken.first {
            Some(TakenBack { seat, mut resources, assignment }) => {
                for (number, seat) in taken.others.into_iter().chain([(assignment.worker, seat)]) {
                    if assignment.node != node_text {
                        stale.push(seat.pid);
                    }
                    seats[number as usize] = Some(seat);
                }
                let generation =
                    resources.control.supervisor().identity().map_or(0, |old| old.generation) + 1;
                resources.control.region().advance_generation()?;
                if let Some(steering) = &resources.steering {
                    fill(steering, &resources.caches, &resolved.config, &mirror)?;
                }
                resources.join(&resolved.config)?;
                // A supervisor that died while it probed has left them out.
                resources.steer()?;
                counters::adopt(&mut resources, resolved.config.port.zero_copy);
                (resources, generation)
            }
            None if begin == Begin::Parked => {
                let _near = near(&resolved.cores);
                (Resources::none(ControlRegion::create(c"nautilus-control")?), 1)
            }
            None => {
                if !resolved.config.cache.is_empty() {
                    run_dir.outlast_readers();
                }
                let (resources, said) = Resources::open(&resolved, &mirror)?;
                notes.extend(said);
                (resources, 1)
            }
        };
        notes.extend(kill_switch::restore(&resources, run_dir.path()));
        let is_parked = seats.iter().all(Option::is_none) && begin == Begin::Parked;
        if is_parked {
            seats.clear();
        }
        let control = &resources.control;
        let workers = (0..).zip(seats).map(|(number, seat)| {
            Workers::new(number, seat, last_generation(control, number), reaper.clone())
        });
        let workers: Vec<Workers> = workers.collect();
        if !stale.is_empty() && known.swap.is_none() {
            // The node file has changed since: the workers follow it.
            let to = known.release.clone();
            known.swap = Some(SwapUnderWay { to, tries: 1, failed: None });
        }
        let identity = SupervisorIdentity {
            pid: std::process::id(),
            generation,
            started_ns,
            node_id: node.clone(),
        };
        resources.control.supervisor().set_identity(&identity);
        let listener = run_dir.listen(&run_dir.path().join(SUPERVISOR_SOCKET), 0o666)?;
        let readers = Readers::new(listener, Access::of(&resolved, &resources.caches), generation);
        let interfaces = Interfaces::new(&resolved, &mirror);
        let front = Front::adopt(resources.front.as_ref(), origin.front.take());
        let capture = CaptureKeeper::adopt(&resources);
        if !unfinished.is_empty() {
            // It may serve some of them, and cannot be told.
            front.replace();
        }
        let unfinished = unfinished.into_iter().map(|id| {
            format!(
                "cache {id} is gone: the supervisor died while it came or went; create it again"
            )
        });
        notes.extend(unfinished);
        let mut this = Self {
            resolved,
            node_text,
            run_dir,
            resources,
            mirror,
            changes,
            requests: NetlinkSocket::for_requests()?,
            workers,
            reaper,
            front,
            capture,
            interfaces,
            readers,
            explains: Explains::default(),
            signals,
            neighbours: Neighbours::default(),
            cache_changes: CacheChanges::default(),
            host_changes: HostChanges::default(),
            copied_ns: 0,
            started_ns,
            path: path.to_owned(),
            cores,
            remembered: known.clone(),
            life: Life::new(is_parked),
            draining: Draining::default(),
            swap: Swap::new(&known, origin, stale),
            probing: None,
        };
        for note in notes {
            say(&node, &note);
        }
        let alive = this.workers.iter().filter_map(|workers| workers.active.as_ref());
        let pids: Vec<String> = alive.map(|seat| seat.pid.to_string()).collect();
        let event = match pids.as_slice() {
            [_, ..] => {
                this.count(metrics::TAKEOVERS);
                let text = format!(
                    "supervisor {} took the node over from worker {}, which never stopped",
                    std::process::id(),
                    pids.join(" and worker ")
                );
                Event::new(EventKind::SupervisorTookOver, (generation, 0), text)
            }
            [] => {
                let text = format!("supervisor {} started", std::process::id());
                Event::new(EventKind::SupervisorStarted, (generation, 0), text)
            }
        };
        this.publish(&event);
        this.show();
        this.show_release();
        if begin == Begin::Parked && !is_parked {
            // The last supervisor died while it was parking the node.
            this.begin_parking(Vec::new());
        }
        Ok(this)
    }
}
