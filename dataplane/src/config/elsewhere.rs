//! What a node file wants of its host, in words: for a file that is checked on another one, where users, CPUs
//! and interfaces are not those of the host it is for. Keys, types, bounds and everything that is between
//! keys has been checked when there is a [`NodeConfig`].

use super::{Auto, NodeConfig, PortKind, Queues};

/// One line for each thing that only the host can say.
pub fn wants_of_its_host(config: &NodeConfig) -> Vec<String> {
    let mut wants = Vec::new();
    for (index, interface) in config.interface.iter().enumerate() {
        let queues = match &interface.queues {
            Queues::Auto => "with every queue it has".into(),
            Queues::Is(queues) => format!("with queues {queues:?}"),
        };
        wants.push(format!("interface[{index}].name: an interface {}, {queues}", interface.name));
    }
    match &config.worker.core {
        Auto::Is(cores) => wants.push(format!("worker.core: CPUs {:?}", cores.all())),
        Auto::Auto => wants.push(format!("worker.core: {} CPUs", config.worker.count)),
    }
    if let Auto::Is(core) = &config.front.core {
        wants.push(format!("front.core: CPU {core}"));
    }
    let mut user = |key: String, name: &str| wants.push(format!("{key}: a user {name}"));
    user("worker.user".into(), &config.worker.user);
    user("control.user".into(), &config.control.user);
    for (index, cache) in config.cache.iter().enumerate() {
        cache.readers.iter().for_each(|name| user(format!("cache[{index}].readers"), name));
    }
    if config.port.kind == PortKind::Xdp && config.port.huge_pages == Auto::Is(true) {
        wants.push("port.huge_pages: free huge pages for packet memory".into());
    }
    for (index, cache) in config.cache.iter().enumerate() {
        let pages = if cache.huge_pages { " on huge pages" } else { "" };
        wants.push(format!("cache[{index}]: {} MiB{pages}", cache.max_memory_mb));
    }
    wants
}
