//! The peer: memcached in a process of its own, asked over a unix socket.
//!
//! Equal memory: `-m` bounds what memcached gives to items, headers and slab waste included; its hash
//! table and buffers (about 7 MiB) come on top and are not counted against it. Our table has
//! everything inside its memory.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use anyhow::Context;
use nautilus_tests::lab::Process;

use super::{Access, Cache};
use crate::ground::Ground;

const READY: Duration = Duration::from_secs(10);

/// Processes started so far: each has a folder of its own.
static STARTED: AtomicU32 = AtomicU32::new(0);

/// Of so many values it may refuse one: on a busy machine its evictions can lag behind a burst, and it
/// then says that it is out of memory. A refused value misses again, as an evicted one does.
const REFUSED_ONE_IN: u64 = 1_000;

/// One running memcached; dropping ends it.
pub struct Memcached {
    _process: Process,
    socket: UnixStream,
    answers: BufReader<UnixStream>,
    /// Not sent yet: fills of the last batch.
    outgoing: Vec<u8>,
    line: Vec<u8>,
    stores_count: u64,
    value: Vec<u8>,
}

impl Memcached {
    /// Starts one. `command` has `{memory_mb}` and `{socket}` in it.
    pub fn start(command: &str, memory_mb: u32, ground: &Ground) -> anyhow::Result<Self> {
        let name = format!("memcached-{}", STARTED.fetch_add(1, Ordering::Relaxed));
        let folder = ground.folder.make(&name)?;
        // It gives up root before it makes its socket.
        std::fs::set_permissions(&folder, PermissionsExt::from_mode(0o777))?;
        let path = folder.join("socket");
        let command = command
            .replace("{memory_mb}", &memory_mb.to_string())
            .replace("{socket}", &path.display().to_string());
        let mut words = command.split_whitespace();
        let program = words.next().context("the peer's command is empty")?;
        let mut start = Command::new(program);
        start.args(words);
        let log = folder.join("log");
        let _process = Process::start_command(ground.run, start, program, &log)?;
        let socket = connect(&path).context(command)?;
        let answers = BufReader::new(socket.try_clone()?);
        let (outgoing, line, value) = (Vec::new(), Vec::new(), vec![b'v'; 1 << 17]);
        Ok(Self { _process, socket, answers, outgoing, line, stores_count: 0, value })
    }

    fn set(&mut self, access: &Access) {
        self.stores_count += 1;
        self.outgoing.extend_from_slice(b"set ");
        self.outgoing.extend_from_slice(access.key.as_bytes());
        let head = format!(" 0 0 {} noreply\r\n", access.value_bytes);
        self.outgoing.extend_from_slice(head.as_bytes());
        self.outgoing.extend_from_slice(&self.value[..access.value_bytes as usize]);
        self.outgoing.extend_from_slice(b"\r\n");
    }

    fn send(&mut self) -> anyhow::Result<()> {
        self.socket.write_all(&self.outgoing).context("asking memcached")?;
        self.outgoing.clear();
        Ok(())
    }

    /// The next line, without its end.
    fn answer(&mut self) -> anyhow::Result<&[u8]> {
        self.line.clear();
        self.answers.read_until(b'\n', &mut self.line).context("hearing memcached")?;
        self.line.strip_suffix(b"\r\n").context("memcached closed the connection")
    }

    /// Checks that everything arrived and was stored, in the memory that was asked for.
    pub fn check(&mut self, memory_mb: u32) -> anyhow::Result<()> {
        self.outgoing.extend_from_slice(b"stats\r\n");
        self.send()?;
        let mut stats = BTreeMap::new();
        loop {
            let line = String::from_utf8_lossy(self.answer()?).into_owned();
            match line.split(' ').collect::<Vec<_>>()[..] {
                ["STAT", name, value] => stats.insert(name.to_owned(), value.to_owned()),
                ["END"] => break,
                _ => anyhow::bail!("memcached answered {line:?} to stats"),
            };
        }
        let number = |name: &str| -> anyhow::Result<u64> {
            let value = stats.get(name).with_context(|| format!("memcached has no {name}"))?;
            Ok(value.parse()?)
        };
        let failed = number("store_no_memory")? + number("store_too_large")?;
        anyhow::ensure!(
            failed * REFUSED_ONE_IN <= self.stores_count,
            "memcached refused {failed} of {} values",
            self.stores_count
        );
        // What it refuses it does not count as a set.
        let arrived = number("cmd_set")? + failed;
        anyhow::ensure!(arrived == self.stores_count, "{arrived} of {} arrived", self.stores_count);
        let limit = number("limit_maxbytes")?;
        anyhow::ensure!(limit == u64::from(memory_mb) << 20, "memcached uses {limit} bytes");
        Ok(())
    }
}

impl Cache for Memcached {
    fn batch(&mut self, batch: &[Access]) -> anyhow::Result<u64> {
        for access in batch {
            if access.write {
                self.set(access);
            } else {
                // A read like any other, to the peer's queues too; it only leaves the value out.
                self.outgoing.extend_from_slice(b"mg ");
                self.outgoing.extend_from_slice(access.key.as_bytes());
                self.outgoing.extend_from_slice(b"\r\n");
            }
        }
        let reads = || batch.iter().filter(|access| !access.write);
        if reads().next().is_none() {
            return Ok(0);
        }
        self.send()?;
        let mut hits_count = 0;
        for access in reads() {
            match self.answer()? {
                b"HD" => hits_count += 1,
                b"EN" => self.set(access),
                other => {
                    anyhow::bail!("memcached answered {:?}", String::from_utf8_lossy(other));
                }
            }
        }
        Ok(hits_count)
    }
}

fn connect(path: &Path) -> anyhow::Result<UnixStream> {
    let deadline = Instant::now() + READY;
    loop {
        match UnixStream::connect(path) {
            Ok(socket) => return Ok(socket),
            Err(error) if Instant::now() > deadline => {
                return Err(error).with_context(|| format!("no socket {}", path.display()));
            }
            Err(_) => std::thread::sleep(Duration::from_millis(10)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Key, Outcome, run};
    use super::*;
    use crate::row::{ROWS_TOML, Rows};
    use crate::stage::find_peer;

    #[test]
    fn what_fits_misses_once_and_everything_arrives() {
        let rows = Rows::parse(ROWS_TOML).unwrap();
        let peer = rows.get("A5").unwrap().peer.as_ref().unwrap();
        if let Err(why) = find_peer(peer) {
            println!("SKIPPED the peer of A5: {why}");
            return;
        }
        let ground = Ground::new().unwrap();
        let access = |number: u32, write| Access {
            key: Key::new(&format!("key{number}")),
            value_bytes: 100 * number,
            write,
        };
        let mut accesses: Vec<Access> = (0..100).map(|number| access(number, true)).collect();
        accesses.extend((50..150).map(|number| access(number, false)));
        accesses.extend((0..150).map(|number| access(number, false)));
        let mut memcached = Memcached::start(&peer.command, 64, &ground).unwrap();
        let outcome = run(&accesses, &mut memcached).unwrap();
        assert_eq!(outcome, Outcome { reads_count: 250, hits_count: 200 });
        memcached.check(64).unwrap();
        assert!(memcached.check(65).is_err());
        memcached.stores_count += 1;
        assert!(memcached.check(64).is_err());
    }
}
