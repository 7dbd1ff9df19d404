//! The requests for one cache, and telling the requests apart.

use super::{
    AttachError, CACHE_NAME_BYTES, CacheName, ExplainRequest, HostOrder, HostRequest,
    REASON_BYTES_MAX, REQUEST_BYTES, Request, SECTION_BYTES_MAX, Verb, check, node::name_in, word,
};

/// Bytes of a [`CacheRequest`].
pub const CACHE_REQUEST_BYTES: usize = REQUEST_BYTES + CACHE_NAME_BYTES;

/// A request of [`Verb::Cache`], [`Verb::Hits`] or [`Verb::Connect`]: the eight bytes of a [`Request`], then the cache's name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CacheRequest {
    /// What is asked for of it.
    pub verb: Verb,
    /// Which cache.
    pub name: CacheName,
}

impl CacheRequest {
    /// The packet.
    pub fn encode(&self) -> [u8; CACHE_REQUEST_BYTES] {
        let mut packet = [0; CACHE_REQUEST_BYTES];
        packet[..REQUEST_BYTES].copy_from_slice(&Request { verb: self.verb }.encode());
        packet[REQUEST_BYTES..].copy_from_slice(&self.name);
        packet
    }
}

/// The packet of [`Verb::Create`]: the eight bytes of a [`Request`], then the section of the cache, of which
/// what is longer than allowed is refused by the other end.
pub fn create_request(section: &str) -> Vec<u8> {
    [&Request { verb: Verb::Create }.encode(), section.as_bytes()].concat()
}

/// The packet of [`Verb::Remove`].
pub fn remove_request(name: &CacheName) -> Vec<u8> {
    [&Request { verb: Verb::Remove }.encode()[..], name].concat()
}

/// The packet of [`Verb::Halt`], or else of [`Verb::Release`], with as much of the reason as there is room for.
pub fn kill_switch_request(halts: bool, reason: &str) -> Vec<u8> {
    let verb = if halts { Verb::Halt } else { Verb::Release };
    let reason = &reason[..reason.floor_char_boundary(REASON_BYTES_MAX)];
    [&Request { verb }.encode(), reason.as_bytes()].concat()
}

