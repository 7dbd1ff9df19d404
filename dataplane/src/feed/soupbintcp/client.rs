//! The client's end of a connection: login, numbered messages, heartbeats, and when it is dead.
//!
//! ```text
//!   start -> LoggingIn --A--> LoggedIn --Z--> Ended
//!                |               |
//!                +--J--> Rejected +--log_out--> LoggedOut        anything wrong or silent: Failed
//! ```
//!
//! Written by the thread that owns the connection. It sends what is in `out`, gives what it reads to
//! [`SoupClient::receive`], calls [`SoupClient::tick`] a few times a second and closes the connection
//! in every state that [`ClientState::is_over`].

use super::frame::{Frames, PACKET_BYTES_MAX};
use super::packet::{
    ANY_SESSION, ClientPacket, Credentials, LoginRequest, RejectReason, ServerPacket,
};
use super::{HEARTBEAT_NS, LOGIN_LIMIT_NS, SILENCE_LIMIT_NS, SoupError};
use crate::feed::moldudp64::Session;

/// Where the conversation stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClientState {
    /// [`SoupClient::start`] has not been called.
    New,
    /// The login was sent.
    LoggingIn,
    /// Messages come.
    LoggedIn,
    /// The session is over: nothing will follow.
    Ended,
    /// The client has said that it leaves.
    LoggedOut,
    /// The server does not let the client in.
    Rejected(RejectReason),
    /// The connection is of no use any more.
    Failed(SoupError),
}

impl ClientState {
    /// Whether the connection is to be closed.
    pub fn is_over(self) -> bool {
        match self {
            Self::New | Self::LoggingIn | Self::LoggedIn => false,
            Self::Ended | Self::LoggedOut | Self::Rejected(_) | Self::Failed(_) => true,
        }
    }
}

