//! The verb `explain`: where would this frame go, and why?
//!
//! The first question makes a thread load a second instance of the steering program beside the running
//! one, which takes the verifier's tens of milliseconds; until it is there the answer is "not ready", and
//! the supervisor's loop goes on. It is kept for a minute after the last question. Without a node the same
//! is done with a program of its own, filled from the node file.

use std::io;
use std::thread::JoinHandle;

use nautilus_ebpf::intf::{self, Service};
use nautilus_ebpf::{Explainer, Names, Options, Steering, SteeringError, TestContext, Verdict};
use nautilus_shm::attach::{EXPLAIN_FRAME_BYTES_MAX, ExplainRequest, PAYLOAD_BYTES_MAX};
use serde::Serialize;

use super::attach::Answer;
use super::caches::CacheOpened;
use super::fill::fill_with;
use super::mirror::Mirror;
use super::resources::{OpenError, Resources, binding_spec};
use super::workers::Workers;
use crate::config::{Auto, NodeConfig, Resolved};
use crate::limits::XDP_HEADROOM_BYTES;
use crate::xsk::Unbound;

const _: () = assert!(EXPLAIN_FRAME_BYTES_MAX == nautilus_ebpf::FRAME_BYTES_MAX);

/// How long the second instance is kept for the next question.
const IDLE_NS: u64 = 60_000_000_000;

/// Bytes of one step in an answer; longer ones are cut, so that all of them fit a reply.
const STEP_BYTES_MAX: usize = 240;

/// The interface that stands in for one that does not exist: loopback, where the kernel runs a program on
/// a frame in memory.
const STAND_IN_IFINDEX: u32 = 1;
/// Its MAC.
const STAND_IN_MAC: [u8; 6] = [0x02, 0x6e, 0x61, 0, 0, 0];

/// What is answered.
#[derive(Debug, Default, Serialize)]
struct Document {
    verdict: &'static str,
    action: &'static str,
    reason: &'static str,
    interface: String,
    queue: u32,
    frame_bytes: u32,
    /// The text of an answer made by XDP.
    #[serde(skip_serializing_if = "Option::is_none")]
    answer: Option<String>,
    notes: Vec<String>,
    step: Vec<Row>,
}

#[derive(Debug, Serialize)]
struct Row {
    name: &'static str,
    found: String,
}

/// Why a frame cannot be explained.
#[derive(Debug, thiserror::Error)]
pub enum ExplainError {
    /// Kernel sockets only.
    #[error("this node has no steering program: port.kind is \"socket\"")]
    NoProgram,
    /// No such interface.
    #[error("{0:?} is not an interface of this node; it has {1}")]
    Interface(String, String),
    /// The program could not be loaded or run.
    #[error("{}", super::resources::chain(.0))]
    Steering(#[from] SteeringError),
    /// A queue the interface has not.
    #[error("interface {0} has no queue {1}, or is down: the kernel runs the program on neither")]
    Queue(String, u32),
    /// The maps could not be filled as the node file says.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// A socket to stand in for a worker's.
    #[error("no socket to stand in for a worker's: {0}")]
    Socket(#[from] crate::xsk::XskError),
    /// The loading thread.
    #[error("the second instance was not loaded: {0}")]
    Loading(String),
}

/// Names of what the node file says, and of who serves.
struct Called<'a> {
    config: &'a NodeConfig,
    /// Places of sockets, and who serves each.
    places: Vec<(u32, String)>,
}

impl Names for Called<'_> {
    fn service(&self, port: u16, service: &Service) -> String {
        let config = self.config;
        if config.echo.is_some_and(|echo| echo.port == port) {
            return "echo".into();
        }
        if let Some(cache) = config.cache.iter().find(|cache| cache.port == port) {
            return format!("cache {:?}", cache.id);
        }
        match config.feed.iter().find(|feed| feed.is_on_port(port)) {
            Some(feed) => format!("feed of {:?} ({})", feed.venue, feed.protocol.name()),
            None => format!("service {}", service.id),
        }
    }

    fn list(&self, list: u16) -> String {
        match list.checked_sub(1).and_then(|place| self.config.cache.get(usize::from(place))) {
            Some(cache) => format!("sources of cache {:?}", cache.id),
            None => "access.sources".into(),
        }
    }

    fn socket(&self, place: u32) -> String {
        let known = self.places.iter().find(|(known, _)| *known == place);
        known.map_or_else(|| "none is opened".into(), |(_, who)| who.clone())
    }
}

#[derive(Debug, Default)]
enum Second {
    #[default]
    None,
    Loading(JoinHandle<Result<Explainer, SteeringError>>),
    Loaded(Explainer),
}

/// The second instance, when there is one.
#[derive(Debug, Default)]
pub struct Explains {
    second: Second,
    used_ns: u64,
}