/// Any request, as the supervisor reads it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ask<'a> {
    /// [`Verb::Attach`].
    Attach,
    /// [`Verb::Status`].
    Status,
    /// [`Verb::Cache`] of this name.
    Cache(CacheName),
    /// [`Verb::Hits`] of this name.
    Hits(CacheName),
    /// [`Verb::Explain`] with its frame.
    Explain(ExplainRequest),
    /// [`Verb::Create`] of the cache that this section describes.
    Create(&'a str),
    /// [`Verb::Remove`] of this name.
    Remove(CacheName),
    /// [`Verb::Start`].
    Start,
    /// [`Verb::Park`].
    Park,
    /// [`Verb::Drain`] within so many milliseconds.
    Drain(u32),
    /// [`Verb::Resume`].
    Resume,
    /// [`Verb::Swap`] for the release of this name; an empty one is the one that runs.
    Swap(&'a str),
    /// [`Verb::Exchange`], as [`Self::Swap`].
    Exchange(&'a str),
    /// [`Verb::Settle`].
    Settle,
    /// [`Verb::Probe`] for so many milliseconds.
    Probe(u32),
    /// [`Verb::Connect`] of this name.
    Connect(CacheName),
    /// [`Verb::Halt`] for this reason.
    Halt(&'a str),
    /// [`Verb::Release`] for this reason.
    Release(&'a str),
    /// [`Verb::HostApply`] or [`Verb::HostRestore`].
    Host(HostRequest),
    /// [`Verb::HostCheck`].
    HostCheck(HostOrder),
    /// [`Verb::Claim`].
    Claim,
}

impl<'a> Ask<'a> {
    /// Reads a packet: exactly as long as its verb says.
    pub fn decode(packet: &'a [u8]) -> Result<Self, AttachError> {
        let wrong_length = Err(AttachError::Length(packet.len()));
        if packet.len() < REQUEST_BYTES {
            return wrong_length;
        }
        check(word(packet, 0), packet[4])?;
        let (head, rest) = packet.split_at(REQUEST_BYTES);
        match (Verb::from_byte(head[5]), CacheName::try_from(rest)) {
            (None, _) => Err(AttachError::Verb(head[5])),
            (Some(Verb::Attach), _) if rest.is_empty() => Ok(Self::Attach),
            (Some(Verb::Status), _) if rest.is_empty() => Ok(Self::Status),
            (Some(Verb::Cache), Ok(name)) => Ok(Self::Cache(name)),
            (Some(Verb::Hits), Ok(name)) => Ok(Self::Hits(name)),
            (Some(Verb::Explain), _) => ExplainRequest::decode_rest(packet).map(Self::Explain),
            (Some(Verb::Remove), Ok(name)) => Ok(Self::Remove(name)),
            (Some(Verb::Start), _) if rest.is_empty() => Ok(Self::Start),
            (Some(Verb::Park), _) if rest.is_empty() => Ok(Self::Park),
            (Some(Verb::Resume), _) if rest.is_empty() => Ok(Self::Resume),
            (Some(Verb::Drain), _) if rest.len() == 4 => Ok(Self::Drain(word(rest, 0))),
            (Some(Verb::Probe), _) if rest.len() == 4 => Ok(Self::Probe(word(rest, 0))),
            (Some(Verb::Claim), _) if rest.is_empty() => Ok(Self::Claim),
            (Some(Verb::HostCheck), _) => HostOrder::decode_rest(rest).map(Self::HostCheck),
            (Some(verb @ (Verb::HostApply | Verb::HostRestore)), _) => {
                HostRequest::decode_rest(verb, rest).map(Self::Host)
            }
            (Some(Verb::Swap), Ok(_)) => name_in(rest).map(Self::Swap),
            (Some(Verb::Exchange), Ok(_)) => name_in(rest).map(Self::Exchange),
            (Some(Verb::Settle), _) if rest.is_empty() => Ok(Self::Settle),
            (Some(Verb::Connect), Ok(name)) => Ok(Self::Connect(name)),
            (Some(Verb::Create), _) if (1..=SECTION_BYTES_MAX).contains(&rest.len()) => {
                match std::str::from_utf8(rest) {
                    Ok(section) => Ok(Self::Create(section)),
                    Err(_) => Err(AttachError::Text),
                }
            }
            (Some(verb @ (Verb::Halt | Verb::Release)), _) if rest.len() <= REASON_BYTES_MAX => {
                let reason = std::str::from_utf8(rest).map_err(|_| AttachError::Text)?;
                Ok(if verb == Verb::Halt { Self::Halt(reason) } else { Self::Release(reason) })
            }
            _ => wrong_length,
        }
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::super::cache_name;
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn every_request_is_told_apart_by_verb_and_length() {
        let name = cache_name("quotes");
        let cache = CacheRequest { verb: Verb::Cache, name }.encode();
        assert_eq!(Ask::decode(&cache), Ok(Ask::Cache(name)));
        let hits = CacheRequest { verb: Verb::Hits, name }.encode();
        assert_eq!(Ask::decode(&hits), Ok(Ask::Hits(name)));
        for (verb, ask) in [(Verb::Attach, Ask::Attach), (Verb::Status, Ask::Status)] {
            let packet = Request { verb }.encode();
            assert_eq!(Ask::decode(&packet), Ok(ask));
            // A name behind it does not turn it into another request.
            let mut longer = cache;
            longer[..REQUEST_BYTES].copy_from_slice(&packet);
            assert_eq!(Ask::decode(&longer), Err(AttachError::Length(CACHE_REQUEST_BYTES)));
        }
        let connect = CacheRequest { verb: Verb::Connect, name }.encode();
        assert_eq!(Ask::decode(&connect), Ok(Ask::Connect(name)));
        let remove = remove_request(&cache_name("quotes"));
        assert_eq!(Ask::decode(&remove), Ok(Ask::Remove(cache_name("quotes"))));
        assert!(Ask::decode(&remove[..71]).is_err());
        assert_eq!(Ask::decode(&create_request("id = 1")), Ok(Ask::Create("id = 1")));
        let longest = "#".repeat(SECTION_BYTES_MAX);
        assert_eq!(Ask::decode(&create_request(&longest)), Ok(Ask::Create(longest.as_str())));
        assert!(Ask::decode(&create_request(&(longest + "#"))).is_err());
        assert!(Ask::decode(&create_request("")).is_err());
        assert!(Ask::decode(&[&create_request("")[..], &[0xff]].concat()).is_err());
        for (halts, ask) in [(true, Ask::Halt("venue é")), (false, Ask::Release("venue é"))] {
            assert_eq!(Ask::decode(&kill_switch_request(halts, "venue é")), Ok(ask));
        }
        assert_eq!(Ask::decode(&kill_switch_request(true, "")), Ok(Ask::Halt("")));
        let cut = kill_switch_request(true, &"é".repeat(REASON_BYTES_MAX));
        assert!(matches!(Ask::decode(&cut), Ok(Ask::Halt(_))));
        assert!(Ask::decode(&[&cut[..], b"x"].concat()).is_err());
        assert_eq!(Ask::decode(&[&cut[..9], &[0xff]].concat()), Err(AttachError::Text));
        let bare = Request { verb: Verb::Cache }.encode();
        assert_eq!(Ask::decode(&bare), Err(AttachError::Length(REQUEST_BYTES)));
        assert_eq!(Ask::decode(&cache[..71]), Err(AttachError::Length(71)));
        let with = |at: usize, byte: u8| {
            let mut packet = cache;
            packet[at] = byte;
            Ask::decode(&packet).unwrap_err()
        };
        assert!(matches!(with(3, 0), AttachError::Magic(_)));
        assert_eq!(with(4, 2), AttachError::Version(2));
        assert_eq!(with(5, 99), AttachError::Verb(99));
    }

    proptest! {
        #[test]
        fn any_bytes_are_a_request_or_an_error(
            bytes in proptest::collection::vec(any::<u8>(), 0..CACHE_REQUEST_BYTES + 2),
        ) {
            let _ = Ask::decode(&bytes);
            let mut ours = Request { verb: Verb::Cache }.encode().to_vec();
            ours.extend_from_slice(&bytes);
            prop_assert_eq!(Ask::decode(&ours).is_ok(), bytes.len() == CACHE_NAME_BYTES);
        }
    }
}