/// What came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClientEvent<'a> {
    /// The login was accepted.
    LoggedIn {
        /// The session.
        session: Session,
        /// Number of the next message.
        sequence: u64,
    },
    /// The next message of the session.
    Message {
        /// Its number.
        sequence: u64,
        /// Its bytes, 0 to 65,534.
        bytes: &'a [u8],
    },
    /// A message outside the sequence.
    Unsequenced(&'a [u8]),
    /// Text for humans.
    Debug(&'a [u8]),
}

/// One connection to one server. Takes 64 KiB when made and nothing later.
pub struct SoupClient {
    frames: Frames,
    request: LoginRequest,
    state: ClientState,
    next_sequence: u64,
    /// When something was received and sent last; `None` until the first call that knows the time.
    received_ns: Option<u64>,
    sent_ns: Option<u64>,
    started_ns: Option<u64>,
}

impl SoupClient {
    /// A connection that will ask for `session`, [`ANY_SESSION`] for the present one, from message
    /// `sequence` on, 0 for the next one to come.
    pub fn new(credentials: Credentials, session: Session, sequence: u64) -> Self {
        Self {
            frames: Frames::new(PACKET_BYTES_MAX),
            request: LoginRequest { credentials, session, sequence },
            state: ClientState::New,
            next_sequence: sequence,
            received_ns: None,
            sent_ns: None,
            started_ns: None,
        }
    }

    /// The connection stands: appends the login. The limits of time count from the next call that is
    /// told one.
    pub fn start(&mut self, out: &mut Vec<u8>) {
        if self.state == ClientState::New {
            ClientPacket::Login(self.request).write(out);
            self.state = ClientState::LoggingIn;
        }
    }

    /// Where the conversation stands.
    pub fn state(&self) -> ClientState {
        self.state
    }

    /// Number of the next message; 0 while it is not known.
    pub fn next_sequence(&self) -> u64 {
        self.next_sequence
    }

    /// Takes in bytes as they came, in any pieces, and tells what they hold. What follows the end of
    /// the conversation is ignored.
    pub fn receive(
        &mut self,
        bytes: &[u8],
        now_ns: u64,
        mut tell: impl FnMut(ClientEvent<'_>),
    ) -> ClientState {
        self.begin(now_ns);
        if !bytes.is_empty() {
            self.received_ns = Some(now_ns);
        }
        let mut rest = bytes;
        while !self.state.is_over() {
            match self
                .frames
                .next(&mut rest)
                .and_then(|frame| frame.map(ServerPacket::parse).transpose())
            {
                Ok(None) => break,
                Ok(Some(packet)) => {
                    let step = step(self.state, &self.request, &mut self.next_sequence, packet);
                    match step {
                        Ok((state, event)) => {
                            self.state = state;
                            if let Some(event) = event {
                                tell(event);
                            }
                        }
                        Err(error) => self.state = ClientState::Failed(error),
                    }
                }
                Err(error) => self.state = ClientState::Failed(error),
            }
        }
        self.state
    }

    /// Appends a heartbeat when one is due and judges the silence of the server.
    pub fn tick(&mut self, now_ns: u64, out: &mut Vec<u8>) -> ClientState {
        self.begin(now_ns);
        let since = |then: Option<u64>| now_ns.saturating_sub(then.unwrap_or(now_ns));
        match self.state {
            ClientState::LoggingIn if since(self.started_ns) >= LOGIN_LIMIT_NS => {
                self.state = ClientState::Failed(SoupError::LoginTimeout);
            }
            ClientState::LoggingIn | ClientState::LoggedIn
                if since(self.received_ns) >= SILENCE_LIMIT_NS =>
            {
                self.state = ClientState::Failed(SoupError::Silent);
            }
            ClientState::LoggedIn if since(self.sent_ns) >= HEARTBEAT_NS => {
                ClientPacket::Heartbeat.write(out);
                self.sent_ns = Some(now_ns);
            }
            _ => {}
        }
        self.state
    }

    /// Appends a logout; nothing more will be told.
    pub fn log_out(&mut self, out: &mut Vec<u8>) {
        if self.state == ClientState::LoggedIn {
            ClientPacket::Logout.write(out);
            self.state = ClientState::LoggedOut;
        }
    }

    fn begin(&mut self, now_ns: u64) {
        if self.state != ClientState::New {
            self.started_ns.get_or_insert(now_ns);
            self.sent_ns.get_or_insert(now_ns);
            self.received_ns.get_or_insert(now_ns);
        }
    }
}

/// What one packet does to a conversation that is not over.
fn step<'a>(
    state: ClientState,
    request: &LoginRequest,
    next_sequence: &mut u64,
    packet: ServerPacket<'a>,
) -> Result<(ClientState, Option<ClientEvent<'a>>), SoupError> {
    let is_logged_in = state == ClientState::LoggedIn;
    let in_turn = |kind, is_in_turn| match is_in_turn {
        true => Ok(()),
        false => Err(SoupError::OutOfTurn { kind }),
    };
    match packet {
        ServerPacket::Debug(text) => Ok((state, Some(ClientEvent::Debug(text)))),
        ServerPacket::Heartbeat => Ok((state, None)),
        ServerPacket::LoginAccepted { session, sequence } => {
            in_turn(b'A', state == ClientState::LoggingIn)?;
            if request.session != ANY_SESSION && !request.session.is_same(&session) {
                return Err(SoupError::OtherSession);
            }
            if request.sequence != 0 && request.sequence != sequence {
                let requested = request.sequence;
                return Err(SoupError::OtherSequence { requested, given: sequence });
            }
            *next_sequence = sequence;
            Ok((ClientState::LoggedIn, Some(ClientEvent::LoggedIn { session, sequence })))
        }
        ServerPacket::LoginRejected(reason) => {
            in_turn(b'J', state == ClientState::LoggingIn)?;
            Ok((ClientState::Rejected(reason), None))
        }
        ServerPacket::Sequenced(bytes) => {
            in_turn(b'S', is_logged_in)?;
            let sequence = *next_sequence;
            *next_sequence = sequence.checked_add(1).ok_or(SoupError::Exhausted)?;
            Ok((state, Some(ClientEvent::Message { sequence, bytes })))
        }
        ServerPacket::Unsequenced(bytes) => {
            in_turn(b'U', is_logged_in)?;
            Ok((state, Some(ClientEvent::Unsequenced(bytes))))
        }
        ServerPacket::EndOfSession => {
            in_turn(b'Z', is_logged_in)?;
            Ok((ClientState::Ended, None))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SESSION: Session = Session(*b"  20261128");
    const SECOND: u64 = 1_000_000_000;

    fn client(session: Session, sequence: u64) -> SoupClient {
        let mut client =
            SoupClient::new(Credentials::new("user", "pass").unwrap(), session, sequence);
        client.start(&mut Vec::new());
        client
    }

    fn bytes(packets: &[ServerPacket<'_>]) -> Vec<u8> {
        let mut out = Vec::new();
        packets.iter().for_each(|packet| packet.write(&mut out));
        out
    }

    fn accepted(sequence: u64) -> ServerPacket<'static> {
        ServerPacket::LoginAccepted { session: SESSION, sequence }
    }

    fn told(client: &mut SoupClient, bytes: &[u8], now_ns: u64) -> Vec<String> {
        let mut events = Vec::new();
        client.receive(bytes, now_ns, |event| events.push(format!("{event:?}")));
        events
    }

    #[test]
    fn messages_are_numbered_from_the_login_on() {
        let stream = bytes(&[
            ServerPacket::Debug(b"hi"),
            accepted(7),
            ServerPacket::Sequenced(b"one"),
            ServerPacket::Heartbeat,
            ServerPacket::Unsequenced(b"aside"),
            ServerPacket::Sequenced(b""),
            ServerPacket::EndOfSession,
        ]);
        let mut whole = client(ANY_SESSION, 7);
        let events = told(&mut whole, &stream, 1);
        assert_eq!(events.len(), 5, "{events:?}");
        assert_eq!(
            events[1..],
            [
                "LoggedIn { session: Session(  20261128), sequence: 7 }",
                "Message { sequence: 7, bytes: [111, 110, 101] }",
                "Unsequenced([97, 115, 105, 100, 101])",
                "Message { sequence: 8, bytes: [] }"
            ]
        );
        assert_eq!((whole.state(), whole.next_sequence()), (ClientState::Ended, 9));
        assert!(told(&mut whole, &stream, 2).is_empty(), "after the end nothing is told");

        let mut single = client(ANY_SESSION, 7);
        let pieces: Vec<String> =
            stream.chunks(1).flat_map(|piece| told(&mut single, piece, 1)).collect();
        assert_eq!(pieces, events);
    }

    #[test]
    fn another_session_or_number_than_asked_for_is_refused() {
        let mut other = client(Session(*b"  20261127"), 7);
        other.receive(&bytes(&[accepted(7)]), 1, |_| panic!());
        assert_eq!(other.state(), ClientState::Failed(SoupError::OtherSession));
        let mut later = client(SESSION, 7);
        later.receive(&bytes(&[accepted(9)]), 1, |_| panic!());
        let error = SoupError::OtherSequence { requested: 7, given: 9 };
        assert_eq!(later.state(), ClientState::Failed(error));
        let mut next = client(ANY_SESSION, 0);
        next.receive(&bytes(&[accepted(9)]), 1, |_| {});
        assert_eq!((next.state(), next.next_sequence()), (ClientState::LoggedIn, 9));
    }

    #[test]
    fn packets_out_of_turn_end_the_conversation() {
        for (packets, kind) in [
            (&[ServerPacket::Sequenced(b"x")][..], b'S'),
            (&[ServerPacket::EndOfSession], b'Z'),
            (&[accepted(1), accepted(1)], b'A'),
            (&[accepted(1), ServerPacket::LoginRejected(RejectReason::NoSession)], b'J'),
        ] {
            let mut client = client(ANY_SESSION, 1);
            let state = client.receive(&bytes(packets), 1, |_| {});
            assert_eq!(state, ClientState::Failed(SoupError::OutOfTurn { kind }));
        }
        let mut rejected = client(ANY_SESSION, 1);
        let reject = bytes(&[ServerPacket::LoginRejected(RejectReason::NotAuthorized)]);
        let state = rejected.receive(&reject, 1, |_| panic!());
        assert_eq!(state, ClientState::Rejected(RejectReason::NotAuthorized));
        assert!(state.is_over());
        let state = client(ANY_SESSION, 1).receive(b"\0\x02H!", 1, |_| panic!());
        let error = SoupError::WrongLength { kind: b'H', bytes: 1 };
        assert_eq!(state, ClientState::Failed(error));
    }

    #[test]
    fn a_heartbeat_a_second_and_silence_is_death() {
        let mut client = client(ANY_SESSION, 1);
        let mut out = Vec::new();
        client.receive(&bytes(&[accepted(1)]), 10 * SECOND, |_| {});
        assert_eq!(client.tick(10 * SECOND + HEARTBEAT_NS - 1, &mut out), ClientState::LoggedIn);
        assert!(out.is_empty());
        client.tick(11 * SECOND, &mut out);
        client.tick(11 * SECOND + 1, &mut out);
        client.tick(12 * SECOND, &mut out);
        assert_eq!(out, *b"\0\x01R\0\x01R");
        // One byte of a packet is a sign of life.
        client.receive(&[0], 20 * SECOND, |_| panic!());
        let end_ns = 20 * SECOND + SILENCE_LIMIT_NS;
        assert_eq!(client.tick(end_ns - 1, &mut out), ClientState::LoggedIn);
        assert_eq!(client.tick(end_ns, &mut out), ClientState::Failed(SoupError::Silent));
    }

    #[test]
    fn a_login_without_an_answer_is_given_up() {
        let mut silent = client(ANY_SESSION, 1);
        let mut out = Vec::new();
        assert_eq!(silent.tick(100 * SECOND, &mut out), ClientState::LoggingIn);
        let state = silent.tick(100 * SECOND + SILENCE_LIMIT_NS, &mut out);
        assert_eq!(state, ClientState::Failed(SoupError::Silent));
        let mut chatty = client(ANY_SESSION, 1);
        for second in 0..30 {
            chatty.receive(&bytes(&[ServerPacket::Heartbeat]), second * SECOND, |_| {});
            assert_eq!(chatty.tick(second * SECOND, &mut out), ClientState::LoggingIn);
        }
        let state = chatty.tick(LOGIN_LIMIT_NS, &mut out);
        assert_eq!(state, ClientState::Failed(SoupError::LoginTimeout));
        assert!(out.is_empty(), "no heartbeat before the login");
    }

    #[test]
    fn leaving_says_so_once() {
        let mut client = client(ANY_SESSION, 1);
        let mut out = Vec::new();
        client.log_out(&mut out);
        assert!(out.is_empty(), "not logged in");
        client.receive(&bytes(&[accepted(1)]), 1, |_| {});
        client.log_out(&mut out);
        client.log_out(&mut out);
        assert_eq!(out, *b"\0\x01O");
        client.receive(&bytes(&[ServerPacket::Sequenced(b"late")]), 1, |_| panic!());
        assert_eq!(client.tick(99 * SECOND, &mut out), ClientState::LoggedOut);
    }
}
