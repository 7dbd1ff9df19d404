//! Caches that come and go while the front serves: what the supervisor says, looked at once a tick.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use super::FrontError;
use super::caches::Served;
use super::link::Target;
use super::server::Server;
use crate::config::NodeConfig;
use crate::kill_point::kill_point;

use crate::supervisor::front_messages::{ToFront, receive_as_front};
use crate::supervisor::handover::{Fds, FromWorker, send};

/// The way to the supervisor.
pub(super) struct Changes<'a> {
    /// None once nobody is at the other end: the next supervisor replaces the front.
    socket: Option<BorrowedFd<'a>>,
    config: NodeConfig,
}

impl<'a> Changes<'a> {
    /// Listens to `socket`; new caches are served as the node file says.
    pub fn new(socket: &'a OwnedFd, config: NodeConfig) -> Self {
        Self { socket: Some(socket.as_fd()), config }
    }

    /// Makes the changes that were asked for.
    pub fn look(&mut self, server: &mut Server<'_>) {
        while let Some(socket) = self.socket
            && is_readable(socket)
        {
            match receive_as_front(socket) {
                Ok((message, fds)) => {
                    let answer = self.make(message, fds, server);
                    kill_point("front.changed");
                    let _ = send(socket, &answer, &[]);
                }
                Err(_) => self.socket = None,
            }
        }
    }

    fn make(&self, message: ToFront, mut fds: Fds, server: &mut Server<'_>) -> FromWorker {
        let (number, made) = match message {
            ToFront::Add { number, opened, .. } => {
                let access = self.config.access_to(&opened.section);
                let served = Served::take(&opened, access, &mut fds);
                (number, served.map(|cache| server.add(cache)))
            }
            ToFront::Forget { number, place, generation } => {
                server.forget(Target { place: place.into(), generation });
                (number, Ok(()))
            }
            ToFront::Assign { .. } | ToFront::Serve { .. } => (0, Err(FrontError::Unexpected)),
        };
        let refused = made.err().map_or_else(String::new, |error| error.to_string());
        FromWorker::Changed { number, refused }
    }
}

fn is_readable(socket: BorrowedFd<'_>) -> bool {
    let mut fds = [PollFd::new(socket, PollFlags::POLLIN)];
    poll(&mut fds, PollTimeout::ZERO).is_ok_and(|ready| ready > 0)
}
