//! What crosses an interface, by tcpdump; and what tshark reads in it.
#![allow(dead_code)]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use nautilus_dataplane::feed::moldudp64::Packet;
use nautilus_dataplane::replay::pcap::PcapReader;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::supervised::wait_until;

/// A process that is ended with the test.
pub struct Running(pub Child);

impl Running {
    /// Asks it to end.
    pub fn terminate(&self) {
        kill(Pid::from_raw(self.0.id() as i32), Signal::SIGTERM).unwrap();
    }

    /// Waits for its end; what it printed since.
    pub fn end(mut self) -> String {
        let mut output = String::new();
        if let Some(stdout) = &mut self.0.stdout {
            std::io::Read::read_to_string(stdout, &mut output).unwrap();
        }
        assert!(self.0.wait().unwrap().success(), "{output}");
        output
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Every datagram on an interface.
pub struct Capture {
    process: Running,
    path: PathBuf,
}

impl Capture {
    /// `tcpdump` runs where the interface is; `None` where it or tshark is not installed.
    pub fn start(mut tcpdump: Command, interface: &str, folder: &Path) -> Option<Self> {
        for program in ["tcpdump", "tshark"] {
            Command::new(program).arg("--version").output().ok()?;
        }
        let path = folder.join("capture.pcap");
        tcpdump.args(["-i", interface, "-U", "-B", "32768", "-Z", "root", "-w"]).arg(&path);
        let process = Running(tcpdump.arg("udp").stderr(Stdio::null()).spawn().unwrap());
        wait_until("tcpdump captures", Duration::from_secs(10), || path.exists());
        std::thread::sleep(Duration::from_millis(300));
        Some(Self { process, path })
    }

    /// The file of it.
    pub fn end(self) -> PathBuf {
        std::thread::sleep(Duration::from_millis(300));
        self.process.terminate();
        self.process.end();
        self.path
    }
}

/// The UDP payload of an IPv4 frame of loopback, with its source and destination ports.
fn payload(frame: &[u8]) -> Option<(u16, u16, &[u8])> {
    let ip = frame.get(14..)?;
    let header = usize::from(ip.first()? & 0x0f) * 4;
    let udp = ip.get(header..)?;
    let port = |at: usize| Some(u16::from_be_bytes([*udp.get(at)?, *udp.get(at + 1)?]));
    let bytes = usize::from(port(4)?);
    Some((port(0)?, port(2)?, udp.get(8..bytes)?))
}

/// Session, sequence and count of every frame that was sent to a port of `lines`, or from that of `requests`, by
/// tshark and by us, and their checksums if the sender has filled them in. Returns the numbers of the packets of each line.
pub fn tshark_agrees(
    path: &Path,
    lines: &[u16],
    requests: u16,
    has_checksums: bool,
) -> BTreeMap<u16, Vec<(u64, u64)>> {
    let mut ours = Vec::new();
    let mut reader = PcapReader::open(path).unwrap();
    let mut ranges: BTreeMap<u16, Vec<(u64, u64)>> = BTreeMap::new();
    while let Some(record) = reader.next_record().unwrap() {
        let Some((source, destination, bytes)) = payload(record.data) else { continue };
        let is_line = lines.contains(&destination);
        if !is_line && source != requests {
            continue;
        }
        let packet = Packet::parse(bytes).unwrap();
        packet.check().unwrap();
        let count = u16::from_be_bytes([bytes[18], bytes[19]]);
        ours.push(format!("{}\t{}\t{count}", packet.session, packet.sequence));
        if is_line {
            let range = (packet.sequence, packet.next_sequence());
            ranges.entry(destination).or_default().push(range);
        }
    }
    let mut tshark = Command::new("tshark");
    tshark.arg("-r").arg(path).args(["-o", "udp.check_checksum:TRUE"]);
    let mut filters = vec![format!("udp.srcport=={requests}")];
    filters.extend(lines.iter().map(|port| format!("udp.dstport=={port}")));
    for port in lines.iter().chain(&[requests]) {
        tshark.args(["-d", &format!("udp.port=={port},moldudp64")]);
    }
    tshark.args(["-Y", &filters.join(" || ")]);
    tshark.args(["-T", "fields", "-e", "moldudp64.session", "-e", "moldudp64.sequence"]);
    tshark.args(["-e", "moldudp64.count", "-e", "udp.checksum.status"]);
    let output = tshark.output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let theirs = String::from_utf8(output.stdout).unwrap();
    let theirs: Vec<&str> = theirs.lines().collect();
    assert!(ours.len() > 1_000, "{} frames", ours.len());
    assert_eq!(theirs.len(), ours.len());
    for (number, (theirs, ours)) in theirs.iter().zip(&ours).enumerate() {
        let words = |line: &str| line.split('\t').map(|word| word.trim().to_owned()).collect();
        let (mut theirs, ours): (Vec<String>, Vec<String>) = (words(theirs), words(ours));
        let status = theirs.pop();
        assert_eq!(theirs, ours, "frame {number}");
        // 1: good. What a kernel's socket sent may have been captured before it was added up.
        assert!(!has_checksums || status == Some("1".into()), "{status:?}, frame {number}");
    }
    println!("tshark agrees on {} frames", ours.len());
    ranges
}
