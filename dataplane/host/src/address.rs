//! The one thing a reading comes from and a change goes to, as text in the state file too.

use super::knob::{Group, Width};
use super::netlink::file_of;

/// Groups that an address may name.
const GROUPS: [Group; 7] = [
    Group::Channels,
    Group::Rings,
    Group::Coalesce,
    Group::Features,
    Group::Pause,
    Group::Eee,
    Group::Link,
];

/// A place with every pattern filled in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Address {
    /// A file below the root.
    File(String),
    /// A line of such a file.
    Field(String, String),
    /// A boot parameter.
    Boot(String),
    /// Whether a path is there.
    Exists(String),
    /// Interface, answer, attribute, width.
    Ethtool(String, Group, u16, Width),
    /// Interface, feature.
    Feature(String, String),
    /// Interface, attribute.
    Link(String, u16),
}

impl std::fmt::Display for Address {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::File(path) => write!(out, "file:{path}"),
            Self::Field(path, key) => write!(out, "field:{path}:{key}"),
            Self::Boot(parameter) => write!(out, "boot:{parameter}"),
            Self::Exists(path) => write!(out, "exists:{path}"),
            Self::Ethtool(nic, group, attribute, width) => {
                let bits = if *width == Width::Byte { 8 } else { 32 };
                write!(out, "ethtool:{nic}:{}:{attribute}:{bits}", file_of(*group))
            }
            Self::Feature(nic, name) => write!(out, "feature:{nic}:{name}"),
            Self::Link(nic, attribute) => write!(out, "link:{nic}:{attribute}"),
        }
    }
}

impl Address {
    /// An address that can be written, from its text; a path may not leave the root.
    pub fn of_text(text: &str) -> Option<Self> {
        let (front, rest) = text.split_once(':')?;
        let plain = |name: &str| !name.is_empty() && !name.contains('/') && !name.contains("..");
        match front {
            "file" => {
                let inside = ["proc/", "sys/"].iter().any(|front| rest.starts_with(front))
                    && !rest.split('/').any(|part| part.is_empty() || part == "..");
                inside.then(|| Self::File(rest.into()))
            }
            "feature" => {
                let (nic, name) = rest.rsplit_once(':')?;
                (plain(nic) && plain(name)).then(|| Self::Feature(nic.into(), name.into()))
            }
            "ethtool" => {
                // From the right: the name of an alias interface holds a colon itself.
                let mut parts = rest.rsplitn(4, ':');
                let width = match parts.next()? {
                    "8" => Width::Byte,
                    "32" => Width::Word,
                    _ => return None,
                };
                let attribute = parts.next()?.parse().ok()?;
                let file = parts.next()?;
                let group = GROUPS.into_iter().find(|group| file_of(*group) == file)?;
                let nic = parts.next()?;
                plain(nic).then(|| Self::Ethtool(nic.into(), group, attribute, width))
            }
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_can_be_written_comes_back_from_text() {
        for address in [
            Address::File("proc/sys/vm/swappiness".into()),
            Address::Feature("eth0".into(), "rx-gro".into()),
            Address::Ethtool("eth0:1".into(), Group::Rings, 5, Width::Word),
            Address::Ethtool("eth0".into(), Group::Pause, 3, Width::Byte),
        ] {
            assert_eq!(Address::of_text(&address.to_string()), Some(address));
        }
        for text in [
            "file:etc/passwd",
            "file:proc/../etc/passwd",
            "file:/etc",
            "file:proc//x",
            "boot:x",
            "feature:../x:y",
            "ethtool:eth0:rings:5:16",
            "ethtool:eth0:odd:5:8",
            "",
        ] {
            assert_eq!(Address::of_text(text), None, "{text}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_an_address_or_none(text in "(file|feature|ethtool)?:?[a-z0-9:./]{0,40}") {
            if let Some(address) = Address::of_text(&text) {
                prop_assert_eq!(Address::of_text(&address.to_string()), Some(address));
            }
        }
    }
}
