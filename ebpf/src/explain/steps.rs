//! The steps of a verdict, in the program's order, in words.

use super::Names;
use super::facts::{Facts, TCP, UDP};
use crate::feed::FeedShown;
use crate::hot::Shown;
use crate::intf::{
    BUCKET_UNITS_PER_NS, BYTE_COST_SHIFT, Bucket, HOT_PATH, Limit, Permissions, Service,
};
use crate::rate::Spent;
use crate::rights::Rights;
use crate::steering::{Steering, SteeringError};
use crate::sys;
use crate::test_run::TestContext;
use crate::verdict::Verdict;

/// One thing the program looked at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    /// What, in a word or two.
    pub name: &'static str,
    /// What it found.
    pub found: String,
}

/// Names of the steps, in the order of the program.
const NAMES: [&str; 11] = [
    "link",
    "ip",
    "interface",
    "address",
    "transport",
    "port",
    "source",
    "limit",
    "feed",
    "hot set",
    "queue",
];

/// Index in [`NAMES`] of the step that gives a verdict.
fn last_step(verdict: Verdict) -> usize {
    use Verdict::*;
    match verdict {
        LinkTruncated | VlanDepth | NotIp => 0,
        IpMalformed => 1,
        UnknownInterface | OtherMac => 2,
        OtherAddress => 3,
        Fragment | ExtensionHeaders | OtherProtocol | TransportTruncated => 4,
        OtherPort => 5,
        SourceInvalid | SourceUnlisted | TcpSourceUnlisted => 6,
        // A datagram's lengths are looked at between its source's limit and what follows.
        PacketLimit | ByteLimit | TcpListed | IpLength | UdpLength | SourcePort | TooLong => 7,
        FeedApplied => 8,
        HotHit => 9,
        NoSocket | NoMetadata | Redirected => 10,
    }
}

/// What the steps are told from.
pub(super) struct Told<'a, N> {
    pub live: &'a Steering,
    pub frame: &'a [u8],
    pub facts: &'a Facts,
    pub context: TestContext,
    pub bucket: Option<Bucket>,
    pub feed: Option<FeedShown>,
    pub names: &'a N,
}

