//! A program on another host that subscribes to the best bids and offers of all symbols.

use std::collections::BTreeSet;
use std::net::UdpSocket;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use nautilus_dataplane::feed::distribution::subscriber::{Event, Subscriber, Wanted};
use nautilus_dataplane::feed::distribution::wire::{Mode, Records, State};

/// Longest datagram of a node.
const DATAGRAM_BYTES_MAX: usize = 2_048;

/// What such a subscriber saw.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RemoteUpdates {
    /// Records, those of images among them.
    pub records: u64,
    /// Symbols that they are of.
    pub symbols: usize,
    /// Subscriptions: a worker that takes over knows none of the one before.
    pub sessions: u64,
    /// Times the node said that nothing is to be believed, or a subscription ended.
    pub suspect: u64,
}

/// The program.
#[derive(Debug)]
pub struct RemoteSubscriber {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<RemoteUpdates>,
}

impl RemoteSubscriber {
    /// Subscribes by a socket that is connected to where a node distributes, in a thread of its own.
    pub fn start(socket: UdpSocket) -> std::io::Result<Self> {
        socket.set_read_timeout(Some(Duration::from_millis(1)))?;
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let thread = std::thread::spawn(move || follow(&socket, &stopped));
        Ok(Self { stop, thread })
    }

    /// Ends it; what it saw.
    pub fn end(self) -> RemoteUpdates {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().unwrap_or_default()
    }
}

fn follow(socket: &UdpSocket, stop: &AtomicBool) -> RemoteUpdates {
    let wanted = Wanted {
        records: Records(1),
        depth: 0,
        mode: Mode::Full,
        interval_us: 0,
        symbols: Vec::new(),
    };
    let mut subscriber = Subscriber::new(1, wanted);
    let (mut updates, mut symbols, mut session) = (RemoteUpdates::default(), BTreeSet::new(), None);
    let (started, mut bytes) = (Instant::now(), [0; DATAGRAM_BYTES_MAX]);
    let now_ns = || started.elapsed().as_nanos() as u64;
    while !stop.load(Ordering::Relaxed) {
        while let Some(datagram) = subscriber.poll(now_ns()) {
            // A node that is not there at the moment is asked again.
            if socket.send(&datagram).is_err() {
                break;
            }
        }
        if let Ok(length) = socket.recv(&mut bytes) {
            subscriber.receive(now_ns(), &bytes[..length], |event| match event {
                Event::Record { record, .. } => {
                    updates.records += 1;
                    symbols.insert(record.get(32..40).map(<[u8]>::to_vec));
                }
                Event::State(State::Suspect) => updates.suspect += 1,
                _ => {}
            });
        }
        if subscriber.session() != session {
            updates.suspect += u64::from(session.is_some());
            session = subscriber.session();
            updates.sessions += u64::from(session.is_some());
        }
    }
    // Its lease ends it as well.
    let _ = socket.send(&subscriber.unsubscribe());
    updates.symbols = symbols.len();
    updates
}
