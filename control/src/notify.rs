//! What systemd is told, over the socket it names in the environment: that the daemon serves, that its loop
//! still turns, that it ends. Without such a socket nothing is said.
//!
//! Protocol: `sd_notify(3)`: one datagram of `NAME=VALUE` lines to `NOTIFY_SOCKET`, a path or, behind `@`, an
//! abstract name; `WATCHDOG_USEC` is how long silence may last, for the process `WATCHDOG_PID`.

use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::time::Duration;

/// The service manager, if there is one.
#[derive(Debug, Default)]
pub struct ServiceManager {
    socket: Option<(UnixDatagram, SocketAddr)>,
    watchdog: Option<Duration>,
}

impl ServiceManager {
    /// The one of the environment.
    pub fn of_environment() -> Self {
        let variable = |name: &str| std::env::var_os(name);
        let number = |name: &str| variable(name)?.to_str()?.parse::<u64>().ok();
        let ours = number("WATCHDOG_PID").is_none_or(|pid| pid == u64::from(std::process::id()));
        let socket = variable("NOTIFY_SOCKET").and_then(|name| open(name.as_bytes()));
        let watchdog = number("WATCHDOG_USEC").filter(|us| ours && *us > 0);
        Self { socket, watchdog: watchdog.map(Duration::from_micros) }
    }

    /// How often [`Self::alive`] is to be said: twice in the time that silence may last.
    pub fn interval(&self) -> Option<Duration> {
        self.socket.as_ref()?;
        self.watchdog.map(|silence| silence / 2)
    }

    /// The daemon serves; `status` is shown by `systemctl status`.
    pub fn ready(&self, status: &str) {
        self.say(&format!("READY=1\nSTATUS={}\n", status.replace('\n', " ")));
    }

    /// The loop turns.
    pub fn alive(&self) {
        self.say("WATCHDOG=1\n");
    }

    /// The daemon was told to end, and does.
    pub fn stopping(&self) {
        self.say("STOPPING=1\n");
    }

    /// A manager that does not listen is no reason to end, nor to wait.
    fn say(&self, text: &str) {
        if let Some((socket, address)) = &self.socket {
            let _ = socket.send_to_addr(text.as_bytes(), address);
        }
    }
}

fn open(name: &[u8]) -> Option<(UnixDatagram, SocketAddr)> {
    let address = match name {
        [b'@', rest @ ..] => SocketAddr::from_abstract_name(rest).ok()?,
        [b'/', ..] => SocketAddr::from_pathname(std::ffi::OsStr::from_bytes(name)).ok()?,
        _ => return None,
    };
    let socket = UnixDatagram::unbound().ok()?;
    socket.set_nonblocking(true).ok()?;
    Some((socket, address))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_said_arrives_by_path_and_by_abstract_name() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("notify");
        let by_path = UnixDatagram::bind(&path).unwrap();
        let name = format!("nautilus-notify-{}", std::process::id());
        let abstract_name = SocketAddr::from_abstract_name(&name).unwrap();
        let by_name = UnixDatagram::bind_addr(&abstract_name).unwrap();
        for (listener, name) in [
            (by_path, path.as_os_str().as_bytes().to_vec()),
            (by_name, format!("@{name}").into_bytes()),
        ] {
            let manager = ServiceManager { socket: open(&name), watchdog: None };
            manager.ready("two\nlines");
            let mut heard = [0; 64];
            let length = listener.recv(&mut heard).unwrap();
            assert_eq!(&heard[..length], b"READY=1\nSTATUS=two lines\n");
        }
    }

    #[test]
    fn silence_is_half_of_what_is_allowed_and_odd_names_are_none() {
        assert!(open(b"relative").is_none() && open(b"").is_none());
        let watchdog = Some(Duration::from_secs(10));
        assert_eq!(ServiceManager { socket: None, watchdog }.interval(), None);
        let socket = open(b"/nowhere/at/all");
        let manager = ServiceManager { socket, watchdog };
        assert_eq!(manager.interval(), Some(Duration::from_secs(5)));
        manager.alive();
    }
}
