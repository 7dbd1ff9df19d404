//! What of a node file may change while its node runs: what concerns processes, not what they share.

use super::NodeConfig;

/// Whether a node that runs with `old` can go on with `new`; else the first section that it cannot follow.
pub fn change_in_place(old: &NodeConfig, new: &NodeConfig) -> Result<(), &'static str> {
    let mut followed = old.clone();
    // The steering program, workers and front are told of these when they begin, or are filled anew.
    followed.access = new.access.clone();
    followed.supervisor = new.supervisor.clone();
    followed.control = new.control.clone();
    (followed.node.region, followed.node.tier) = (new.node.region.clone(), new.node.tier);
    followed.worker.core = new.worker.core.clone();
    followed.worker.poll = new.worker.poll;
    followed.worker.program = new.worker.program.clone();
    let enabled = followed.front.enabled;
    followed.front = new.front.clone();
    followed.front.enabled = enabled;
    for (name, is_same) in [
        ("node", followed.node == new.node),
        ("worker", followed.worker == new.worker),
        ("port", followed.port == new.port),
        ("interface", followed.interface == new.interface),
        ("echo", followed.echo == new.echo),
        ("cache", followed.cache == new.cache),
        ("front", followed.front == new.front),
        ("feed", followed.feed == new.feed),
        ("capture", followed.capture == new.capture),
    ] {
        if !is_same {
            return Err(name);
        }
    }
    if followed == *new { Ok(()) } else { Err("the node file") }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(text: &str) -> NodeConfig {
        crate::config::parse(text, "n.toml").unwrap()
    }

    #[test]
    fn what_processes_share_stays_as_it_is() {
        let old = config("[cache]\nid = \"q\"\n");
        for fine in [
            "[cache]\nid = \"q\"\n[worker]\npoll = \"busy\"\n[front]\nmax_connections = 7\n",
            "[cache]\nid = \"q\"\n[access]\nsources = [\"10.0.0.0/8\"]\n[supervisor]\nstart = \"parked\"\n",
            "[node]\nregion = \"x\"\n[cache]\nid = \"q\"\n",
        ] {
            assert_eq!(change_in_place(&old, &config(fine)), Ok(()), "{fine}");
        }
        for (section, text) in [
            ("cache", "[cache]\nid = \"q\"\nmax_memory_mb = 8\n"),
            ("cache", ""),
            ("worker", "[cache]\nid = \"q\"\n[worker]\nuser = \"daemon\"\n"),
            ("front", "[cache]\nid = \"q\"\n[front]\nenabled = false\n"),
            ("port", "[cache]\nid = \"q\"\n[port]\nframes = 4096\n"),
            ("echo", "[cache]\nid = \"q\"\n[echo]\nport = 9\n"),
            ("interface", "[cache]\nid = \"q\"\n[[interface]]\nname = \"eth7\"\n"),
            ("node", "[node]\nid = \"other\"\n[cache]\nid = \"q\"\n"),
        ] {
            assert_eq!(change_in_place(&old, &config(text)), Err(section), "{text}");
        }
    }
}
