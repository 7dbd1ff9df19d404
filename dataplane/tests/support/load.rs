//! A paced client that knows every answer it may get: each datagram carries its number and a
//! pattern made of it.
#![allow(dead_code)]

use std::net::UdpSocket;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

const BYTES: usize = 128;

/// The datagram of this number.
pub fn pattern(number: u64) -> [u8; BYTES] {
    let mut bytes = [0; BYTES];
    bytes[..8].copy_from_slice(&number.to_le_bytes());
    let mut state = number.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    for chunk in bytes[8..].chunks_mut(8) {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        chunk.copy_from_slice(&state.to_le_bytes());
    }
    bytes
}

/// What came back.
#[derive(Debug, Default)]
pub struct Tally {
    pub sent: u64,
    pub answered: u64,
    pub wrong: u64,
    pub duplicates: u64,
    pub silence_max: Duration,
}

pub struct Load {
    stop: Arc<AtomicBool>,
    sent: Arc<AtomicU64>,
    sender: JoinHandle<()>,
    receiver: JoinHandle<Tally>,
}

impl Load {
    /// Sends `per_second` datagrams until stopped.
    pub fn start(socket: UdpSocket, per_second: u64) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let sent = Arc::new(AtomicU64::new(0));
        let sender = {
            let (stop, sent) = (stop.clone(), sent.clone());
            let socket = socket.try_clone().unwrap();
            let begin = Instant::now();
            std::thread::spawn(move || {
                while !stop.load(Ordering::Relaxed) {
                    let due = begin.elapsed().as_micros() as u64 * per_second / 1_000_000;
                    while sent.load(Ordering::Relaxed) < due {
                        let number = sent.fetch_add(1, Ordering::Relaxed);
                        let _ = socket.send(&pattern(number));
                    }
                    std::thread::sleep(Duration::from_micros(200));
                }
            })
        };
        let receiver = {
            let stop = stop.clone();
            std::thread::spawn(move || receive(&socket, &stop))
        };
        Self { stop, sent, sender, receiver }
    }

    /// Stops, waits for stragglers, and adds up.
    pub fn stop(self) -> Tally {
        self.stop.store(true, Ordering::Relaxed);
        self.sender.join().unwrap();
        let mut tally = self.receiver.join().unwrap();
        tally.sent = self.sent.load(Ordering::Relaxed);
        tally
    }
}

fn receive(socket: &UdpSocket, stop: &AtomicBool) -> Tally {
    let mut tally = Tally::default();
    let mut seen: Vec<u64> = Vec::new();
    let mut last = Instant::now();
    let mut buffer = [0; 2048];
    loop {
        match socket.recv(&mut buffer) {
            Ok(length) => {
                tally.silence_max = tally.silence_max.max(last.elapsed());
                last = Instant::now();
                let number =
                    buffer.first_chunk().map_or(u64::MAX, |bytes| u64::from_le_bytes(*bytes));
                if buffer[..length] != pattern(number) {
                    tally.wrong += 1;
                    continue;
                }
                let (word, bit) = (number as usize / 64, 1 << (number % 64));
                seen.resize(seen.len().max(word + 1), 0);
                tally.duplicates += u64::from(seen[word] & bit != 0);
                tally.answered += u64::from(seen[word] & bit == 0);
                seen[word] |= bit;
            }
            // The timeout of the socket: nothing came for 200 ms.
            Err(_) if stop.load(Ordering::Relaxed) => return tally,
            Err(_) => {}
        }
    }
}
