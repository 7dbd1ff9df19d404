//! What a channel has published: the newest best bid and offer of each stock.

use nautilus_dataplane::app::{ChannelState, Keyspace, PutError};
use nautilus_dataplane::feed::book::Bbo;
use nautilus_dataplane::feed::record::BboRecord;

use super::STOCKS;

/// A keyspace that keeps the last record by stock locate.
pub struct Shown {
    bbos: Vec<Bbo>,
}

impl Shown {
    /// Nothing is published.
    pub fn new() -> Self {
        Self { bbos: vec![Bbo::default(); usize::from(STOCKS) + 1] }
    }

    /// The newest best bid and offer of a stock.
    pub fn bbo(&self, locate: u16) -> Bbo {
        self.bbos[usize::from(locate)]
    }
}

impl Keyspace for Shown {
    fn begin_channel(&mut self, _channel: u8) {
        self.bbos.fill(Bbo::default());
    }

    fn put(&mut self, key: &[u8], value: &[u8], _: u8, _: u64) -> Result<(), PutError> {
        if key.ends_with(b":bbo") {
            let record = BboRecord::decode(value).ok_or(PutError::BadKey)?;
            let place = self.bbos.get_mut(usize::from(record.origin.locate));
            *place.ok_or(PutError::BadKey)? = record.bbo;
        }
        Ok(())
    }

    fn set_channel(&mut self, _channel: u8, _state: ChannelState) {}
}
