//! The server's end of a connection: a login to judge, messages out, heartbeats, and when it is dead.
//!
//! ```text
//!   AwaitingLogin --L--> LoginRequested --accept--> LoggedIn --O--> LoggedOut
//!                              |                        |
//!                              +--reject--> Rejected     +--end_session--> Ended
//!                                                               anything wrong or silent: Failed
//! ```
//!
//! Written by the thread that owns the connection, which sends what is in `out` and closes the
//! connection in every state that [`ServerState::is_over`], after what is in `out` has been sent.

use super::frame::Frames;
use super::packet::{ClientPacket, LoginRequest, RejectReason, ServerPacket};
use super::{HEARTBEAT_NS, LOGIN_LIMIT_NS, SILENCE_LIMIT_NS, SoupError};
use crate::feed::moldudp64::Session;

/// Longest packet taken from a client, type and payload. Too low: an application's requests are
/// refused. Too high: memory a connection.
pub const CLIENT_PACKET_BYTES_MAX: usize = 1_024;

/// Where the conversation stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ServerState {
    /// Nothing was asked.
    AwaitingLogin,
    /// To be answered by [`SoupServer::accept`] or [`SoupServer::reject`].
    LoginRequested(LoginRequest),
    /// Messages may be sent.
    LoggedIn,
    /// The client has said that it leaves.
    LoggedOut,
    /// The client was not let in.
    Rejected(RejectReason),
    /// The end of the session was said.
    Ended,
    /// The connection is of no use any more.
    Failed(SoupError),
}

impl ServerState {
    /// Whether the connection is to be closed once everything is sent.
    pub fn is_over(self) -> bool {
        match self {
            Self::AwaitingLogin | Self::LoginRequested(_) | Self::LoggedIn => false,
            Self::LoggedOut | Self::Rejected(_) | Self::Ended | Self::Failed(_) => true,
        }
    }
}

/// One connection of one client. Takes about 1 KiB when made and nothing later.
pub struct SoupServer {
    frames: Frames,
    state: ServerState,
    next_sequence: u64,
    accepted_ns: u64,
    received_ns: u64,
    sent_ns: u64,
}

impl SoupServer {
    /// A connection that was accepted at `now_ns`.
    pub fn new(now_ns: u64) -> Self {
        Self {
            frames: Frames::new(CLIENT_PACKET_BYTES_MAX),
            state: ServerState::AwaitingLogin,
            next_sequence: 0,
            accepted_ns: now_ns,
            received_ns: now_ns,
            sent_ns: now_ns,
        }
    }

    /// Where the conversation stands.
    pub fn state(&self) -> ServerState {
        self.state
    }

    /// Number of the next message; 0 before the login.
    pub fn next_sequence(&self) -> u64 {
        self.next_sequence
    }

    /// Takes in bytes as they came, in any pieces, and tells the client's unsequenced messages.
    pub fn receive(
        &mut self,
        bytes: &[u8],
        now_ns: u64,
        mut tell: impl FnMut(&[u8]),
    ) -> ServerState {
        if !bytes.is_empty() {
            self.received_ns = now_ns;
        }
        let mut rest = bytes;
        while !self.state.is_over() {
            let packet = match self.frames.next(&mut rest) {
                Ok(None) => break,
                Ok(Some(frame)) => ClientPacket::parse(frame),
                Err(error) => Err(error),
            };
            self.state = match (packet, self.state) {
                (Ok(ClientPacket::Debug(_) | ClientPacket::Heartbeat), state) => state,
                (Ok(ClientPacket::Login(request)), ServerState::AwaitingLogin) => {
                    ServerState::LoginRequested(request)
                }
                (Ok(ClientPacket::Login(_)), _) => {
                    ServerState::Failed(SoupError::OutOfTurn { kind: b'L' })
                }
                (Ok(ClientPacket::Unsequenced(message)), ServerState::LoggedIn) => {
                    tell(message);
                    ServerState::LoggedIn
                }
                (Ok(ClientPacket::Unsequenced(_)), _) => {
                    ServerState::Failed(SoupError::OutOfTurn { kind: b'U' })
                }
                (Ok(ClientPacket::Logout), _) => ServerState::LoggedOut,
                (Err(error), _) => ServerState::Failed(error),
            };
        }
        self.state
    }