impl<N: Names> Told<'_, N> {
    pub fn until(&self, verdict: Verdict) -> Result<Vec<Step>, SteeringError> {
        let last = last_step(verdict);
        let mut steps = Vec::new();
        for (index, name) in NAMES.iter().enumerate().take(last + 1) {
            let found = match index {
                0 => self.link(),
                1 => self.ip(),
                2 => self.interface()?,
                3 => self.address()?,
                4 => self.transport(),
                5 => self.port()?,
                6 => self.source()?,
                7 => self.limit()?,
                8 => self.feed(verdict)?,
                9 => self.hot_set(verdict)?,
                _ => self.queue()?,
            };
            let found = match found {
                Some(found) => found,
                // What is not there to be told of is the reason itself.
                None => verdict.info().help.to_owned(),
            };
            steps.push(Step { name, found });
        }
        Ok(steps)
    }

    fn link(&self) -> Option<String> {
        let ethertype = self.facts.ethertype?;
        let tags = match self.facts.vlans.as_slice() {
            [] => "no tag".to_owned(),
            [one] => format!("VLAN {one}"),
            several => format!("VLANs {several:?}"),
        };
        let bytes = self.frame.len();
        Some(format!("Ethernet, {bytes} bytes, {tags}, EtherType {ethertype:#06x}"))
    }

    fn ip(&self) -> Option<String> {
        let ip = self.facts.ip?;
        let family = if ip.source.is_ipv4() { "IPv4" } else { "IPv6" };
        let fragment = if ip.fragment { ", a fragment" } else { "" };
        let header_bytes = ip.header_bytes;
        Some(format!(
            "{family} {} > {}, header of {header_bytes} bytes{fragment}",
            ip.source, ip.destination
        ))
    }

    fn interface(&self) -> Result<Option<String>, SteeringError> {
        let ifindex = self.context.ifindex;
        let interfaces = self.live.interfaces()?;
        let Some((_, interface)) = interfaces.iter().find(|(known, _)| *known == ifindex) else {
            return Ok(None);
        };
        let to: [u8; 6] = *self.frame.first_chunk().unwrap_or(&[0; 6]);
        let whose = match to {
            ours if ours == interface.mac => "ours",
            [first, ..] if first & 1 == 1 => "a group's",
            _ => "not ours",
        };
        Ok(Some(format!("ifindex {ifindex}, to {}, {whose} ({})", mac(to), mac(interface.mac))))
    }

    fn address(&self) -> Result<Option<String>, SteeringError> {
        let Some(ip) = self.facts.ip else { return Ok(None) };
        let served = self.live.served_addresses()?.contains(&ip.destination);
        let is = if served { "is served" } else { "is not served" };
        Ok(Some(format!("{} {is}", ip.destination)))
    }

    fn transport(&self) -> Option<String> {
        let (protocol, _) = self.facts.transport?;
        let name = match protocol {
            UDP => "UDP".to_owned(),
            TCP => "TCP".to_owned(),
            other => format!("protocol {other}"),
        };
        Some(match self.facts.ports {
            Some((source, destination)) => format!("{name} {source} > {destination}"),
            None => name,
        })
    }

    fn service(&self) -> Result<Option<(u16, Service)>, SteeringError> {
        let Some((_, port)) = self.facts.ports else { return Ok(None) };
        Ok(self.live.service(port)?.map(|service| (port, service)))
    }

    fn port(&self) -> Result<Option<String>, SteeringError> {
        let Some((port, service)) = self.service()? else { return Ok(None) };
        let kinds = [
            (Service::UDP, "UDP"),
            (Service::TCP, "TCP"),
            (Service::UNICAST, "unicast"),
            (Service::MULTICAST, "multicast"),
            (Service::REPLIES, "replies"),
            (Service::HOT, "hot set"),
            (Service::FEED, "feed"),
        ];
        let kinds: Vec<&str> = kinds
            .into_iter()
            .filter(|(bit, _)| service.flags & bit != 0)
            .map(|(_, name)| name)
            .collect();
        Ok(Some(format!("{port}: {} ({})", self.names.service(port, &service), kinds.join(", "))))
    }

    /// The entry that speaks for the source, with its prefix in words.
    fn entry(&self) -> Result<Option<(String, Rights)>, SteeringError> {
        let Some(ip) = self.facts.ip else { return Ok(None) };
        let source = crate::prefix::SourcePrefix::from(ip.source);
        let sources = self.live.sources()?;
        let covering = sources.iter().filter(|(prefix, _)| prefix.covers(&source));
        let longest = covering.max_by_key(|(prefix, _)| prefix.bits());
        Ok(longest.map(|(prefix, rights)| (prefix.to_string(), *rights)))
    }

    fn source(&self) -> Result<Option<String>, SteeringError> {
        let (Some(ip), Some((_, service))) = (self.facts.ip, self.service()?) else {
            return Ok(None);
        };
        let list = self.names.list(service.list);
        let Some((prefix, rights)) = self.entry()? else {
            return Ok(Some(format!("{}: no prefix of {list} covers it", ip.source)));
        };
        let may = permissions(rights.on(service.list));
        Ok(Some(format!("{} by {prefix}: {may} ({list})", ip.source)))
    }

    fn limit(&self) -> Result<Option<String>, SteeringError> {
        let Some((_, rights)) = self.entry()? else { return Ok(None) };
        let rate = match rights.limit {
            0 => "none".to_owned(),
            limit => self.rate(&self.live.limit(limit)?),
        };
        let Some(udp_bytes) = self.facts.udp_bytes else { return Ok(Some(rate)) };
        let (_, transport) = self.facts.transport.unwrap_or_default();
        let end = self.facts.ip.map_or(0, |ip| ip.end);
        Ok(Some(format!(
            "{rate}; UDP of {udp_bytes} bytes, IP ends {} bytes after its header begins, frame {} after",
            end.saturating_sub(transport),
            self.frame.len().saturating_sub(transport)
        )))
    }

    fn rate(&self, limit: &Limit) -> String {
        let spent = Spent::at(self.bucket.unwrap_or_default(), sys::monotonic_ns());
        let per_s = |cost: u64, shift: u32| {
            (u128::from(1_000_000_000 * BUCKET_UNITS_PER_NS) << shift) / u128::from(cost.max(1))
        };
        let half = |what: &str, cost: u64, shift: u32, burst: u64, full_in_ns: u64| {
            let burst = (u128::from(burst) << shift) / u128::from(cost.max(1));
            let per_s = per_s(cost, shift);
            let state = match full_in_ns {
                0 => "full".to_owned(),
                ns => format!("full in {:.3} ms", ns as f64 / 1e6),
            };
            (cost != 0).then(|| format!("{per_s} {what}/s, burst {burst}, {state}"))
        };
        let halves = [
            half("packets", limit.packet_cost, 0, limit.packet_burst, spent.packets_full_in_ns),
            half(
                "bytes",
                limit.byte_cost,
                BYTE_COST_SHIFT,
                limit.byte_burst,
                spent.bytes_full_in_ns,
            ),
        ];
        let halves: Vec<String> = halves.into_iter().flatten().collect();
        if halves.is_empty() { "none".into() } else { halves.join("; ") }
    }

    fn feed(&self, verdict: Verdict) -> Result<Option<String>, SteeringError> {
        let Some((_, service)) = self.service()? else { return Ok(None) };
        if service.flags & Service::FEED == 0 {
            return Ok(Some("the service has none".into()));
        }
        Ok(Some(match &self.feed {
            _ if !HOT_PATH => "none is looked at in this build".into(),
            None => "a line of no feed".into(),
            Some(shown) if verdict == Verdict::FeedApplied => {
                format!("{}, these among them: counted and dropped", shown.says())
            }
            Some(shown) => format!("{}; not this datagram, or not all of it", shown.says()),
        }))
    }

    fn hot_set(&self, verdict: Verdict) -> Result<Option<String>, SteeringError> {
        let Some((_, service)) = self.service()? else { return Ok(None) };
        let rights = self.entry()?.map(|(_, rights)| rights).unwrap_or_default();
        let may_read = rights.on(service.list).allows(Permissions::READ);
        let asked = request_key(self.facts.payload(self.frame));
        Ok(Some(match asked {
            _ if service.flags & Service::HOT == 0 => "the service has none".into(),
            _ if !HOT_PATH => "none in this build".into(),
            _ if !may_read => "the source may not read".into(),
            None => "not a get or mg of one key up to 32 bytes in one datagram".into(),
            Some(key) => {
                let shown = Shown::of(self.live, &service, key)?;
                match verdict {
                    Verdict::HotHit => format!("{}: answered", shown.slot()),
                    _ => shown.why_not(),
                }
            }
        }))
    }

    fn queue(&self) -> Result<Option<String>, SteeringError> {
        let TestContext { ifindex, rx_queue } = self.context;
        let interfaces = self.live.interfaces()?;
        let Some((_, interface)) = interfaces.iter().find(|(known, _)| *known == ifindex) else {
            return Ok(None);
        };
        if rx_queue >= u32::from(interface.queue_count) {
            return Ok(Some(format!("queue {rx_queue} has no place for a socket")));
        }
        let place = interface.first_socket + rx_queue;
        Ok(Some(format!("queue {rx_queue} -> socket {place}: {}", self.names.socket(place))))
    }
}

