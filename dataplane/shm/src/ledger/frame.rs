//! The words the ledger speaks in: rings, states, tokens and counts.

/// The four rings of an AF_XDP socket, in the order of their intent words.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ring {
    /// Free frames to the kernel; the worker produces.
    Fill = 0,
    /// Received packets; the worker consumes.
    Rx = 1,
    /// Packets to send; the worker produces.
    Tx = 2,
    /// Sent frames coming back; the worker consumes.
    Completion = 3,
}

impl Ring {
    /// All four, in intent order.
    pub const ALL: [Ring; 4] = [Ring::Fill, Ring::Rx, Ring::Tx, Ring::Completion];
}

/// What a state byte says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum FrameState {
    /// In the worker's pool.
    Free = 0,
    /// In the worker's hands: being handled, or written but not given to the tx ring.
    Held = 1,
    /// Given to the fill ring and not yet taken from the rx ring.
    Rx = 2,
    /// Given to the tx ring and not yet taken from the completion ring.
    Tx = 3,
}

impl FrameState {
    pub(super) fn from_byte(byte: u8) -> Option<Self> {
        Some(match byte {
            0 => Self::Free,
            1 => Self::Held,
            2 => Self::Rx,
            3 => Self::Tx,
            _ => return None,
        })
    }
}

/// The right to read and write one frame that is HELD. Not `Clone`: while it exists nobody else,
/// the kernel included, has the frame. Dropping it without [`super::Ledger::release`] or
/// [`super::Ledger::transmit`] leaves the frame HELD until the next recovery.
#[derive(Debug, PartialEq, Eq)]
#[must_use = "a dropped frame stays HELD until the next recovery"]
pub struct Frame {
    pub(super) index: u32,
    pub(super) ledger: u32,
}

impl Frame {
    /// Number of the frame in its UMEM, below the ledger's frame count.
    pub fn index(&self) -> u32 {
        self.index
    }

    /// Identifier of the ledger this token came from; never 0 and unique in this process.
    pub fn ledger(&self) -> u32 {
        self.ledger
    }
}

/// How many frames are in each state. The four always add up to the number of frames.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FrameCounts {
    /// [`FrameState::Free`].
    pub free: u32,
    /// [`FrameState::Held`].
    pub held: u32,
    /// [`FrameState::Rx`].
    pub rx: u32,
    /// [`FrameState::Tx`].
    pub tx: u32,
}

impl FrameCounts {
    /// Sum of the four.
    pub fn total(&self) -> u32 {
        self.free + self.held + self.rx + self.tx
    }
}
