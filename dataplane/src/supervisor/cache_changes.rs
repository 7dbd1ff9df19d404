//! Caches that are created and removed while the node runs.
//!
//! ```text
//!   create   sockets -> memory, on a thread of its own -> workers, standbys, front: add
//!                                        all have made it -> steering -> served, answered
//!   remove   steering -> heartbeat 0: readers detach -> workers, standbys, front: forget
//!                                        all have made it -> answered; a pause -> memory given back
//! ```
//!
//! One change at a time; whoever asks for the same meanwhile waits for the same answer. Every process is told
//! in the order of the changes by the connection that it was started on, and one that is started later is
//! given what there is, so a death in between loses nothing: the change waits for the successor.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Duration;

use nautilus_shm::attach::{CACHES_MAX, CacheName, Code, cache_name};
use nautilus_shm::cache_cell::CacheState;
use nautilus_shm::clock::monotonic_ns;
use nautilus_shm::control_region::PROCESSES_MAX;
use nautilus_shm::event_log::EventKind;
use nautilus_shm::table::TableRegion;

use super::attach::{Readers, Reply};
use super::cache_admission::{admit, room_for};
use super::caches::{CacheOpened, OpenCache, make_memory};
use super::fill::fill;
use super::front::Front;
use super::front_messages::ToFront;
use super::front_resources::CacheSockets;
use super::handover::{Fds, ToWorker};
use super::journal::{Event, milliseconds};
use super::kill_switch;
use super::mirror::Mirror;
use super::near::near;
use super::publish::publish_caches;
use super::resources::Resources;
use super::workers::{Context, Workers};
use crate::config::{Cache, PortKind, Resolved};
use crate::kill_point::kill_point;

/// Between the end of a cache and the return of its memory; readers detach within a second. Too low: a reader
/// in the middle of a copy sees zeros, and then that it is detached. Too high: memory comes back late.
const PAUSE: Duration = Duration::from_millis(1500);

/// How long a front may take for a change. Then it is replaced, and its connections end.
const FRONT_PATIENCE_NS: u64 = 5_000_000_000;

/// How long a port may be taken before that is an error: the kernel closes what a front's ring held, of a
/// cache that is gone, after the front has let go of it or is dead.
const PORT_PATIENCE_NS: u64 = 500_000_000;

/// The change that is being made.
#[derive(Debug)]
struct Work {
    opened: CacheOpened,
    step: Step,
    /// Connections that are to be told how it ended.
    waiting: Vec<OwnedFd>,
    began_ns: u64,
    told_ns: u64,
    /// Why a creation is taken back.
    failure: Option<String>,
}

#[derive(Debug)]
enum Step {
    Create,
    Making(CacheSockets, Receiver<Result<TableRegion, String>>),
    Adding(u64),
    Remove,
    Forgetting(u64),
}

impl Work {
    fn creates(&self) -> bool {
        matches!(self.step, Step::Create | Step::Making(..) | Step::Adding(_))
    }
}

/// How a change ended, and who is to be told.
#[derive(Debug)]
pub struct Told {
    waiting: Vec<OwnedFd>,
    code: Code,
    text: String,
}

impl Told {
    /// Tells them.
    pub fn say(self, readers: &Readers) {
        for fd in self.waiting {
            readers.say(fd.as_fd(), self.code, self.text.clone());
        }
    }
}

/// The changes of the caches of a node.
#[derive(Debug, Default)]
pub struct CacheChanges {
    work: Option<Work>,
    /// Memory that was given back, in words.
    returned: Option<(Sender<String>, Receiver<String>)>,
}

type Node<'a> = (&'a Resolved, &'a Resources);

impl CacheChanges {
    /// Begins to make the cache that `text`, a section of the node file, describes. `peer` asked for it.
    pub fn create(
        &mut self,
        text: &str,
        (resolved, resources): Node<'_>,
        peer: BorrowedFd<'_>,
    ) -> io::Result<Reply> {
        let section: Cache = match toml::from_str(text) {
            Ok(section) => section,
            Err(error) => return impossible(format!("the cache's section: {}", error.message())),
        };
        let id = &section.id;
        let others = "is there with other settings; remove it first, or choose another id";
        if let Some(work) = &mut self.work {
            if work.opened.section.id != *id || !work.creates() {
                return busy(work);
            }
            if work.opened.section != section {
                return impossible(format!("cache {id} {others}"));
            }
            work.waiting.push(peer.try_clone_to_owned()?);
            return Ok(Reply::Later);
        }
        if let Some(known) = resources.caches.iter().find(|known| known.opened.section.id == *id) {
            return match known.opened.section == section {
                true => Ok(Reply::Say(Code::Ok, format!("cache {id} is served already"))),
                false => impossible(format!("cache {id} {others}")),
            };
        }
        if let Err(problem) = admit(&section, resolved, resources) {
            return impossible(format!("cache {id}: {problem}"));
        }
        let taken = |place: &u16| resources.caches.iter().any(|known| known.opened.place == *place);
        let Some(place) = (0..CACHES_MAX as u16).find(|place| !taken(place)) else {
            return impossible(format!("a node has at most {CACHES_MAX} caches"));
        };
        let last = (0..CACHES_MAX).map(|place| resources.control.cache(place).own_identity());
        let generation = last.map(|known| known.generation).max().unwrap_or(0) + 1;
        self.begin(CacheOpened { place, generation, section }, Step::Create, peer)
    }

