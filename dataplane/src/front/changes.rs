//! What the supervisor says while the front serves: caches that come and go, and that the control region says
//! something new. It is looked at once a tick, and a message brings the next tick on.

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
    /// A look that was asked for in this tick.
    look: Option<u64>,
    /// One that was obeyed in the tick before: what had come until then is counted now.
    obeyed: Option<u64>,
}

impl<'a> Changes<'a> {
    /// Listens to `socket`; new caches are served as the node file says.
    pub fn new(socket: &'a OwnedFd, config: NodeConfig) -> Self {
        Self { socket: Some(socket.as_fd()), config, look: None, obeyed: None }
    }

    /// Makes the changes that were asked for.
    pub fn look(&mut self, server: &mut Server<'_>) {
        while let Some(socket) = self.socket
            && is_readable(socket)
        {
            match receive_as_front(socket) {
                Ok((ToFront::Look { number }, _)) => self.look = Some(number),
                Ok((message, fds)) => {
                    let answer = self.make(message, fds, server);
                    kill_point("front.changed");
                    let _ = send(socket, &answer, &[]);
                }
                Err(_) => {
                    self.socket = None;
                    server.listen_no_more();
                }
            }
        }
    }

    /// Answers a look, at the end of the tick after the one in which it was asked for and obeyed.
    pub fn answer_look(&mut self, server: &mut Server<'_>) {
        if let (Some(number), Some(socket)) = (self.obeyed.take(), self.socket) {
            let _ = send(socket, &FromWorker::Looked { number }, &[]);
        }
        self.obeyed = self.look.take();
        if self.obeyed.is_some() {
            server.tick_soon();
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
            ToFront::Assign { .. } | ToFront::Look { .. } | ToFront::Serve => {
                (0, Err(FrontError::Unexpected))
            }
        };
        let refused = made.err().map_or_else(String::new, |error| error.to_string());
        FromWorker::Changed { number, refused }
    }
}

fn is_readable(socket: BorrowedFd<'_>) -> bool {
    let mut fds = [PollFd::new(socket, PollFlags::POLLIN)];
    poll(&mut fds, PollTimeout::ZERO).is_ok_and(|ready| ready > 0)
}
