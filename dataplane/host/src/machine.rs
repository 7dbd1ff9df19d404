//! The machine that is looked at: the running one, or one recorded as a tree of files.
//!
//! ```text
//!   running:  /proc, /sys, netlink sockets        --.
//!   recorded: DIR/proc, DIR/sys, DIR/netlink/...  --+--> Machine --> readings, writes
//! ```
//!
//! A recorded tree answers a write as the kernel would, as far as the bytes go, so that `init` and
//! `fini` run on it by the same code. Paths are relative to the root.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};

use super::address::Address;
use super::knob::{Group, Kind, Width};
use super::netlink::{self, NetlinkError, NetlinkSocket, features};
use super::value;

/// Bytes taken of one file. Files of interest are short; the longest, `/proc/cpuinfo`, begins with
/// what is looked for.
const FILE_BYTES_MAX: u64 = 64 * 1024;

/// Marks a folder of a recorded tree that nothing else keeps there.
const FOLDER_MARK: &str = ".there";

type Answers = BTreeMap<(String, Group), Result<Vec<u8>, String>>;

/// A machine.
#[derive(Debug)]
pub struct Machine {
    root: PathBuf,
    is_running: bool,
    netlink: RefCell<Option<Result<NetlinkSocket, NetlinkError>>>,
    answers: RefCell<Answers>,
    copy: Option<PathBuf>,
}

impl Machine {
    /// This one.
    pub fn running() -> Self {
        Self::new(Path::new("/"), true)
    }

    /// One recorded below this folder.
    pub fn recorded(root: &Path) -> Self {
        Self::new(root, false)
    }

    fn new(root: &Path, is_running: bool) -> Self {
        let (netlink, answers) = (RefCell::default(), RefCell::default());
        Self { root: root.into(), is_running, netlink, answers, copy: None }
    }

    /// Copies everything that is read from here on below this folder.
    pub fn copying_to(mut self, folder: &Path) -> Self {
        self.copy = Some(folder.into());
        self
    }

    /// Whether it is the running one.
    pub fn is_running(&self) -> bool {
        self.is_running
    }

    fn keep(&self, path: &str, bytes: &[u8]) -> Result<(), String> {
        let Some(folder) = &self.copy else { return Ok(()) };
        let file = folder.join(path);
        let parent = file.parent().unwrap_or(folder);
        std::fs::create_dir_all(parent)
            .and_then(|()| std::fs::write(&file, bytes))
            .map_err(|error| format!("{} could not be recorded: {error}", file.display()))
    }

    /// Bytes of a file; an error in words.
    pub fn read(&self, path: &str) -> Result<Vec<u8>, String> {
        let mut bytes = Vec::new();
        std::fs::File::open(self.root.join(path))
            .and_then(|file| file.take(FILE_BYTES_MAX).read_to_end(&mut bytes))
            .map_err(|error| in_words(path, &error))?;
        self.keep(path, &bytes)?;
        Ok(bytes)
    }

    /// A file as trimmed text.
    pub fn text(&self, path: &str) -> Result<String, String> {
        value::text(&self.read(path)?)
    }

    /// Whether a path is there.
    pub fn exists(&self, path: &str) -> bool {
        let full = self.root.join(path);
        let there = full.exists();
        if there {
            // Failing to record shows at the next file.
            let mark = if full.is_dir() { format!("{path}/{FOLDER_MARK}") } else { path.into() };
            let _ = self.keep(&mark, b"");
        }
        there
    }

    /// Names in a folder, sorted; none where it cannot be read.
    pub fn names(&self, path: &str) -> Vec<String> {
        let entries = std::fs::read_dir(self.root.join(path)).into_iter().flatten().flatten();
        let names = entries.filter_map(|entry| entry.file_name().into_string().ok());
        let mut names: Vec<String> = names.filter(|name| !name.starts_with('.')).collect();
        names.sort();
        names
    }

    /// The attributes of an interface's answer; asked for once.
    pub fn answer(&self, interface: &str, group: Group) -> Result<Vec<u8>, String> {
        let key = (interface.to_owned(), group);
        if let Some(known) = self.answers.borrow().get(&key) {
            return known.clone();
        }
        let answer = self.ask(interface, group);
        self.answers.borrow_mut().insert(key, answer.clone());
        answer
    }

    fn ask(&self, interface: &str, group: Group) -> Result<Vec<u8>, String> {
        let file = answer_file(interface, group);
        if !self.is_running {
            return netlink::of_text(&String::from_utf8_lossy(&self.read(&file)?));
        }
        let answer = self.with_netlink(|netlink| netlink.get(interface, group));
        self.keep(&file, netlink::to_text(&answer).as_bytes())?;
        answer.map_err(|error| error.to_string())
    }

    fn with_netlink<T>(
        &self,
        ask: impl FnOnce(&mut NetlinkSocket) -> Result<T, NetlinkError>,
    ) -> Result<T, NetlinkError> {
        match self.netlink.borrow_mut().get_or_insert_with(NetlinkSocket::open) {
            Ok(netlink) => ask(netlink),
            Err(error) => Err(error.clone()),
        }
    }

