//! What a source may do on each of a node's lists, and how the lists become the one that the program
//! looks at: every prefix of any list, each with what the longest prefix of every list says of it.

use std::collections::BTreeMap;
use std::net::IpAddr;

use crate::intf::{LISTS_MAX, Permissions};
use crate::prefix::SourcePrefix;

const BITS: u32 = 3;

/// What a source may do on each list, and which limit it has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Rights {
    /// As in [`crate::intf::Source::permissions`].
    pub(crate) permissions: u64,
    /// Index of a limit; 0 is none.
    pub limit: u32,
}

impl Rights {
    /// What it may do on a list. Nothing, where there is no such list.
    pub fn on(self, list: u16) -> Permissions {
        if list >= LISTS_MAX {
            return Permissions::NONE;
        }
        Permissions::masked((self.permissions >> (BITS * u32::from(list))) as u32)
    }

    /// The same with other permissions on a list below [`LISTS_MAX`].
    ///
    /// # Panics
    /// When there is no such list.
    pub fn with(self, list: u16, permissions: Permissions) -> Self {
        assert!(list < LISTS_MAX, "list {list}");
        let shift = BITS * u32::from(list);
        let kept = self.permissions & !(u64::from(Permissions::ALL.0) << shift);
        Self { permissions: kept | u64::from(permissions.0) << shift, ..self }
    }
}

impl Rights {
    /// The same with another limit.
    pub const fn limited(self, limit: u32) -> Self {
        Self { limit, ..self }
    }
}

/// On the node's own list.
impl From<Permissions> for Rights {
    fn from(permissions: Permissions) -> Self {
        Self::default().with(0, permissions)
    }
}

/// The lists of a node and the limits of its sources, to be merged.
#[derive(Clone, Debug, Default)]
pub struct SourceLists {
    /// What each prefix says itself; None where it says nothing.
    said: BTreeMap<Key, Said>,
}

/// Prefixes in this order have what covers them before them.
type Key = (IpAddr, u8);

#[derive(Clone, Copy, Debug, Default)]
struct Said {
    /// With `permissions` of the lists that name it; their bits are set in `lists`.
    rights: Rights,
    lists: u32,
    limits: bool,
}

impl SourceLists {
    /// Lets a prefix have these permissions on a list below [`LISTS_MAX`].
    pub fn list(&mut self, list: u16, prefix: SourcePrefix, permissions: Permissions) {
        let said = self.said.entry((prefix.address(), prefix.bits())).or_default();
        said.rights = said.rights.with(list, permissions);
        said.lists |= 1 << list;
    }

    /// Gives the sources of a prefix the limit of this index; 0 is none.
    pub fn limit(&mut self, prefix: SourcePrefix, limit: u32) {
        let said = self.said.entry((prefix.address(), prefix.bits())).or_default();
        said.rights.limit = limit;
        said.limits = true;
    }

    /// One list: what the longest prefix says, for every list and for the limit by itself.
    pub fn merge(&self) -> Vec<(SourcePrefix, Rights)> {
        let mut covering: Vec<(SourcePrefix, Rights)> = Vec::new();
        let mut merged = Vec::with_capacity(self.said.len());
        for (&(address, bits), said) in &self.said {
            let prefix = SourcePrefix::new(address, bits).expect("it was a prefix");
            while covering.last().is_some_and(|(wider, _)| !wider.covers(&prefix)) {
                covering.pop();
            }
            let mut rights = covering.last().map_or(Rights::default(), |(_, rights)| *rights);
            for list in (0..LISTS_MAX).filter(|list| said.lists & 1 << list != 0) {
                rights = rights.with(list, said.rights.on(list));
            }
            if said.limits {
                rights.limit = said.rights.limit;
            }
            covering.push((prefix, rights));
            merged.push((prefix, rights));
        }
        merged
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn prefix(text: &str) -> SourcePrefix {
        text.parse().unwrap()
    }

    #[test]
    fn lists_do_not_disturb_each_other() {
        let mut rights = Rights::from(Permissions::ALL);
        for list in 1..LISTS_MAX {
            assert_eq!(rights.on(list), Permissions::NONE);
            rights = rights.with(list, Permissions::WRITE);
        }
        rights = rights.with(7, Permissions::NONE).with(20, Permissions::READ);
        let (all, write) = (Permissions::ALL, Permissions::WRITE);
        assert_eq!((rights.on(0), rights.on(6), rights.on(8)), (all, write, write));
        assert_eq!((rights.on(7), rights.on(20)), (Permissions::NONE, Permissions::READ));
        assert_eq!(rights.on(LISTS_MAX), Permissions::NONE);
    }

    #[test]
    fn the_longest_prefix_of_each_list_counts() {
        let mut lists = SourceLists::default();
        lists.list(0, prefix("198.18.0.0/15"), Permissions::ALL);
        lists.list(1, prefix("198.18.0.0/16"), Permissions::READ);
        lists.list(1, prefix("198.18.7.0/24"), Permissions::NONE);
        lists.list(1, prefix("198.18.7.9"), Permissions::ALL);
        lists.list(1, prefix("fd00:6e61::/32"), Permissions::READ);
        lists.limit(prefix("198.18.0.0/16"), 4);
        lists.limit(prefix("198.18.7.8/29"), 0);
        lists.limit(prefix("::/0"), 5);
        let merged = lists.merge();
        let of = |text: &str| {
            let found = merged.iter().find(|(known, _)| *known == prefix(text));
            let (_, rights) = found.unwrap_or_else(|| panic!("{text} is missing"));
            (rights.on(0).0, rights.on(1).0, rights.limit)
        };
        assert_eq!(of("198.18.0.0/15"), (7, 0, 0));
        assert_eq!(of("198.18.0.0/16"), (7, 1, 4));
        assert_eq!(of("198.18.7.0/24"), (7, 0, 4));
        assert_eq!(of("198.18.7.8/29"), (7, 0, 0));
        assert_eq!(of("198.18.7.9"), (7, 7, 0));
        assert_eq!(of("::/0"), (0, 0, 5));
        assert_eq!(of("fd00:6e61::/32"), (0, 1, 5));
        assert_eq!(merged.len(), 7);
    }
}