    /// Lets the client in: the next message of `session` that will be sent has number `sequence`,
    /// which is not 0.
    pub fn accept(&mut self, session: Session, sequence: u64, now_ns: u64, out: &mut Vec<u8>) {
        if matches!(self.state, ServerState::LoginRequested(_)) {
            assert!(sequence != 0, "sequence numbers start at 1");
            ServerPacket::LoginAccepted { session, sequence }.write(out);
            self.state = ServerState::LoggedIn;
            self.next_sequence = sequence;
            self.sent_ns = now_ns;
        }
    }

    /// Does not let the client in.
    pub fn reject(&mut self, reason: RejectReason, out: &mut Vec<u8>) {
        if matches!(self.state, ServerState::LoginRequested(_)) {
            ServerPacket::LoginRejected(reason).write(out);
            self.state = ServerState::Rejected(reason);
        }
    }

    /// Appends the next message, at most 65,534 bytes, and returns its number; `None`, and nothing is
    /// sent, unless the client is logged in.
    pub fn send(&mut self, message: &[u8], now_ns: u64, out: &mut Vec<u8>) -> Option<u64> {
        if self.state != ServerState::LoggedIn {
            return None;
        }
        let sequence = self.next_sequence;
        match sequence.checked_add(1) {
            Some(next) => self.next_sequence = next,
            None => {
                self.state = ServerState::Failed(SoupError::Exhausted);
                return None;
            }
        }
        ServerPacket::Sequenced(message).write(out);
        self.sent_ns = now_ns;
        Some(sequence)
    }

    /// Says that no message will follow.
    pub fn end_session(&mut self, out: &mut Vec<u8>) {
        if self.state == ServerState::LoggedIn {
            ServerPacket::EndOfSession.write(out);
            self.state = ServerState::Ended;
        }
    }

    /// Appends a heartbeat when one is due and judges the silence of the client.
    pub fn tick(&mut self, now_ns: u64, out: &mut Vec<u8>) -> ServerState {
        match self.state {
            ServerState::AwaitingLogin
                if now_ns.saturating_sub(self.accepted_ns) >= LOGIN_LIMIT_NS =>
            {
                self.state = ServerState::Failed(SoupError::LoginTimeout);
            }
            ServerState::LoggedIn
                if now_ns.saturating_sub(self.received_ns) >= SILENCE_LIMIT_NS =>
            {
                self.state = ServerState::Failed(SoupError::Silent);
            }
            ServerState::LoggedIn if now_ns.saturating_sub(self.sent_ns) >= HEARTBEAT_NS => {
                ServerPacket::Heartbeat.write(out);
                self.sent_ns = now_ns;
            }
            _ => {}
        }
        self.state
    }
}

#[cfg(test)]
mod tests {
    use super::super::client::{ClientEvent, ClientState, SoupClient};
    use super::super::packet::{ANY_SESSION, Credentials};
    use super::*;

    const SESSION: Session = Session(*b"  20261128");
    const SECOND: u64 = 1_000_000_000;

    fn bytes(packets: &[ClientPacket<'_>]) -> Vec<u8> {
        let mut out = Vec::new();
        packets.iter().for_each(|packet| packet.write(&mut out));
        out
    }

    fn login() -> ClientPacket<'static> {
        let credentials = Credentials::new("user", "pass").unwrap();
        ClientPacket::Login(LoginRequest { credentials, session: ANY_SESSION, sequence: 1 })
    }

    fn logged_in() -> SoupServer {
        let mut server = SoupServer::new(0);
        server.receive(&bytes(&[login()]), 0, |_| panic!());
        server.accept(SESSION, 1, 0, &mut Vec::new());
        server
    }