    /// Begins to remove a cache that was created while the node runs. `peer` asked for it.
    pub fn remove(
        &mut self,
        name: &CacheName,
        (resolved, resources): Node<'_>,
        peer: BorrowedFd<'_>,
    ) -> io::Result<Reply> {
        if let Some(work) = &mut self.work {
            if cache_name(&work.opened.section.id) != *name || work.creates() {
                return busy(work);
            }
            work.waiting.push(peer.try_clone_to_owned()?);
            return Ok(Reply::Later);
        }
        let named = |known: &&OpenCache| cache_name(&known.opened.section.id) == *name;
        let Some(known) = resources.caches.iter().find(named) else {
            return Ok(Reply::Say(Code::NoCache, "this node has no such cache".into()));
        };
        let id = &known.opened.section.id;
        let config = &resolved.config;
        if let Some(place) = config.cache.iter().position(|cache| cache.id == *id) {
            let feed = config.feed.iter().find(|feed| config.cache_of(feed) == Some(place));
            let feed = feed
                .map_or(String::new(), |feed| format!(" (the feed of {} writes it)", feed.venue));
            return impossible(format!(
                "cache {id} is one of the node file{feed}: take its section out and start the node anew"
            ));
        }
        self.begin(known.opened.clone(), Step::Remove, peer)
    }

    fn begin(
        &mut self,
        opened: CacheOpened,
        step: Step,
        peer: BorrowedFd<'_>,
    ) -> io::Result<Reply> {
        let waiting = vec![peer.try_clone_to_owned()?];
        let began_ns = monotonic_ns();
        let told_ns = began_ns;
        self.work = Some(Work { opened, step, waiting, began_ns, told_ns, failure: None });
        Ok(Reply::Later)
    }

    /// Whether one is being made.
    pub fn is_busy(&self) -> bool {
        self.work.is_some()
    }

    /// Goes on with the change that is being made, if the time has come; says when and how it has ended.
    pub fn keep(
        &mut self,
        context: &mut Context<'_>,
        workers: &mut [Workers],
        front: &Front,
        mirror: &Mirror,
    ) -> Option<Told> {
        if let Some((_, returned)) = &self.returned {
            returned.try_iter().for_each(|text| notice(context, text));
        }
        let refused = refusals(context, workers, self.work.as_ref());
        let mut work = self.work.take()?;
        let before = context.resources.changes;
        let step = std::mem::replace(&mut work.step, Step::Create);
        work.step = match step {
            // What the last supervisor did not finish comes first.
            Step::Create if !has_all(context, workers, front, &mut work, before) => Step::Create,
            Step::Create => match open(&work.opened, context.resolved) {
                Ok((sockets, made)) => Step::Making(sockets, made),
                Err(_) if monotonic_ns().saturating_sub(work.began_ns) < PORT_PATIENCE_NS => {
                    Step::Create
                }
                Err(problem) => return Some(fail(context, work, problem)),
            },
            Step::Making(sockets, made) => match made.try_recv() {
                Ok(Ok(memory)) => {
                    kill_point("supervisor.made_cache");
                    add(context, (workers, front, mirror), &mut work, (memory, sockets))
                }
                Ok(Err(problem)) => return Some(fail(context, work, problem)),
                Err(std::sync::mpsc::TryRecvError::Empty) => Step::Making(sockets, made),
                Err(_) => return Some(fail(context, work, "its memory was not made".into())),
            },
            Step::Adding(number) => {
                if let Some(problem) = refused {
                    work.failure = Some(problem);
                    Step::Remove
                } else if has_all(context, workers, front, &mut work, number) {
                    kill_point("supervisor.added_cache");
                    match serve(context, &work.opened, mirror) {
                        Ok(()) => return Some(created(context, work)),
                        Err(problem) => {
                            work.failure = Some(problem);
                            Step::Remove
                        }
                    }
                } else {
                    Step::Adding(number)
                }
            }
            Step::Remove => forget(context, (workers, front, mirror), &mut work),
            Step::Forgetting(number) => {
                if has_all(context, workers, front, &mut work, number) {
                    self.bury(context, &work.opened, mirror);
                    return Some(removed(context, work));
                }
                Step::Forgetting(number)
            }
        };
        self.work = Some(work);
        None
    }

