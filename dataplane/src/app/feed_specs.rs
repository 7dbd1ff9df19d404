//! Feeds as the node file has them, for whoever applies them: a worker, or a replay of what one saw.

use super::feed::FeedSpec;
use crate::config::{self, FeedStart, NodeConfig};
use crate::feed::Venue;
use crate::feed::channel::ChannelSpec;
use crate::feed::held::HeldLimits;
use crate::feed::recovery::{RecoverySpec, SERVERS_MAX};
use crate::feed::republish::RepublishSpec;
use crate::feed::session::Start;
use crate::net::Endpoint;
use nautilus_shm::clock::monotonic_ns;

/// Silence after which a feed's keys are suspect: three of MoldUDP64's heartbeats, one a second.
pub const SILENCE_LIMIT_NS: u64 = 3_000_000_000;

/// Bytes of the queue of a feed that recovers for each packet that it may hold: the shortest takes so many.
const QUEUE_BYTES_A_PACKET: usize = crate::feed::held::BLOCK_BYTES;

/// Where a feed is received, line A first.
pub fn lines_of(feed: &config::Feed) -> Vec<Endpoint> {
    feed.every_line().map(|line| Endpoint::new(line.group, line.port)).collect()
}

/// What a feed of the node file is. `generation` seeds hashes and numbers the first attempt to get a snapshot:
/// no worker before had it. `None` for a venue that the node file's check refuses.
pub fn spec_of(feed: &config::Feed, config: &NodeConfig, generation: u64) -> Option<FeedSpec> {
    let recovery = recovery_of(feed, config).map(|recovery| (recovery, generation));
    Some(FeedSpec { lines: lines_of(feed), channel: channel_of(feed, generation)?, recovery })
}

fn channel_of(feed: &config::Feed, hash_seed: u64) -> Option<ChannelSpec> {
    let start = match feed.start {
        FeedStart::Session => Start::Session,
        FeedStart::Any => Start::Any,
    };
    let books = feed.book_limits(hash_seed);
    Some(ChannelSpec {
        venue: Venue::new(&feed.venue)?,
        protocol: feed.protocol,
        channel: feed.channel,
        start,
        silence_limit_ns: SILENCE_LIMIT_NS,
        hold_limit_ns: u64::from(feed.hold_limit_us) * 1_000,
        depth: feed.depth,
        books,
    })
}

/// Endpoints that others ask at for what a feed has, not with what it is made of.
pub fn asked_of(feed: &config::Feed) -> impl Iterator<Item = Endpoint> {
    let distribution = feed.distribution.iter().map(|distribution| distribution.endpoint);
    let given_out = feed
        .republish
        .iter()
        .flat_map(|republish| [Some(republish.from), republish.requests].into_iter().flatten());
    distribution.chain(given_out).map(Endpoint::from)
}

/// How a feed is given out again, by the node file, which was checked.
pub fn republish_of(feed: &config::Feed, config: &NodeConfig) -> Option<RepublishSpec> {
    let republish = feed.republish.as_ref()?;
    Some(RepublishSpec {
        group: Endpoint::new(republish.group, republish.port),
        from: Endpoint::from(republish.from),
        interface: republish.interface_index(config) as u16,
        flush_ns: u64::from(republish.flush_us) * 1_000,
        history_bytes: (republish.history_mb as usize) << 20,
        requests: republish.requests.map(|at| (Endpoint::from(at), republish.limits())),
        hash_seed: monotonic_ns(),
    })
}

/// How a feed recovers, by the node file, which was checked.
fn recovery_of(feed: &config::Feed, config: &NodeConfig) -> Option<RecoverySpec> {
    let recovery = feed.recovery.as_ref()?;
    let mut servers = [None; SERVERS_MAX];
    for (place, server) in servers.iter_mut().zip(&recovery.servers) {
        *place = Some(Endpoint::from(*server));
    }
    let is_named =
        |interface: &config::Interface| Some(&interface.name) == recovery.interface.as_ref();
    let queue_bytes = (recovery.queue_mb as usize) << 20;
    Some(RecoverySpec {
        servers,
        from: feed.requests_from().map(Endpoint::from).unwrap_or_default(),
        interface: config.interface.iter().position(is_named).unwrap_or(0) as u16,
        request_after_ns: u64::from(recovery.request_after_us) * 1_000,
        timeout_ns: u64::from(recovery.request_timeout_us) * 1_000,
        messages_max: recovery.request_messages_max,
        queue: HeldLimits {
            packets_max: queue_bytes / QUEUE_BYTES_A_PACKET,
            bytes_max: queue_bytes,
        },
        has_snapshot: recovery.snapshot.is_some(),
    })
}
