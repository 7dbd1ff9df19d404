//! I1: certificates exchanged on both sides every second, under open connections that go on asking and new ones that
//! shake hands all the time, at the daemon itself.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use nautilus_control::tls::client::{ClientIdentity, Connection, Trust, config};
use rustls::ClientConfig;

use crate::run::{Bench, Half};
use crate::site::Site;

/// Connections that stay open, and threads that ask over them in turn.
const CONNECTIONS: usize = 100;
const ASKERS: usize = 4;

/// Between two requests of a thread.
const ASK_EVERY: Duration = Duration::from_millis(10);

/// Between two handshakes: 50 a second.
const HANDSHAKE_EVERY: Duration = Duration::from_millis(20);

/// Between two rotations.
const ROTATE_EVERY: Duration = Duration::from_secs(1);

/// Longest that is told apart. A handshake counts from when it was due.
const LATENCY_NS_MAX: u64 = 60_000_000_000;

const PATH: &str = "/api/v1/edge/nodes/status";

/// The row.
pub struct I1 {
    site: Site,
    duration: Duration,
}

/// What the open connections met.
#[derive(Default)]
struct Asked {
    requests: u64,
    errors: u64,
    reconnects: u64,
}

/// What the new ones met.
struct Shaken {
    handshakes: u64,
    errors: u64,
    certificates: usize,
    took: Histogram<u64>,
}

impl I1 {
    /// Starts a control with an authority.
    pub fn set_up(quick: bool) -> anyhow::Result<Self> {
        let duration = Duration::from_secs(if quick { 12 } else { 60 });
        Ok(Self { site: Site::start()?, duration })
    }
}

/// Goes round its connections until it is over. A failed request is an error and, where the connection is gone, a new one.
fn ask(address: &str, setting: &Arc<ClientConfig>, over: &AtomicBool) -> anyhow::Result<Asked> {
    let open = || Connection::open(address, Arc::clone(setting));
    let mut connections =
        (0..CONNECTIONS / ASKERS).map(|_| open()).collect::<Result<Vec<_>, _>>()?;
    let mut asked = Asked::default();
    let mut due = Instant::now();
    for place in (0..connections.len()).cycle() {
        if over.load(Ordering::Relaxed) {
            break;
        }
        asked.requests += 1;
        match connections[place].ask("GET", PATH, b"") {
            Ok((200, _)) => {}
            Ok(_) => asked.errors += 1,
            Err(error) => {
                eprintln!("I1: an open connection: {error}");
                (asked.errors, asked.reconnects) = (asked.errors + 1, asked.reconnects + 1);
                connections[place] = open()?;
            }
        }
        due += ASK_EVERY;
        std::thread::sleep(due.saturating_duration_since(Instant::now()));
    }
    Ok(asked)
}

/// Opens a connection each time it is due, asks once, and closes it.
fn shake(address: &str, setting: &Arc<ClientConfig>, over: &AtomicBool) -> anyhow::Result<Shaken> {
    let took = Histogram::new_with_bounds(1, LATENCY_NS_MAX, 3)?;
    let mut shaken = Shaken { handshakes: 0, errors: 0, certificates: 0, took };
    let mut certificates = BTreeSet::new();
    let mut due = Instant::now();
    while !over.load(Ordering::Relaxed) {
        shaken.handshakes += 1;
        let answered = Connection::open(address, Arc::clone(setting)).and_then(|mut connection| {
            // From when it was due: one that waits for the one before has waited.
            shaken.took.saturating_record(due.elapsed().as_nanos() as u64);
            certificates.extend(connection.server_certificate().map(|der| der.to_vec()));
            connection.ask("GET", PATH, b"")
        });
        match answered {
            Ok((200, _)) => {}
            Ok((status, _)) => {
                eprintln!("I1: a new connection: status {status}");
                shaken.errors += 1;
            }
            Err(error) => {
                eprintln!("I1: a new connection: {error}");
                shaken.errors += 1;
            }
        }
        due += HANDSHAKE_EVERY;
        std::thread::sleep(due.saturating_duration_since(Instant::now()));
    }
    shaken.certificates = certificates.len();
    Ok(shaken)
}

impl Bench for I1 {
    fn sides(&self) -> Vec<String> {
        vec!["nautilus".into()]
    }

    fn peer_of(&self, _measure: usize) -> Option<usize> {
        None
    }

    fn half(&mut self, _side: usize) -> anyhow::Result<Half> {
        let Self { site, duration } = self;
        let identity = Arc::new(ClientIdentity::open(&site.write_client()?)?);
        let ca = site.ca();
        let setting = config(Trust::Authority(&ca), Some(Arc::clone(&identity)))?;
        let over = AtomicBool::new(false);
        let address = site.address.clone();
        let (asked, shaken, rotations) = std::thread::scope(|scope| {
            let asker = |_| scope.spawn(|| ask(&address, &setting, &over));
            let askers: Vec<_> = (0..ASKERS).map(asker).collect();
            let shaker = scope.spawn(|| shake(&address, &setting, &over));
            let rotated = rotate(site, &identity, *duration);
            over.store(true, Ordering::Relaxed);
            let joined = |result: std::thread::Result<anyhow::Result<Asked>>| {
                result.map_err(|_| anyhow::anyhow!("a thread that asks panicked"))?
            };
            let asked: Vec<_> = askers.into_iter().map(|thread| joined(thread.join())).collect();
            let shaken = shaker.join().map_err(|_| anyhow::anyhow!("the shaking thread panicked"));
            (asked, shaken, rotated)
        });
        let (shaken, rotations) = (shaken??, rotations?);
        let mut sum = Asked::default();
        for asked in asked {
            let asked = asked?;
            sum.requests += asked.requests;
            sum.errors += asked.errors;
            sum.reconnects += asked.reconnects;
        }
        // The daemon looks once a second, so a rotation of the last second may not have been seen.
        anyhow::ensure!(
            shaken.certificates as u64 + 3 >= rotations && rotations > 3,
            "{} certificates were seen of {rotations}",
            shaken.certificates
        );
        let due = duration.as_secs_f64() / HANDSHAKE_EVERY.as_secs_f64();
        anyhow::ensure!(
            shaken.handshakes as f64 >= 0.95 * due,
            "{} handshakes of {due:.0} that were due: the row is another",
            shaken.handshakes
        );
        let values = [
            (sum.errors + shaken.errors) as f64,
            sum.reconnects as f64,
            shaken.handshakes as f64 / duration.as_secs_f64(),
            sum.requests as f64 / duration.as_secs_f64(),
            shaken.certificates as f64,
            shaken.took.value_at_quantile(0.99) as f64 / 1e6,
        ];
        let values = values.map(Some).into();
        Ok(Half { values, latency: Some(shaken.took), ..Half::default() })
    }
}

/// Exchanges the certificates of both sides until the time is over; returns how often.
fn rotate(site: &Site, identity: &ClientIdentity, duration: Duration) -> anyhow::Result<u64> {
    let begin = Instant::now();
    let mut rotations = 0;
    while begin.elapsed() < duration {
        site.write_control()?;
        site.write_client()?;
        identity.reload()?;
        rotations += 1;
        let due = ROTATE_EVERY * rotations;
        std::thread::sleep(due.saturating_sub(begin.elapsed()));
    }
    Ok(rotations.into())
}
