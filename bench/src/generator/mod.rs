//! The load generator: an AF_XDP client on the client's veth that shares no code with the product's
//! rings or packet building, so that each checks the other.
//!
//! ```text
//!   pacer / window -> packet (Ethernet, IPv4, UDP by hand) -> wire (xsk-rs) -> veth -> server
//!   latency / count <- check of the reply                  <- wire          <-
//! ```
//!
//! The wire is [`nautilus_tests::wire`].
//!
//! [`open`] is the open loop that latencies are quoted from; [`window`] keeps a fixed number of
//! requests outstanding and is what rates are quoted from. [`stream`] is the closed loop over TCP.

pub mod open;
pub mod pacer;
pub mod packet;
pub mod stream;
pub mod window;

/// What a load run asks and how it knows the answer.
pub trait Traffic {
    /// Writes the payload of request `index` that occupies `slot` (below 65,536) into the front of
    /// `payload` and returns its length.
    fn request(&mut self, index: u64, slot: u16, payload: &mut [u8]) -> usize;

    /// The slot a reply belongs to, and whether it is the right answer for it. `None`: not a reply
    /// to anything of ours.
    fn reply(&mut self, payload: &[u8]) -> Option<(u16, bool)>;
}

/// What a load run saw.
#[derive(Clone, Debug, Default)]
pub struct Outcome {
    /// Requests sent.
    pub sent: u64,
    /// Right answers in time.
    pub right: u64,
    /// Answers with the wrong content.
    pub wrong: u64,
    /// Requests given up on.
    pub lost: u64,
    /// First request to last answer.
    pub elapsed_ns: u64,
    /// From the spin probe in the generator's own loop.
    pub held_share: f64,
}

impl Outcome {
    /// Right answers a second.
    pub fn rate_per_s(&self) -> f64 {
        self.right as f64 * 1e9 / self.elapsed_ns.max(1) as f64
    }

    /// Refuses a run whose answers cannot be trusted: any wrong one, or more than 1 % lost.
    pub fn check(&self, who: &str) -> anyhow::Result<()> {
        anyhow::ensure!(self.right > 0, "{who}: not one right answer to {} requests", self.sent);
        anyhow::ensure!(self.wrong == 0, "{who}: {} wrong answers of {}", self.wrong, self.sent);
        anyhow::ensure!(
            self.lost * 100 <= self.sent,
            "{who}: {} of {} requests lost",
            self.lost,
            self.sent
        );
        Ok(())
    }
}