    /// Gives the memory of a cache back, on a thread of its own: that takes seconds for a large one.
    fn bury(&mut self, context: &mut Context<'_>, opened: &CacheOpened, mirror: &Mirror) {
        let caches = &mut context.resources.caches;
        let gone = caches.iter().position(|cache| cache.opened == *opened);
        let gone = gone.map(|index| caches.remove(index));
        publish_caches(context.resolved, mirror, context.resources);
        let Some(OpenCache { opened, memory, .. }) = gone else { return };
        let (said, _) = self.returned.get_or_insert_with(channel);
        let said = said.clone();
        let bury = move || {
            std::thread::sleep(PAUSE);
            let Cache { id, max_memory_mb, .. } = &opened.section;
            let given = memory.region().give_back();
            let _ = said.send(match given {
                Ok(()) => format!("memory of cache {id} is given back: {max_memory_mb} MiB"),
                Err(error) => {
                    format!("memory of cache {id} stays until its last reader closes it: {error}")
                }
            });
        };
        // Without a thread it is given back when the last reader closes it.
        let _ = std::thread::Builder::new().name("cache-burial".into()).spawn(bury);
    }
}

fn impossible(text: String) -> io::Result<Reply> {
    Ok(Reply::Say(Code::Impossible, text))
}

fn busy(work: &Work) -> io::Result<Reply> {
    let what = if work.creates() { "created" } else { "removed" };
    impossible(format!("cache {} is being {what}; ask again then", work.opened.section.id))
}

fn notice(context: &Context<'_>, text: String) {
    context.publish(&Event::new(EventKind::Notice, (0, 0), text));
}

/// Opens the sockets, which may be refused at once, and has the memory made.
fn open(
    opened: &CacheOpened,
    resolved: &Resolved,
) -> Result<(CacheSockets, Receiver<Result<TableRegion, String>>), String> {
    let (config, section) = (&resolved.config, opened.section.clone());
    let sockets = match config.has_front() {
        // The worker opens its sockets when it starts; what comes later is the front's.
        true => CacheSockets::open(config, &section, PortKind::Xdp).map_err(|e| e.to_string())?,
        false => CacheSockets::default(),
    };
    let (done, made) = channel();
    let workers = config.worker.count;
    let cores = resolved.cores.clone();
    let make = move || {
        let _near = near(&cores);
        let memory = match room_for(&section) {
            Ok(()) => make_memory(&section, workers).map_err(|error| error.to_string()),
            Err(problem) => Err(problem),
        };
        let _ = done.send(memory);
    };
    let thread = std::thread::Builder::new().name("cache-maker".into()).spawn(make);
    thread.map_err(|error| format!("no thread for its memory: {error}"))?;
    Ok((sockets, made))
}

/// What a worker could not do. One that refuses a change that all others have made is replaced.
fn refusals(context: &Context<'_>, workers: &mut [Workers], work: Option<&Work>) -> Option<String> {
    let mut refused = None;
    for workers in workers {
        let Some((number, problem)) = workers.refused.take() else { continue };
        match work {
            Some(Work { step: Step::Adding(now), .. }) if *now == number => {
                refused = Some(problem);
            }
            _ => {
                notice(context, problem);
                workers.renew_standby();
            }
        }
    }
    refused
}

type Processes<'a> = (&'a mut [Workers], &'a Front, &'a Mirror);

