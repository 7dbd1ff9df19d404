//! Who may do what with a cache, by source address: the steering program's lists again, for what did not
//! pass it (kernel sockets, TCP, simulations).

use std::net::IpAddr;

use nautilus_ebpf::intf::Permissions;

use crate::net::Prefix;

/// Prefixes with their permissions. Made at start and never changed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AccessList {
    /// Longest prefixes first.
    entries: Vec<(Prefix, Permissions)>,
}

impl AccessList {
    /// A list; a prefix that stands twice counts as it stands first.
    pub fn new(mut entries: Vec<(Prefix, Permissions)>) -> Self {
        entries.sort_by_key(|(prefix, _)| std::cmp::Reverse(prefix.bits()));
        Self { entries }
    }

    /// Everybody may do everything: for a cache that no network reaches.
    pub fn everybody() -> Self {
        let any =
            |address: IpAddr| Prefix::containing(address, 0).map(|any| (any, Permissions::ALL));
        let families = [any([0; 4].into()), any([0; 16].into())];
        Self { entries: families.into_iter().flatten().collect() }
    }

    /// What the longest prefix says; nothing for an address in none. An IPv4-mapped address counts as
    /// IPv4. Takes some nanoseconds a prefix.
    pub fn permissions_of(&self, source: IpAddr) -> Permissions {
        let found = self.entries.iter().find(|(prefix, _)| prefix.contains(source));
        found.map_or(Permissions::NONE, |(_, permissions)| *permissions)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_prefix_of_the_family_counts() {
        let prefix = |text: &str| text.parse::<Prefix>().unwrap();
        let list = AccessList::new(vec![
            (prefix("0.0.0.0/0"), Permissions::READ),
            (prefix("198.18.0.7/32"), Permissions::ALL),
            (prefix("198.18.0.0/24"), Permissions::NONE),
        ]);
        let of = |text: &str| list.permissions_of(text.parse().unwrap());
        assert_eq!(of("198.18.0.7"), Permissions::ALL);
        assert_eq!(of("::ffff:198.18.0.7"), Permissions::ALL);
        assert_eq!(of("198.18.0.8"), Permissions::NONE);
        assert_eq!(of("10.0.0.1"), Permissions::READ);
        assert_eq!(of("fd00::1"), Permissions::NONE);
        for source in ["10.0.0.1", "fd00::1", "::ffff:10.0.0.1"] {
            let everybody = AccessList::everybody();
            assert_eq!(everybody.permissions_of(source.parse().unwrap()), Permissions::ALL);
        }
    }
}