    /// Bytes of what an address names.
    pub fn look(&self, address: &Address) -> Result<Vec<u8>, String> {
        let number = |nic: &str, group, attribute, width| -> Result<Vec<u8>, String> {
            let answer = self.answer(nic, group)?;
            netlink::number(&answer, attribute, width)
                .map(|number| number.to_string().into_bytes())
                .ok_or_else(|| "the driver does not have it".into())
        };
        match address {
            Address::File(path) => self.read(path),
            Address::Field(path, key) => field(&self.text(path)?, key),
            Address::Boot(parameter) => {
                let line = self.text("proc/cmdline")?;
                Ok(boot_parameter(&line, parameter).unwrap_or_default().into())
            }
            Address::Exists(path) => {
                Ok(if self.exists(path) { b"there".into() } else { b"absent".into() })
            }
            Address::Ethtool(nic, group, attribute, width) => {
                number(nic, *group, *attribute, *width)
            }
            Address::Feature(nic, name) => {
                let feature = features::feature(&self.answer(nic, Group::Features)?, name)?;
                Ok(if feature.on { b"on".into() } else { b"off".into() })
            }
            Address::Link(nic, attribute) => {
                let answer = self.answer(nic, Group::Link)?;
                let number = netlink::number(&answer, *attribute, Width::Word).unwrap_or(0);
                Ok(number.to_string().into_bytes())
            }
        }
    }

    /// Whether an address can be changed at all, as far as it can be seen; else why not.
    pub fn changeable(&self, address: &Address) -> Result<(), String> {
        if let Address::Feature(nic, name) = address
            && !features::feature(&self.answer(nic, Group::Features)?, name)?.changeable
        {
            return Err("the driver does not let it be changed".into());
        }
        Ok(())
    }

    /// Writes what an address names.
    pub fn write(&self, address: &Address, kind: Kind, token: &str) -> Result<(), String> {
        match address {
            Address::File(path) => self.write_file(path, kind, token),
            Address::Ethtool(nic, group, attribute, width) => {
                let number = token.parse().map_err(|_| format!("{token:?} is no number"))?;
                let bytes = netlink::number_bytes(*width, number);
                self.change(
                    nic,
                    *group,
                    |writer| writer.put(*attribute, &bytes),
                    |answer| {
                        netlink::codec::replaced(answer, *attribute, &bytes)
                            .ok_or_else(|| "the driver does not have it".into())
                    },
                )
            }
            Address::Feature(nic, name) => {
                let on = token == "on";
                self.change(
                    nic,
                    Group::Features,
                    |writer| features::request(writer, name, on),
                    |answer| features::switched(answer, name, on),
                )
            }
            Address::Field(..) | Address::Boot(_) | Address::Exists(_) | Address::Link(..) => {
                Err("it cannot be written".into())
            }
        }
    }

    fn change(
        &self,
        nic: &str,
        group: Group,
        write: impl FnOnce(netlink::codec::Writer) -> netlink::codec::Writer,
        simulate: impl FnOnce(&[u8]) -> Result<Vec<u8>, String>,
    ) -> Result<(), String> {
        // Another group may follow (channels change rings): all of the interface is asked anew.
        let old = self.answer(nic, group)?;
        self.answers.borrow_mut().retain(|(known, _), _| known != nic);
        if self.is_running {
            let done = self.with_netlink(|netlink| netlink.set(nic, group, write));
            return done.map_err(|error| error.to_string());
        }
        let file = self.root.join(answer_file(nic, group));
        let text = netlink::to_text(&Ok(simulate(&old)?));
        self.replace(&file, text.as_bytes())
            .map_err(|error| in_words(&answer_file(nic, group), &error))
    }

    /// Whole or not at all, as the kernel does it: whoever is killed leaves no file of a recorded tree half
    /// written. The new one is made beside the tree.
    fn replace(&self, file: &Path, bytes: &[u8]) -> std::io::Result<()> {
        let beside = self.root.with_extension("writing");
        std::fs::write(&beside, bytes)?;
        std::fs::rename(&beside, file)
    }

    fn write_file(&self, path: &str, kind: Kind, token: &str) -> Result<(), String> {
        let full = self.root.join(path);
        let written = if self.is_running {
            // One write call, nothing made and nothing cut: files of proc and sysfs take it whole.
            std::fs::OpenOptions::new().write(true).open(&full).and_then(|mut file| {
                let length = file.write(token.as_bytes())?;
                if length == token.len() {
                    Ok(())
                } else {
                    Err(std::io::ErrorKind::WriteZero.into())
                }
            })
        } else {
            std::fs::read(&full)
                .and_then(|old| self.replace(&full, &value::after_write(kind, &old, token)))
        };
        written.map_err(|error| in_words(path, &error))
    }
}

fn answer_file(interface: &str, group: Group) -> String {
    format!("netlink/{interface}/{}", netlink::file_of(group))
}

fn in_words(path: &str, error: &std::io::Error) -> String {
    match error.kind() {
        std::io::ErrorKind::NotFound => format!("/{path} is not there"),
        _ => format!("/{path}: {error}"),
    }
}

/// What follows `key:` on the first such line.
fn field(text: &str, key: &str) -> Result<Vec<u8>, String> {
    let found = text.lines().find_map(|line| {
        let (name, rest) = line.split_once(':')?;
        (name.trim() == key).then(|| rest.trim().as_bytes().to_vec())
    });
    found.ok_or_else(|| format!("no line {key:?}"))
}

/// The value of the last `name=value` on a command line; the name itself for one without a value.
fn boot_parameter<'a>(line: &'a str, name: &str) -> Option<&'a str> {
    line.split_whitespace().rev().find_map(|word| match word.split_once('=') {
        Some((key, value)) => (key == name).then_some(value),
        None => (word == name).then_some(word),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_and_parameters_are_found() {
        assert_eq!(field("A: 1 kB\nB :\t2\n", "B"), Ok(b"2".to_vec()));
        assert!(field("A 1", "A").is_err());
        let line = "quiet isolcpus=1 nohz_full=2-3 isolcpus=managed_irq,4";
        assert_eq!(boot_parameter(line, "isolcpus"), Some("managed_irq,4"));
        assert_eq!(boot_parameter(line, "quiet"), Some("quiet"));
        assert_eq!(boot_parameter(line, "skew_tick"), None);
    }
}