impl Explains {
    /// Answers a question, or says by an error that the answer is to be asked for again.
    pub fn answer(
        &mut self,
        request: &ExplainRequest,
        (resolved, resources): (&Resolved, &Resources),
        workers: &[Workers],
        now_ns: u64,
    ) -> io::Result<Answer> {
        self.used_ns = now_ns;
        let told = match &resources.steering {
            None => Err(ExplainError::NoProgram),
            Some(live) => match self.loaded(live, resolved) {
                Ok(None) => return Err(io::ErrorKind::WouldBlock.into()),
                Ok(Some(explainer)) => {
                    running(request, resolved, resources, workers, explainer, live)
                }
                Err(error) => Err(error),
            },
        };
        let payload = text(told).into_bytes();
        Ok(Answer { payload, fds: Vec::new() })
    }

    /// Lets the second instance go when nobody has asked for a while.
    pub fn tick(&mut self, now_ns: u64) {
        if now_ns.saturating_sub(self.used_ns) > IDLE_NS && matches!(self.second, Second::Loaded(_))
        {
            self.second = Second::None;
        }
    }

    fn loaded(
        &mut self,
        live: &Steering,
        resolved: &Resolved,
    ) -> Result<Option<&Explainer>, ExplainError> {
        let second = match std::mem::take(&mut self.second) {
            Second::None => {
                let live = live.try_clone()?;
                let options = options(resolved);
                let load = move || Explainer::beside(&live, options);
                let thread = std::thread::Builder::new().name("explain".into()).spawn(load);
                Second::Loading(thread.map_err(|error| ExplainError::Loading(error.to_string()))?)
            }
            Second::Loading(thread) if thread.is_finished() => {
                let panicked = |_| ExplainError::Loading("its thread panicked".into());
                Second::Loaded(thread.join().map_err(panicked)??)
            }
            other => other,
        };
        self.second = second;
        match &self.second {
            Second::Loaded(explainer) => Ok(Some(explainer)),
            _ => Ok(None),
        }
    }
}

fn options(resolved: &Resolved) -> Options {
    Options { frame_bytes_max: resolved.chunk_bytes - XDP_HEADROOM_BYTES }
}

/// On the maps of a running node.
fn running(
    request: &ExplainRequest,
    resolved: &Resolved,
    resources: &Resources,
    workers: &[Workers],
    explainer: &Explainer,
    live: &Steering,
) -> Result<Document, ExplainError> {
    let names: Vec<String> =
        resources.interfaces.iter().map(|opened| opened.interface.name.clone()).collect();
    let index = place_of(&request.interface, &names)?;
    let places = resources
        .interfaces
        .iter()
        .flat_map(|opened| {
            opened.queues.iter().map(|queue| {
                let who = served_by(resolved, workers, queue.worker);
                let name = &opened.interface.name;
                (opened.first_socket + queue.queue, format!("of {name}, {who}"))
            })
        })
        .collect();
    let called = Called { config: &resolved.config, places };
    let ifindex = resources.interfaces[index].interface.ifindex;
    let place = (names[index].as_str(), ifindex);
    let mut document = explain(request, explainer, live, place, &called)?;
    if !explainer.is_same_program() {
        document.notes.push(
            "the running program is of another release than this supervisor: the verdict is that of \
             this release on the running one's maps"
                .into(),
        );
    }
    Ok(document)
}

/// Who takes what a queue of this worker's is given.
fn served_by(resolved: &Resolved, workers: &[Workers], number: u32) -> String {
    let core = resolved.cores.get(number as usize).copied().unwrap_or_default();
    let active =
        workers.iter().find(|one| one.number == number).and_then(|one| one.active.as_ref());
    match active {
        Some(seat) => format!("worker {} on core {core} ({:?})", seat.pid, seat.phase),
        None => format!("of worker {number}, which does not serve at the moment"),
    }
}

/// A question without a node: by a program of its own, filled as the node file says. Needs root.
pub fn without_node(request: &ExplainRequest, (resolved, mirror): (&Resolved, &Mirror)) -> String {
    text(filled(request, resolved, mirror))
}