    /// Both ends over a wire that carries `piece` bytes at a time.
    #[test]
    fn client_and_server_understand_each_other() {
        for piece in [1, 2, 3, 7, 4_096] {
            let (mut up, mut down) = (Vec::new(), Vec::new());
            let mut client =
                SoupClient::new(Credentials::new("user", "pass").unwrap(), SESSION, 41);
            let mut server = SoupServer::new(5);
            client.start(&mut up);
            up.chunks(piece).for_each(|bytes| {
                server.receive(bytes, 5, |_| panic!());
            });
            let ServerState::LoginRequested(request) = server.state() else { panic!() };
            assert_eq!((request.session, request.sequence), (SESSION, 41));
            assert_eq!(server.send(b"early", 5, &mut down), None);
            server.accept(request.session, request.sequence, 5, &mut down);
            for number in 41..141u64 {
                assert_eq!(server.send(&number.to_be_bytes(), 5, &mut down), Some(number));
            }
            server.tick(5 + HEARTBEAT_NS, &mut down);
            server.end_session(&mut down);
            let mut next = 41u64;
            for bytes in down.chunks(piece) {
                client.receive(bytes, 6, |event| match event {
                    ClientEvent::LoggedIn { sequence, .. } => assert_eq!(sequence, 41),
                    ClientEvent::Message { sequence, bytes } => {
                        assert_eq!((sequence, bytes), (next, &next.to_be_bytes()[..]));
                        next += 1;
                    }
                    other => panic!("{other:?}"),
                });
            }
            assert_eq!(
                (next, client.state(), server.state()),
                (141, ClientState::Ended, ServerState::Ended)
            );
        }
    }

    #[test]
    fn only_a_login_opens_the_conversation() {
        for (packets, kind) in [
            (&[ClientPacket::Unsequenced(b"x")][..], b'U'),
            (&[login(), ClientPacket::Unsequenced(b"x")], b'U'),
            (&[login(), login()], b'L'),
        ] {
            let mut server = SoupServer::new(0);
            let state = server.receive(&bytes(packets), 1, |_| panic!());
            assert_eq!(state, ServerState::Failed(SoupError::OutOfTurn { kind }));
        }
        let mut heard = Vec::new();
        let stream = bytes(&[
            ClientPacket::Heartbeat,
            ClientPacket::Unsequenced(b"ask"),
            ClientPacket::Logout,
            ClientPacket::Unsequenced(b"late"),
        ]);
        let mut server = logged_in();
        let state = server.receive(&stream, 1, |message| heard.push(message.to_vec()));
        assert_eq!((state, heard), (ServerState::LoggedOut, vec![b"ask".to_vec()]));
        let long = bytes(&[ClientPacket::Unsequenced(&[0; CLIENT_PACKET_BYTES_MAX])]);
        assert!(matches!(
            logged_in().receive(&long, 1, |_| panic!()),
            ServerState::Failed(SoupError::TooLong { bytes: 1_025, .. })
        ));
    }

    #[test]
    fn a_rejected_client_gets_the_reason_and_nothing_else() {
        let mut server = SoupServer::new(0);
        let mut out = Vec::new();
        server.reject(RejectReason::NoSession, &mut out);
        assert!(out.is_empty(), "nobody has asked");
        server.receive(&bytes(&[login()]), 1, |_| panic!());
        server.reject(RejectReason::NoSession, &mut out);
        assert_eq!(out, *b"\0\x02JS");
        server.accept(SESSION, 1, 1, &mut out);
        assert_eq!(server.send(b"x", 1, &mut out), None);
        assert_eq!(server.tick(99 * SECOND, &mut out), server.state());
        assert_eq!((out.len(), server.state().is_over()), (4, true));
    }

    #[test]
    fn time_limits_hold() {
        let mut out = Vec::new();
        let mut silent = SoupServer::new(SECOND);
        assert_eq!(silent.tick(SECOND + LOGIN_LIMIT_NS - 1, &mut out), ServerState::AwaitingLogin);
        let state = silent.tick(SECOND + LOGIN_LIMIT_NS, &mut out);
        assert_eq!(state, ServerState::Failed(SoupError::LoginTimeout));
        assert!(out.is_empty());

        let mut server = logged_in();
        server.send(b"x", SECOND / 2, &mut out);
        out.clear();
        server.tick(HEARTBEAT_NS, &mut out);
        assert!(out.is_empty(), "half a second after a message");
        server.tick(SECOND / 2 + HEARTBEAT_NS, &mut out);
        assert_eq!(out, *b"\0\x01H");
        server.receive(&bytes(&[ClientPacket::Heartbeat]), 2 * SECOND, |_| {});
        assert_eq!(server.tick(SILENCE_LIMIT_NS + SECOND, &mut out), ServerState::LoggedIn);
        let state = server.tick(SILENCE_LIMIT_NS + 2 * SECOND, &mut out);
        assert_eq!(state, ServerState::Failed(SoupError::Silent));
    }
}