fn mac(mac: [u8; 6]) -> String {
    mac.map(|byte| format!("{byte:02x}")).join(":")
}

fn permissions(permissions: Permissions) -> String {
    let names =
        [(Permissions::READ, "read"), (Permissions::WRITE, "write"), (Permissions::ADMIN, "admin")];
    let may: Vec<&str> = names
        .into_iter()
        .filter(|(one, _)| permissions.allows(*one))
        .map(|(_, name)| name)
        .collect();
    if may.is_empty() { "nothing".into() } else { may.join(" ") }
}

/// The key of a request that the hot set may answer.
fn request_key(payload: &[u8]) -> Option<&[u8]> {
    let line = payload.get(8..)?.strip_suffix(b"\r\n")?;
    let key = match line.strip_prefix(b"get ") {
        Some(key) => key,
        None => line.strip_prefix(b"mg ")?.split(|byte| *byte == b' ').next()?,
    };
    let plain = !key.is_empty() && key.len() <= 32 && !key.contains(&b' ');
    (plain && payload.get(4..6) == Some(&[0, 1])).then_some(key)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::verdict::VERDICTS;

    #[test]
    fn verdicts_come_in_the_order_of_the_steps() {
        // The lists of `intf.h` are in the order in which the program can reach them, by action.
        for action in [crate::Action::Pass, crate::Action::Drop] {
            let order: Vec<usize> = VERDICTS
                .iter()
                .filter(|row| row.action == action)
                .map(|row| last_step(row.verdict))
                .collect();
            assert!(order.is_sorted(), "{order:?}");
        }
        assert_eq!(last_step(Verdict::Redirected), NAMES.len() - 1);
    }

    #[test]
    fn the_key_of_a_request_is_found() {
        let of = |text: &str| {
            let payload = [b"\0\x01\0\0\0\x01\0\0", text.as_bytes()].concat();
            request_key(&payload).map(<[u8]>::to_vec)
        };
        assert_eq!(of("get k\r\n"), Some(b"k".to_vec()));
        assert_eq!(of("mg key v f\r\n"), Some(b"key".to_vec()));
        for text in ["get k k\r\n", "get \r\n", "set k 0 0 1\r\nx\r\n", "get k", "gets k\r\n"] {
            assert_eq!(of(text), None, "{text:?}");
        }
    }
}