fn add(
    context: &mut Context<'_>,
    (workers, front, mirror): Processes<'_>,
    work: &mut Work,
    (memory, sockets): (TableRegion, CacheSockets),
) -> Step {
    kill_switch::show_to(&context.resources.control, &memory);
    let opened = work.opened.clone();
    for process in 0..PROCESSES_MAX {
        // Nobody counts there: no process has a cache in this place.
        context.resources.control.cache_metrics(process, opened.place.into()).clear();
    }
    if let Some(hits) = &context.resources.hot_hits {
        // No service names the place: its last cache was taken out of the program before it was forgotten.
        hits.begin_cache(opened.place);
    }
    let cache = OpenCache { opened: opened.clone(), state: CacheState::Creating, memory, sockets };
    context.resources.changes += 1;
    work.told_ns = monotonic_ns();
    let number = context.resources.changes;
    let (mut fds, mut of_front) = (Fds::default(), Fds::default());
    let given = cache.append_to(&mut fds).and_then(|()| cache.append_for_front(&mut of_front));
    context.resources.caches.push(cache);
    publish_caches(context.resolved, mirror, context.resources);
    if let Err(error) = given {
        work.failure = Some(format!("cannot duplicate descriptors: {error}"));
        return Step::Remove;
    }
    let message = ToWorker::Add { number, fds: fds.names(), opened: opened.clone() };
    workers.iter().for_each(|workers| workers.tell(&message, &fds));
    front.tell(&ToFront::Add { number, fds: of_front.names(), opened }, &of_front);
    kill_point("supervisor.told_of_cache");
    Step::Adding(number)
}

fn forget(
    context: &mut Context<'_>,
    (workers, front, mirror): Processes<'_>,
    work: &mut Work,
) -> Step {
    let CacheOpened { place, generation, .. } = work.opened;
    set_state(context.resources, &work.opened, CacheState::Removing);
    publish_caches(context.resolved, mirror, context.resources);
    // Packets first: what arrives from here on is the kernel's.
    if let Err(problem) = steer(context, mirror) {
        notice(context, problem);
    }
    for cache in context.resources.caches.iter().filter(|cache| !cache.is_handed()) {
        let _ = cache.memory.beat(0);
    }
    context.resources.changes += 1;
    work.told_ns = monotonic_ns();
    let number = context.resources.changes;
    let message = ToWorker::Forget { number, place, generation };
    workers.iter().for_each(|workers| workers.tell(&message, &Fds::default()));
    front.tell(&ToFront::Forget { number, place, generation }, &Fds::default());
    kill_point("supervisor.told_to_forget");
    Step::Forgetting(number)
}

/// Whether every process that serves has made the change.
fn has_all(
    context: &Context<'_>,
    workers: &[Workers],
    front: &Front,
    work: &mut Work,
    number: u64,
) -> bool {
    let now_ns = monotonic_ns();
    if !front.has_made(number) && now_ns.saturating_sub(work.told_ns) > FRONT_PATIENCE_NS {
        work.told_ns = now_ns;
        notice(context, "the front is replaced: it did not take a change of the caches".into());
        front.replace();
    }
    front.has_made(number) && workers.iter().all(|workers| workers.have_made(number))
}

fn serve(context: &mut Context<'_>, opened: &CacheOpened, mirror: &Mirror) -> Result<(), String> {
    set_state(context.resources, opened, CacheState::Serving);
    publish_caches(context.resolved, mirror, context.resources);
    steer(context, mirror)
}

fn steer(context: &Context<'_>, mirror: &Mirror) -> Result<(), String> {
    let Some(steering) = &context.resources.steering else { return Ok(()) };
    let caches = &context.resources.caches;
    fill(steering, caches, &context.resolved.config, mirror).map_err(|error| error.to_string())
}

fn set_state(resources: &mut Resources, opened: &CacheOpened, state: CacheState) {
    let named = resources.caches.iter_mut().filter(|cache| cache.opened == *opened);
    named.for_each(|cache| cache.state = state);
}

fn created(context: &Context<'_>, work: Work) -> Told {
    let Cache { id, port, max_memory_mb, .. } = &work.opened.section;
    let took = milliseconds(monotonic_ns().saturating_sub(work.began_ns));
    let text = format!(
        "cache {id} created: port {port}, {max_memory_mb} MiB, generation {}, in {took}",
        work.opened.generation
    );
    notice(context, text.clone());
    Told { waiting: work.waiting, code: Code::Ok, text }
}

fn removed(context: &Context<'_>, work: Work) -> Told {
    let id = work.opened.section.id.clone();
    if let Some(problem) = work.failure.clone() {
        return fail(context, work, problem);
    }
    let took = milliseconds(monotonic_ns().saturating_sub(work.began_ns));
    let text = format!("cache {id} removed, in {took}");
    notice(context, text.clone());
    Told { waiting: work.waiting, code: Code::Ok, text }
}

fn fail(context: &Context<'_>, work: Work, problem: String) -> Told {
    let id = &work.opened.section.id;
    // Some problems name it themselves.
    let problem = problem.strip_prefix(&format!("cache {id}: ")).unwrap_or(&problem);
    let text = format!("cache {id} was not created: {problem}");
    notice(context, text.clone());
    Told { waiting: work.waiting, code: Code::Impossible, text }
}
