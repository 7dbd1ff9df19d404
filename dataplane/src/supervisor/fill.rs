//! What the node file says to the steering program: sources, limits, services, addresses, lines of feeds.
//! Written by the supervisor, at start and whenever caches or addresses change.

use std::net::IpAddr;

use nautilus_ebpf::intf::Service;
use nautilus_ebpf::{FeedLineAt, Steering, SteeringError};

use super::caches::{CacheOpened, OpenCache};
use super::mirror::Mirror;
use super::resources::OpenError;
use crate::config::{Auto, Cache, Feed, FeedLine, FeedRepublish, Interface, NodeConfig, PortKind};

/// Ids of services in the steering program's `ports` map.
const SERVICE_ECHO: u32 = 1;
const SERVICE_CACHE: u32 = 2;
const SERVICE_FEED: u32 = 3;

/// The addresses that are served: those of the node file, or every global one of the interface;
/// and the feeds' groups.
pub fn served_addresses(config: &NodeConfig, mirror: &Mirror) -> Vec<IpAddr> {
    let lines = config.feed.iter().flat_map(Feed::every_line);
    let mut served: Vec<IpAddr> = lines.map(|line| line.group).collect();
    for wanted in &config.interface {
        match (&wanted.addresses, mirror.link_named(&wanted.name)) {
            (Auto::Is(addresses), _) => served.extend(addresses),
            (Auto::Auto, Some(link)) => {
                served.extend(mirror.global_addresses(link.ifindex).map(|row| row.address));
            }
            (Auto::Auto, None) => {}
        }
    }
    served.retain(|address| !address.is_loopback() && !address.is_unspecified());
    served.sort_unstable();
    served.dedup();
    served
}

/// Whether hot keys of a cache are answered by the program. A veth whose other end has no XDP program loses what is
/// sent from XDP without a word, and nobody can see that from here.
pub fn has_hot_set(config: &NodeConfig, cache: &Cache, mirror: &Mirror) -> bool {
    let is_veth = |wanted: &Interface| {
        mirror.link_named(&wanted.name).is_some_and(|link| link.kind == "veth")
    };
    let wanted = match cache.hot_set {
        Auto::Is(wanted) => wanted,
        Auto::Auto => !config.interface.iter().any(is_veth),
    };
    wanted && config.port.kind == PortKind::Xdp
}

/// Which group and port is which line of which feed, feeds by their place in the node file. Only of those whose
/// headers the program can read: it drops no packet of the others.
fn lines_of_feeds(config: &NodeConfig) -> Vec<FeedLineAt> {
    let feeds = (0..).zip(&config.feed);
    let feeds = feeds.filter(|(_, section)| section.protocol.is_moldudp64());
    let lines = feeds.flat_map(|(feed, section)| {
        let lines = (0..).zip(section.every_line());
        lines.map(move |(line, FeedLine { group, port })| FeedLineAt { group, port, feed, line })
    });
    lines.collect()
}

/// Writes sources, limits, services and addresses into the steering program.
pub fn fill(
    steering: &Steering,
    caches: &[OpenCache],
    config: &NodeConfig,
    mirror: &Mirror,
) -> Result<(), OpenError> {
    let served = caches.iter().filter(|cache| cache.is_served());
    fill_with(steering, served.map(|cache| &cache.opened), config, mirror)
}

/// The same for caches that need not have been opened.
pub fn fill_with<'a>(
    steering: &Steering,
    caches: impl Iterator<Item = &'a CacheOpened> + Clone,
    config: &NodeConfig,
    mirror: &Mirror,
) -> Result<(), OpenError> {
    let failed = |source| OpenError::Steering { name: "(all)".into(), source };
    let sections = caches.clone().map(|opened| (opened.list(), &opened.section));
    let lists = config
        .source_lists(sections)
        .map_err(|error| failed(SteeringError::Refused(error.to_string())))?;
    let limits: Vec<_> = config.access.limit.iter().map(|limit| limit.rates()).collect();
    steering.replace_limits(&limits).map_err(failed)?;
    steering.replace_sources(&lists.merge()).map_err(failed)?;
    let mut services = Vec::new();
    services.extend(config.echo.map(|echo| (echo.port, Service::replying(SERVICE_ECHO))));
    services.extend(caches.map(|opened| {
        let is_hot = has_hot_set(config, &opened.section, mirror);
        let service = opened.service(SERVICE_CACHE, is_hot);
        let service = service.of_workers(config.worker.count);
        (opened.section.port, service.on_list(opened.list()))
    }));
    let lines = lines_of_feeds(config);
    let listening = |port: u16| match lines.iter().any(|line| line.port == port) {
        true => Service::listening(SERVICE_FEED).of_feeds(),
        false => Service::listening(SERVICE_FEED),
    };
    let every_line = config.feed.iter().flat_map(Feed::every_line);
    services.extend(every_line.map(|line| (line.port, listening(line.port))));
    let own = config.feed.iter().flat_map(Feed::own_endpoints);
    services.extend(own.map(|own| (own.port(), Service::listening(SERVICE_FEED))));
    let republished = config.feed.iter().filter_map(|feed| feed.republish.as_ref());
    let ports = republished.flat_map(FeedRepublish::service_ports);
    services.extend(ports.map(|port| (port, Service::listening(SERVICE_FEED))));
    steering.replace_feed_lines(&lines).map_err(failed)?;
    steering.replace_services(&services).map_err(failed)?;
    steering.replace_served_addresses(&served_addresses(config, mirror)).map_err(failed)
}