fn filled(
    request: &ExplainRequest,
    resolved: &Resolved,
    mirror: &Mirror,
) -> Result<Document, ExplainError> {
    let config = &resolved.config;
    if config.port.kind != crate::config::PortKind::Xdp {
        return Err(ExplainError::NoProgram);
    }
    let names: Vec<String> = config.interface.iter().map(|one| one.name.clone()).collect();
    let wanted = &config.interface[place_of(&request.interface, &names)?];
    let steering = Steering::load(options(resolved))?;
    let caches: Vec<CacheOpened> = config
        .cache
        .iter()
        .zip(0..)
        .map(|(section, place)| CacheOpened { place, generation: 1, section: section.clone() })
        .collect();
    fill_with(&steering, caches.iter(), config, mirror)?;
    let mut notes = vec!["no node was asked: the program was filled from the node file".to_owned()];
    let (ifindex, mac, queues) = match mirror.link_named(&wanted.name) {
        Some(link) => (link.ifindex, link.mac, link.rx_queues),
        None => {
            notes.push(format!(
                "interface {} does not exist here: loopback stands in for it, with one queue",
                wanted.name
            ));
            (STAND_IN_IFINDEX, STAND_IN_MAC, 1)
        }
    };
    let entry = intf::Interface { mac, queue_count: queues.min(64) as u16, first_socket: 0 };
    steering.set_interface(ifindex, entry)?;
    let served = match &wanted.queues {
        Auto::Is(queues) => queues.contains(&request.queue),
        Auto::Auto => request.queue < queues,
    };
    // Never bound: the program only looks whether there is one.
    let socket = match served {
        true => Some(Unbound::create(&binding_spec(resolved, ifindex, request.queue))?),
        false => None,
    };
    if let Some(socket) = &socket {
        steering.set_socket(request.queue, std::os::fd::AsFd::as_fd(&socket.fds.socket))?;
    }
    let explainer = Explainer::beside(&steering, options(resolved))?;
    let who = format!("of {}, whose worker a node would start", wanted.name);
    let called = Called { config, places: vec![(request.queue, who)] };
    let place = (wanted.name.as_str(), ifindex);
    let mut document = explain(request, &explainer, &steering, place, &called)?;
    document.notes = notes;
    Ok(document)
}

/// Where the interface of this name is; an empty name means the first.
fn place_of(name: &str, names: &[String]) -> Result<usize, ExplainError> {
    if name.is_empty() && !names.is_empty() {
        return Ok(0);
    }
    let known = names.iter().position(|known| known == name);
    known.ok_or_else(|| ExplainError::Interface(name.into(), names.join(", ")))
}

fn explain(
    request: &ExplainRequest,
    explainer: &Explainer,
    live: &Steering,
    (name, ifindex): (&str, u32),
    called: &Called<'_>,
) -> Result<Document, ExplainError> {
    let mut frame = request.frame.to_vec();
    if request.to_us {
        let interfaces = live.interfaces()?;
        let known = interfaces.iter().find(|(known, _)| *known == ifindex);
        if let Some((_, interface)) = known {
            frame[..6].copy_from_slice(&interface.mac);
        }
    }
    let context = TestContext { ifindex, rx_queue: request.queue };
    let told = explainer.explain(live, &frame, context, called).map_err(|error| match error {
        SteeringError::TestRun { .. } => ExplainError::Queue(name.into(), request.queue),
        other => other.into(),
    })?;
    let info = told.verdict.info();
    let answered = told.verdict == Verdict::HotHit;
    Ok(Document {
        verdict: info.name,
        action: info.action.name(),
        reason: info.help,
        interface: name.into(),
        queue: request.queue,
        frame_bytes: frame.len() as u32,
        answer: answered.then(|| answer_text(&frame, &told.outcome.packet)),
        notes: Vec::new(),
        step: told
            .steps
            .into_iter()
            .map(|step| Row { name: step.name, found: cut(step.found) })
            .collect(),
    })
}

/// What follows the headers of an answer, which are as long as its request's.
fn answer_text(request: &[u8], answer: &[u8]) -> String {
    let tagged = request.get(12..14) == Some(&[0x81, 0]);
    let ethertype_at = if tagged { 16 } else { 12 };
    let is_v4 = request.get(ethertype_at..ethertype_at + 2) == Some(&[0x08, 0]);
    let text_at = ethertype_at + 2 + if is_v4 { 20 } else { 40 } + 8 + 8;
    answer.get(text_at..).unwrap_or_default().escape_ascii().to_string()
}

fn cut(mut text: String) -> String {
    if text.len() > STEP_BYTES_MAX {
        let end = (0..=STEP_BYTES_MAX - 3).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0);
        text.truncate(end);
        text.push_str("...");
    }
    text
}

/// What is answered when there is no answer.
#[derive(Debug, Serialize)]
struct Failed {
    error: String,
}

/// The payload of a reply.
fn text(told: Result<Document, ExplainError>) -> String {
    let error = match told.map(|document| toml::to_string(&document)) {
        Ok(Ok(document)) if document.len() <= PAYLOAD_BYTES_MAX => return document,
        Ok(Ok(document)) => format!("an answer of {} bytes", document.len()),
        Ok(Err(error)) => error.to_string(),
        Err(error) => cut(error.to_string()),
    };
    toml::to_string(&Failed { error }).unwrap_or_default()
}
