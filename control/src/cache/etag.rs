//! Entity tags: the version of an item, or of a configuration, in quotes; and the conditions made of them.

/// One tag of a condition.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Tag {
    is_weak: bool,
    text: String,
}

/// What `If-Match` or `If-None-Match` says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Tags {
    /// `*`: anything.
    Any,
    /// One of these.
    Listed(Listed),
}

/// Tags of a list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listed(Vec<Tag>);

/// Most tags of one list.
const TAGS_MAX: usize = 64;

/// The tag of a version.
pub fn of_version(version: u64) -> String {
    format!("\"{version}\"")
}

impl Tags {
    /// Reads a header's value (RFC 9110, 8.8.3 and 13.1); `None` for what is none.
    pub fn parse(text: &str) -> Option<Self> {
        let mut rest = text.trim_matches([' ', '\t']);
        if rest == "*" {
            return Some(Self::Any);
        }
        let mut tags = Vec::new();
        loop {
            let is_weak = rest.starts_with("W/");
            let body = rest.strip_prefix("W/").unwrap_or(rest).strip_prefix('"')?;
            let (tag, behind) = body.split_once('"')?;
            if tag.bytes().any(|byte| byte <= b' ' || byte == 0x7f) || tags.len() == TAGS_MAX {
                return None;
            }
            tags.push(Tag { is_weak, text: tag.into() });
            rest = behind.trim_start_matches([' ', '\t']);
            if rest.is_empty() {
                return Some(Self::Listed(Listed(tags)));
            }
            rest = rest.strip_prefix(',')?.trim_start_matches([' ', '\t']);
        }
    }

    /// Whether something of this tag is meant, by `If-None-Match`: weak tags count.
    pub fn holds_weakly(&self, tag: &str) -> bool {
        match self {
            Self::Any => true,
            Self::Listed(Listed(tags)) => tags.iter().any(|one| format!("\"{}\"", one.text) == tag),
        }
    }

    /// The same by `If-Match`: weak tags count for nothing.
    pub fn holds(&self, tag: &str) -> bool {
        match self {
            Self::Any => true,
            Self::Listed(Listed(tags)) => {
                tags.iter().any(|one| !one.is_weak && format!("\"{}\"", one.text) == tag)
            }
        }
    }

    /// Versions that a change may depend on: the strong tags that are one.
    pub fn versions(&self) -> Vec<u64> {
        let Self::Listed(Listed(tags)) = self else { return Vec::new() };
        let strong = tags.iter().filter(|tag| !tag.is_weak);
        strong
            .filter_map(|tag| {
                tag.text.parse().ok().filter(|v| of_version(*v) == format!("\"{}\"", tag.text))
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn conditions_are_read_and_weak_tags_do_not_match_strongly() {
        assert_eq!(Tags::parse(" * "), Some(Tags::Any));
        let tags = Tags::parse("\"12\", W/\"13\" ,\"x,y\", \"014\"").unwrap();
        assert_eq!(tags.versions(), [12]);
        assert!(tags.holds("\"12\"") && tags.holds("\"x,y\"") && !tags.holds("\"13\""));
        assert!(tags.holds_weakly("\"13\"") && !tags.holds_weakly("\"14\""));
        for wrong in
            ["", "12", "\"12", "\"1\" \"2\"", "\"1\",", ",\"1\"", "w/\"1\"", "\"a b\"", "*, \"1\""]
        {
            assert_eq!(Tags::parse(wrong), None, "{wrong}");
        }
        assert_eq!(Tags::parse(&vec!["\"1\""; TAGS_MAX + 1].join(",")), None);
    }

    proptest! {
        #[test]
        fn any_text_is_a_condition_or_none(text in ".{0,60}") {
            let _ = Tags::parse(&text);
        }

        #[test]
        fn a_version_matches_itself_alone(version in any::<u64>(), other in any::<u64>()) {
            let tags = Tags::parse(&of_version(version)).unwrap();
            prop_assert_eq!(tags.versions(), [version]);
            prop_assert_eq!(tags.holds(&of_version(other)), version == other);
        }
    }
}
