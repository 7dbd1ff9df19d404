//! What a request needs its source to be allowed, and what a source is told that is not.

use nautilus_ebpf::intf::Permissions;

use crate::memcached::Request;
use crate::memcached::parse::{Meta, MetaVerb};

/// What is said of the first permission that is missing. A client's fault, not the server's: clients take
/// a server that reports errors of its own out of their ring.
const MAY_NOT_READ: &[u8] = b"CLIENT_ERROR permission denied: this source may not read\r\n";
const MAY_NOT_WRITE: &[u8] = b"CLIENT_ERROR permission denied: this source may not write\r\n";
const MAY_NOT_ADMINISTER: &[u8] =
    b"CLIENT_ERROR permission denied: this source may not administer\r\n";

/// What a request needs. What tells nothing of the cache and changes nothing needs no permission; who has
/// none at all is not heard.
pub(super) fn needed(request: &Request<'_>) -> Permissions {
    match request {
        Request::Get { .. } | Request::MetaDebug { .. } => Permissions::READ,
        Request::GetAndTouch { .. } => Permissions::READ.with(Permissions::WRITE),
        // They tell at most whether there was a value.
        Request::Store(_) | Request::Delete { .. } | Request::Touch { .. } => Permissions::WRITE,
        // Their answer is the value.
        Request::Arithmetic { .. } => Permissions::READ.with(Permissions::WRITE),
        Request::Meta(meta) => of_meta(meta),
        Request::FlushAll { .. } | Request::Verbosity { .. } => Permissions::ADMIN,
        Request::Stats { topic: b"reset" } => Permissions::ADMIN,
        Request::Stats { .. } => Permissions::READ,
        Request::Version | Request::MetaNoop | Request::Refused { .. } | Request::Quit => {
            Permissions::NONE
        }
    }
}

fn of_meta(meta: &Meta<'_>) -> Permissions {
    let changes = [meta.expiry_seconds, meta.vivify_seconds, meta.recache_seconds];
    match meta.verb {
        MetaVerb::Get if changes.iter().any(Option::is_some) => {
            Permissions::READ.with(Permissions::WRITE)
        }
        MetaVerb::Get => Permissions::READ,
        MetaVerb::Arithmetic => Permissions::READ.with(Permissions::WRITE),
        MetaVerb::Set | MetaVerb::Delete => Permissions::WRITE,
    }
}

/// What to say when `held` does not cover `needed`; None when it does.
#[inline]
pub fn refusal(held: Permissions, needed: Permissions) -> Option<&'static [u8]> {
    [
        (Permissions::READ, MAY_NOT_READ),
        (Permissions::WRITE, MAY_NOT_WRITE),
        (Permissions::ADMIN, MAY_NOT_ADMINISTER),
    ]
    .into_iter()
    .find(|(one, _)| needed.allows(*one) && !held.allows(*one))
    .map(|(_, text)| text)
}

/// Whether a request wants no answer.
pub(super) fn is_silent(request: &Request<'_>) -> bool {
    match request {
        Request::Store(store) => store.no_reply,
        Request::Delete { no_reply, .. }
        | Request::Arithmetic { no_reply, .. }
        | Request::Touch { no_reply, .. }
        | Request::FlushAll { no_reply, .. }
        | Request::Verbosity { no_reply }
        | Request::Refused { no_reply, .. } => *no_reply,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memcached::parse::{Next, next};

    #[test]
    fn every_command_needs_what_it_does() {
        for (text, expected) in [
            ("get k\r\n", 1),
            ("gets k k\r\n", 1),
            ("gat 10 k\r\n", 3),
            ("set k 0 0 1\r\nv\r\n", 2),
            ("cas k 0 0 1 7\r\nv\r\n", 2),
            ("delete k\r\n", 2),
            ("incr k 1\r\n", 3),
            ("touch k 1\r\n", 2),
            ("flush_all\r\n", 4),
            ("verbosity 1\r\n", 4),
            ("stats\r\n", 1),
            ("stats items\r\n", 1),
            ("stats reset\r\n", 4),
            ("version\r\n", 0),
            ("quit\r\n", 0),
            ("mn\r\n", 0),
            ("nonsense\r\n", 0),
            ("me k\r\n", 1),
            ("mg k v f\r\n", 1),
            ("mg k v T10\r\n", 3),
            ("mg k N10\r\n", 3),
            ("mg k R10\r\n", 3),
            ("ms k 1\r\nv\r\n", 2),
            ("md k\r\n", 2),
            ("ma k\r\n", 3),
        ] {
            let Next::Request(request, _) = next(text.as_bytes()) else { panic!("{text:?}") };
            assert_eq!(needed(&request).0, expected, "{text:?}");
        }
    }

    #[test]
    fn the_first_permission_missing_is_named() {
        let (none, all) = (Permissions::NONE, Permissions::ALL);
        assert_eq!((refusal(all, all), refusal(none, none)), (None, None));
        assert_eq!(refusal(none, all), Some(MAY_NOT_READ));
        assert_eq!(refusal(Permissions::READ, all), Some(MAY_NOT_WRITE));
        assert_eq!(refusal(Permissions(3), all), Some(MAY_NOT_ADMINISTER));
        assert_eq!(refusal(Permissions::READ, Permissions::ADMIN), Some(MAY_NOT_ADMINISTER));
    }
}
